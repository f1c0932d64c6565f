"""Trainings without the finished folder at their end: the loop and its checkpoints, as `train` puts them together."""

import hashlib
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from train_hooks.fingerprint import fingerprint
from train_hooks.out_folder import FOLDER
from train_hooks.prepare import prepare
from train_hooks.recipe import Recipe
from train_hooks.session import begin

SMALL = {
    "frames": "3", "width_px": "16", "height_px": "16", "unet_channels": "16,16", "vae_channels": "16,16", "head_dim": "16",
    "text_width": "16", "vae_fit_steps": "0", "batch": "2", "threads": "1", "heldout_share": "0", "log_every": "1",
    "heldout_every": "0", "checkpoint_every": "100",
}  # fmt: skip


@dataclass
class Done:
    """What a training did, step by step, and where it ended."""

    losses: list[float | None]
    weights: str
    ema: str
    clips: list[list[str]]
    training: Any = None
    lines: list[str] = field(default_factory=list)


def digest(tensors: dict[str, torch.Tensor]) -> str:
    """A digest of the bits of some tensors."""
    made = hashlib.sha256()
    for key, value in sorted(tensors.items()):
        made.update(key.encode())
        made.update(value.detach().cpu().contiguous().numpy().tobytes())
    return made.hexdigest()


def run(
    recipe: Recipe, shards: Path, out: Path, say: Callable[[str], None] | None = None, latents: str | None = None
) -> Done:
    """Trains, from the newest checkpoint in `out` where there is one. `say` hears every line; what it does is up to it."""
    lines: list[str] = []

    def log(line: str) -> None:
        lines.append(line)
        if say is not None:
            say(line)

    made = prepare(recipe, shards, out / FOLDER, latents, log)
    training = begin(made, out, fingerprint(recipe, made.feed.index, made.latents), log)
    clips: list[list[str]] = []
    note = training.note

    def watch(bad: str, tally: Any, clip_ids: list[str], *more: Any) -> None:
        clips.append(clip_ids)
        note(bad, tally, clip_ids, *more)

    training.note = watch  # type: ignore[method-assign]
    try:
        training.run()
    finally:
        made.machine.close()
    unet = made.net.unet
    return Done(
        training.metrics.losses, digest(dict(unet.named_parameters())), digest(training.ema), clips, training, lines
    )


def stop_after(step: int) -> Callable[[str], None]:
    """For `say`: ends the training behind this step, as SIGTERM during it would."""

    def log(line: str) -> None:
        if line.startswith(f"step {step - 1}/") or (step == 1 and line.startswith("stage ")):
            os.kill(os.getpid(), signal.SIGTERM)

    return log


@contextmanager
def ignoring_sigterm() -> Iterator[None]:
    """SIGTERM that comes before the loop listens is not the end of the tests."""
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
