"""Latents that were made beforehand: what they must have been made from, and whether there are some that fit.

A training spends a quarter of its arithmetic on the VAE (4.4 of 19 TFLOP for a clip of 256 x 256 x 16) and a good part of its time on decoding;
latents that are there already (`rushes latents`) cost neither. They are of use as long as the same windows of the same clips are wanted at the
same size from the same VAE: that is their claim, and latents with another one are refused. `latent_cache.py` has the format.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import fsspec
import torch

from train_hooks.base import Base
from train_hooks.errors import TrainError
from train_hooks.feed import Feed
from train_hooks.fingerprint import differences
from train_hooks.latent_cache import LatentCache, read_claim
from train_hooks.out_folder import BASE
from train_hooks.recipe import Recipe
from train_hooks.tiny_base import name_of_base

LAYOUT = 1  # of the files; another number makes all of them again


def root_of(latents: str | None, shards: str | Path) -> str:
    """Folder of the latents of a shards folder: `latents/` beside it, unless another place is given."""
    return latents or f"{str(shards).rstrip('/').rpartition('/')[0] or '.'}/latents"


def tiny_base(latents: str | None, shards: str | Path, shown: Recipe) -> Path:
    """Folder of a recipe's small random base, when latents were made with it."""
    return Path(root_of(latents, shards).removeprefix("file://")) / name_of_base(shown)


def claim_of(feed: Feed, stage: Recipe, base: Base) -> dict[str, Any]:
    """What latents are made from, as JSON knows it."""
    return {
        "layout": LAYOUT,
        "shards_sha256": feed.index.content_sha256,
        "sizes": [str(size) for size in feed.sizes],
        "fps": feed.fps,
        "seed": feed.seed,
        "tagged_frames": stage.tagged_frames,
        "heldout_share": stage.heldout_share,
        "first_frame": stage.image_condition != "none",
        "vae_sha256": weights_sha256(base.vae, without=("decoder.", "post_quant_conv.")),
    }


def name_of(claim: Mapping[str, Any]) -> str:
    """The folder of latents with this claim."""
    digest = hashlib.sha256(json.dumps(claim, sort_keys=True).encode()).hexdigest()[:8]
    return f"{'+'.join(claim['sizes'][:2])}-{claim['fps']:g}fps-{digest}"


def weights_sha256(module: Any, without: tuple[str, ...] = ()) -> str:
    """A digest of the weights of a part of a model, but those whose keys begin so: latents do not depend on a VAE's decoder."""
    digest = hashlib.sha256()
    for key, value in sorted(module.state_dict().items()):
        if key.startswith(without):
            continue
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def find(
    latents: str | None, shards: str | Path, feed: Feed, stage: Recipe, base: Base, say: Callable[[str], None]
) -> LatentCache | None:
    """The latents that fit, or None where none fit and no folder was named.

    Raises TrainError when those that were asked for are of something else.
    """
    root = root_of(latents, shards)
    try:
        others = _claims(root)
    except (
        Exception
    ) as error:  # each storage has its own errors; read access to shards does not imply list access to their parent
        if latents is not None:
            raise TrainError(f"{root} cannot be read: {' '.join(str(error).split())}") from None
        others = {}
    if not others:
        if latents is not None:
            raise TrainError(f"{root} holds no finished latents; `rushes latents` makes them")
        return None
    wanted = claim_of(feed, stage, base)
    name = name_of(wanted)
    if name in others:
        cache = LatentCache(f"{root}/{name}", wanted)
        if cache.has_text and base.text_encoder is not None:
            theirs, ours = cache.claim["text_encoder_sha256"], weights_sha256(base.text_encoder)
            if theirs != ours:
                raise TrainError(
                    f"the text states in {root}/{name} are of another text encoder; run `rushes latents` again"
                )
        say(f"latents: {root}/{name}, {cache.windows} windows of each clip{', with text' if cache.has_text else ''}")
        return cache
    changes = min((list(differences(claim["made_from"], wanted)) for claim in others.values()), key=len)
    if latents is not None:
        raise TrainError(f"the latents in {root} are of something else: {'; '.join(changes)}")
    say(f"latents: those in {root} are not used, they are of something else ({'; '.join(changes)})")
    return None


def _claims(root: str) -> dict[str, dict[str, Any]]:
    """The claims of all finished latents under a root, by name."""
    filesystem, path = fsspec.url_to_fs(root)
    try:
        names = [entry.rstrip("/").rpartition("/")[2] for entry in filesystem.ls(path, detail=False)]
    except (FileNotFoundError, NotADirectoryError):
        return {}
    found = {name: read_claim(f"{root}/{name}") for name in names if not name.startswith(BASE)}
    return {name: claim for name, claim in found.items() if claim and claim.get("files")}
