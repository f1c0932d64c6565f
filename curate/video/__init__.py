"""Frames and their times. `curate.video.open` is the front door; video files are opened here and in `curate.clips` only."""
