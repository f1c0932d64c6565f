"""`rushes train --plan`: clips used and left out, memory and time of a training, before it starts.

On a GPU a training begins with the same trial of every bucket, the largest first.
"""

import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from train_hooks import trainable
from train_hooks.feed import Chunk, Feed
from train_hooks.flops import Saved, counted
from train_hooks.machine import Machine
from train_hooks.micro_batch import Tally, backward, micro_batch_size
from train_hooks.prepare import Prepared, prepare
from train_hooks.recipe import Recipe
from train_hooks.recipe_files import load_recipe
from train_hooks.size import Size

GIB = 2**30
OPTIMIZER_BYTES = 8  # AdamW: two float32 moments of each weight


@dataclass(frozen=True)
class Trial:
    """One forward and backward pass of one micro-batch of a bucket."""

    size: Size
    clips: int
    micro_batch: int
    seconds: float
    activations_bytes: int
    tflop_per_clip: float


def plan(
    recipe: str,
    shards: str | Path,
    overrides: dict[str, str] | None = None,
    say: Callable[[str], None] = print,
    latents: str | None = None,
    clips: Path | None = None,
) -> None:
    """Prints what `train` would do, without training. Raises what `train` raises before its first step."""
    whole = load_recipe(recipe, overrides)
    made = prepare(whole, shards, None, latents, say, clips)
    try:
        begin = 0
        for stage, feed in zip(made.plan, made.feeds, strict=True):
            _report(made, stage, feed, begin, say)
            begin += stage.steps
    finally:
        made.machine.close()


def _report(made: Prepared, stage: Recipe, feed: Feed, begin: int, say: Callable[[str], None]) -> None:
    name = f"stage {stage.stage or begin}: " if made.whole.stages else ""
    epochs = stage.steps / feed.steps_per_epoch()
    say(
        f"{name}{stage.steps} steps of {stage.batch} clips, {feed.steps_per_epoch():.4g} steps an epoch, {epochs:.3g} epochs"
    )
    used = feed.reached(begin + stage.steps, begin) if not stage.overfit else feed.reached(stage.overfit)
    say(f"clips: {len(used)} used, {len(feed.heldout)} held out, {len(feed.left_out)} left out"
        + (f", {len(feed.train) - len(used)} not reached" if len(used) < len(feed.train) else ""))  # fmt: skip
    for kind, n in Counter(_kind(reason) for reason in feed.left_out.values()).most_common():
        say(f"  {n} left out, as here: {next(r for r in feed.left_out.values() if _kind(r) == kind)}")
    fixed = fixed_bytes(made, stage)
    say(f"weights, gradients and optimizer: {fixed / GIB:.2f} GiB on each of {made.machine.world} ranks")
    for trial in trials(made, stage, feed):
        memory = fixed + trial.activations_bytes
        passes = -(-stage.batch // (trial.micro_batch * made.machine.world))
        step_s = trial.seconds * passes
        say(
            f"bucket {trial.size}: {trial.clips} clips, {trial.micro_batch} at once, {memory / GIB:.2f} GiB, "
            f"{step_s:.2f} s a step, {trial.tflop_per_clip:.3g} TFLOP a clip"
        )


def trials(made: Prepared, stage: Recipe, feed: Feed) -> list[Trial]:
    """A forward and a backward pass of every bucket, the largest first, so that too little memory shows at once. Changes no weight."""
    trainable.choose(made.net.unet, stage)
    counts = Counter(feed.buckets)
    found = []
    for bucket in sorted(counts, key=lambda b: -_area(feed.sizes[b])):
        micro_batch = micro_batch_size(stage, made.machine.world)
        numbers = [i for i, b in enumerate(feed.buckets) if b == bucket]
        clips = tuple((numbers[i % len(numbers)], 0) for i in range(micro_batch))
        stills = tuple((number, 0) for number, _ in clips for _ in range(stage.images_per_video))
        loaded = feed.load(Chunk(0, bucket, tuple(range(micro_batch)), clips, stills=stills))
        clip_ids = [feed.train[i].clip_id for i, _ in clips]
        work = partial(backward, stage, loaded, clip_ids, made.tools, Tally.empty(stage.batch))
        try:
            with Saved(made.net.unet.parameters()) as kept:
                flops = counted(work)  # warms up as well
            began_s = _now(made.machine)
            work()
            seconds = _now(made.machine) - began_s
        finally:
            for weight in made.net.unet.parameters():
                weight.grad = None
        found.append(
            Trial(feed.sizes[bucket], counts[bucket], micro_batch, seconds, kept.bytes, flops / micro_batch / 1e12)
        )
    return found


def preflight(made: Prepared, say: Callable[[str], None]) -> dict[str, float]:
    """The trials of all stages before a training begins: operations of one clip, by size. Too little memory shows here, at once."""
    found: dict[str, float] = {}
    for stage, feed in zip(made.plan, made.feeds, strict=True):
        try:
            for trial in trials(made, stage, feed):
                found[str(trial.size)] = trial.tflop_per_clip * 1e12
        except torch.OutOfMemoryError:
            say(
                f"memory runs out on {micro_batch_size(stage, made.machine.world)} clips at once; training will use smaller micro-batches"
            )
            torch.cuda.empty_cache()
    return found


def fixed_bytes(made: Prepared, stage: Recipe) -> int:
    """Bytes of the weights, of the trained ones' gradients and AdamW's moments, of their average, and of the frozen parts."""
    unet = made.net.unet
    each = 2 if stage.bf16_weights else 4
    trained = sum(w.numel() for w in trainable.choose(unet, stage).values())
    frozen = [part for part in (made.base.vae, made.base.text_encoder, made.base.image_encoder) if part is not None]
    beside = sum(p.numel() * p.element_size() for part in frozen for p in part.parameters())
    average = 4 if stage.ema_decay else 0
    return int(sum(w.numel() for w in unet.parameters()) * each + trained * (each + OPTIMIZER_BYTES + average) + beside)


def _area(size: Size) -> int:
    return size.width_px * size.height_px * size.frames


def _kind(reason: str) -> str:
    """A reason without its numbers and names, so that equal ones can be counted."""
    return re.sub(r"clip \S+ in \S+|[\d.]+", "", reason)


def _now(machine: Machine) -> float:
    if machine.device.type == "cuda":
        torch.cuda.synchronize()
    return time.monotonic()
