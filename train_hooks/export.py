"""The finished folder: what diffusers' pipelines load, the weights under other projects' names, a model card, and `train.json`.

| architecture | folder loads with | beside it |
|---|---|---|
| unet3d | `TextToVideoSDPipeline`, `UNet3DConditionModel` | |
| spatiotemporal, first frame | `StableVideoDiffusionPipeline` | |
| spatiotemporal, text | `UNetSpatioTemporalConditionModel` in `unet/`; `rushes sample` | |
| videocrafter | `rushes sample` | `model.safetensors` with lvdm's keys; `model.ckpt` only when asked, for it is a pickle |
| lavie | `rushes sample` | `lavie_base.safetensors` with LaVie's keys; `lavie_base.pt` only when asked |

A LoRA is merged into `unet/` and also saved in `lora/`, in diffusers' format (`train_hooks.trainable.load_lora` reads it for any UNet; the
pipelines of diffusers 0.42 do not load LoRAs into video UNets). A folder with `train.json` is a finished one.
"""

import json
import os
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from train_hooks.base import PARTS, Base
from train_hooks.card import curve_svg, model_card
from train_hooks.errors import TrainError
from train_hooks.export_keys import as_lavie, as_videocrafter
from train_hooks.net import kind_of
from train_hooks.out_folder import RECORD
from train_hooks.trainable import merge_lora

PACKAGES = ("torch", "diffusers", "transformers", "safetensors", "pyarrow", "av", "peft")
OTHERS = {"videocrafter": ("model", "ckpt", as_videocrafter), "lavie": ("lavie_base", "pt", as_lavie)}


def export(base: Base, unet: Any, scheduler: Any, record: dict[str, Any], out: Path, pickled: bool = False) -> None:
    """Writes everything to `out`, beside the checkpoints. `pickled`: the other projects' files as pickles too.

    The parts are moved into place one by one, `train.json` last: a folder with `train.json` is complete.
    """
    for left in out.glob(".export.*.part"):  # of a training that was killed here
        shutil.rmtree(left, ignore_errors=True)
    aside = out / f".export.{os.getpid()}.part"
    try:
        aside.mkdir(parents=True)
        lora = merge_lora(unet)
        _save_parts(base, unet, scheduler, aside)
        if lora:
            _save_lora(lora, aside / "lora")
        _save_as_others(unet, aside, pickled)
        record = {**record, "versions": _versions()}
        (aside / "loss.svg").write_text(curve_svg(record["losses"]["per_step"]), encoding="utf-8")
        (aside / "README.md").write_text(model_card(record), encoding="utf-8")
        (aside / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        (out / RECORD).unlink(missing_ok=True)
        for made in sorted(aside.iterdir(), key=lambda path: path.name == RECORD):
            place = out / made.name
            if place.is_dir():
                shutil.rmtree(place)
            made.replace(place)
    except OSError as error:
        raise TrainError(f"the finished model cannot be written to {out}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _save_parts(base: Base, unet: Any, scheduler: Any, folder: Path) -> None:
    kind = kind_of(unet)
    if kind == "unet3d":
        from diffusers import TextToVideoSDPipeline

        TextToVideoSDPipeline(
            vae=base.vae, text_encoder=base.text_encoder, tokenizer=base.tokenizer, unet=unet, scheduler=scheduler
        ).save_pretrained(folder)
        return
    if kind == "spatiotemporal" and base.image_encoder is not None:
        from diffusers import StableVideoDiffusionPipeline

        StableVideoDiffusionPipeline(
            vae=base.vae, image_encoder=base.image_encoder, unet=unet, scheduler=scheduler,
            feature_extractor=base.feature_extractor,
        ).save_pretrained(folder)  # fmt: skip
        return
    parts = {part: getattr(base, part, None) for part in PARTS} | {"unet": unet, "scheduler": scheduler}
    for part, made in parts.items():
        if made is not None:
            made.save_pretrained(folder / part)


def _save_lora(lora: dict[str, Tensor], folder: Path) -> None:
    folder.mkdir()
    save_file(
        {f"unet.{key}": value.contiguous() for key, value in lora.items()}, folder / "pytorch_lora_weights.safetensors"
    )


def _save_as_others(unet: Any, folder: Path, pickled: bool) -> None:
    if kind_of(unet) not in OTHERS:
        return
    name, ending, convert = OTHERS[kind_of(unet)]
    weights = convert(unet)
    save_file(weights, folder / f"{name}.safetensors")
    if pickled:
        torch.save({"state_dict": weights} if ending == "ckpt" else weights, folder / f"{name}.{ending}")


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
