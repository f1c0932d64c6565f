"""Frames and their times, whatever the file. `curate.video.open` is the front door; everything that opens a video file is here or in `curate.clips`."""
