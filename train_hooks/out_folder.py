"""The folder of a training: `checkpoints/` while it runs, `train.json` once it is finished. Light to import."""

import json
import shutil
from pathlib import Path
from typing import Any

from train_hooks.errors import TrainError

FOLDER = "checkpoints"
RECORD = "train.json"
BASE = "base-"
"""Prefix of the folders of small random bases, in `checkpoints/` and beside latents."""


def check_out(out: Path) -> None:
    """Raises TrainError when `out` exists and is neither empty nor a training, finished or not."""
    ours = out.is_dir() and ((out / RECORD).is_file() or (out / FOLDER).is_dir() or not any(out.iterdir()))
    if out.exists() and not ours:
        raise TrainError(f"{out} exists and was not written by a training; give another folder with --out")


def clear(out: Path) -> None:
    """Removes an earlier training except the small random bases of its checkpoints. Raises TrainError as `check_out`."""
    check_out(out)
    found = [path for folder in (out, out / FOLDER) if folder.is_dir() for path in folder.iterdir()]
    for path in found:
        if path.is_dir() and path.name != FOLDER and not path.name.startswith(BASE):
            shutil.rmtree(path)
        elif path.is_file():
            path.unlink()


def record_in(out: Path) -> dict[str, Any] | None:
    """`train.json`, or None where it is missing or unreadable."""
    try:
        record: dict[str, Any] = json.loads((out / RECORD).read_text(encoding="utf-8"))
        return record if "losses" in record else None
    except (OSError, ValueError, TypeError):
        return None
