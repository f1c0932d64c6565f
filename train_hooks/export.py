"""The finished folder: what `TextToVideoSDPipeline.from_pretrained` loads, and `train.json` beside it.

Written aside and moved into place in one step: a folder with `train.json` is a complete one.
"""

import json
import os
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

from diffusers import TextToVideoSDPipeline

from train_hooks.errors import TrainError
from train_hooks.tiny_base import Base

PACKAGES = ("torch", "diffusers", "transformers", "safetensors", "pyarrow", "av")
RECORD = "train.json"


def check_out(out: Path) -> None:
    """Raises TrainError when `out` exists and is neither empty nor an earlier training, which alone may be replaced."""
    if out.exists() and not (out.is_dir() and ((out / RECORD).is_file() or not any(out.iterdir()))):
        raise TrainError(f"{out} exists and was not written by a training; give another folder with --out")


def export(base: Base, unet: Any, record: dict[str, Any], out: Path) -> None:
    """Writes the pipeline's parts, model_index.json and train.json to `out`, replacing an earlier training."""
    check_out(out)
    aside = out.with_name(f".{out.name}.{os.getpid()}.part")
    aside.mkdir(parents=True)
    try:
        pipeline = TextToVideoSDPipeline(
            vae=base.vae, text_encoder=base.text_encoder, tokenizer=base.tokenizer, unet=unet, scheduler=base.scheduler
        )
        pipeline.save_pretrained(aside)
        record = {**record, "versions": {name: version(name) for name in PACKAGES}}
        (aside / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        if out.exists():
            shutil.rmtree(out)
        aside.rename(out)
    except OSError as error:
        raise TrainError(f"the finished model cannot be written to {out}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
