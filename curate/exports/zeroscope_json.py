"""ExponentialML's Text-To-Video-Finetuning: `videos/ID.mp4` and `dataset.json`, with a prompt for each frame index."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from curate.exports.items import Item, write_videos


def write(items: Iterable[Item], out: Path, index: Mapping[str, Any]) -> None:
    """Writes prompts at frame indices: a captioner's tagged frames if the clip has them, else its caption at frame 0."""
    data = []
    for item in write_videos(items, out):
        tagged = next((v for name, v in item.row.items() if name.startswith("tagged_frames") and v), None)
        prompts = tagged or [{"frame_index": 0, "prompt": item.caption}]
        path = f"videos/{item.clip_id}.mp4"
        data.append({"video_path": path, "num_frames": item.row["n_frames"], "data": list(prompts)})
    (out / "dataset.json").write_text(
        json.dumps({"name": out.name, "data": data}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
