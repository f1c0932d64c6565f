"""finetrainers: `videos/ID.mp4`, `videos.txt` and `prompts.txt` with a line for each clip in the same order, and `training.json`."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from curate.config.buckets import Bucket
from curate.exports.items import Item, write_videos


def write(items: Iterable[Item], out: Path, index: Mapping[str, Any]) -> None:
    """Writes both lists, and `training.json` for the option `--dataset_config` of finetrainers."""
    names, prompts, buckets = [], [], set()
    for item in write_videos(items, out):
        names.append(f"videos/{item.clip_id}.mp4\n")
        prompts.append(item.caption + "\n")
        buckets.add(item.row["bucket"])
    (out / "videos.txt").write_text("".join(names), encoding="utf-8")
    (out / "prompts.txt").write_text("".join(prompts), encoding="utf-8")
    sizes = sorted([b.frames, b.size_px[1], b.size_px[0]] for b in map(Bucket.named, filter(None, buckets)))
    entry = {"data_root": str(out), "dataset_type": "video", "video_resolution_buckets": sizes}
    (out / "training.json").write_text(json.dumps({"datasets": [entry]}, indent=1) + "\n", encoding="utf-8")
