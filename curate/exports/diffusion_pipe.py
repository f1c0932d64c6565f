"""diffusion-pipe: `videos/ID.mp4`, `videos/ID.txt`, and `dataset.toml` with the sizes and numbers of frames of the buckets."""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from curate.config.buckets import Bucket
from curate.exports.items import Item, write_videos


def write(items: Iterable[Item], out: Path, index: Mapping[str, Any]) -> None:
    """Writes pairs of mp4 and txt, and the dataset file. Its `resolutions` are sides of squares of the same area (pixels)."""
    names = set()
    for item in write_videos(items, out):
        (out / "videos" / f"{item.clip_id}.txt").write_text(item.caption, encoding="utf-8")
        names.add(item.row["bucket"])
    buckets = [Bucket.named(name) for name in names if name]
    sides = sorted({round(math.sqrt(b.size_px[0] * b.size_px[1]) / 16) * 16 for b in buckets}) or [256]
    frames = sorted({1, *(b.frames for b in buckets)})
    aspects = sorted({round(b.aspect[0] / b.aspect[1], 3) for b in buckets}) or [1.0]
    text = f"""\
# Written by `rushes export --to diffusion-pipe`.
resolutions = {sides}
frame_buckets = {frames}
enable_ar_bucket = true
ar_buckets = {aspects}

[[directory]]
path = {json.dumps(str((out / "videos").absolute()))}
num_repeats = 1
"""
    (out / "dataset.toml").write_text(text, encoding="utf-8")
