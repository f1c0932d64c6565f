"""The values that must be equal to resume a training, and the differences where they are not."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from train_hooks.recipe import Recipe
from train_hooks.shard_index import ShardIndex

DIGEST_LENGTH = 64  # of a sha256 in hexadecimal digits
FREE = {
    "name", "threads", "workers", "log_every", "checkpoint_every", "checkpoint_keep", "heldout_every", "sample_every", "sample_prompts",
    "clip_weights", "fvd_weights", "compile", "fast", "checkpointing", "micro_batch", "max_broken_share", "sampler", "sample_steps",
    "guidance", "first_frame_guidance",
}  # fmt: skip
"""Keys of a recipe that may change before a resume: speed, logging, and sampling after the training."""


def fingerprint(recipe: Recipe, index: ShardIndex, latents: Sequence[str | None]) -> dict[str, Any]:
    """The recipe without FREE keys, the clips of the shards, how captions are mixed, and the latents of each stage; as JSON knows it."""
    made: dict[str, Any] = {
        "recipe": {key: value for key, value in asdict(recipe).items() if key not in FREE},
        "shards": {"clips": len(index.clips), "sha256": index.content_sha256},
        "captions": asdict(index.captions),
        "latents": list(latents),
    }
    if index.chosen_sha256:
        made["shards"]["chosen"] = index.chosen_sha256
    plain: dict[str, Any] = json.loads(json.dumps(made))
    return plain


def differences(old: Mapping[str, Any], new: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Names what differs, one `recipe.lr: 0.001 -> 0.002` each."""
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from differences(before, after, f"{path}{key}.")
        elif before != after:
            yield f"{path}{key}: {_short(before)} -> {_short(after)}"


def _short(value: Any) -> str:
    if isinstance(value, str) and len(value) == DIGEST_LENGTH:
        return value[:12]
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:40]}... ({hashlib.sha256(text.encode()).hexdigest()[:8]})"
