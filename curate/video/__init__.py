"""Frames and their times. The public functions are in `curate.video.open`; only this package and `curate.clips` open video files."""
