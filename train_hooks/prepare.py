"""The common start of every use of a recipe: the base, its inflated UNet, the latents that fit, and the feed of each stage."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from train_hooks.base import Base, check_size, folder_of, hush, load_base
from train_hooks.batch import Encoder
from train_hooks.checkpointing import checkpoint_activations
from train_hooks.conditioning import MotionBuckets
from train_hooks.errors import TrainError
from train_hooks.fast import speed_up
from train_hooks.feed import Feed
from train_hooks.latents import find, tiny_base
from train_hooks.machine import Machine
from train_hooks.micro_batch import Tools
from train_hooks.net import Net, make
from train_hooks.objectives import schedule
from train_hooks.recipe import Recipe
from train_hooks.shard_index import ShardIndex, read_clip_list, read_index
from train_hooks.stage_feed import build_tiny, feed_of
from train_hooks.tiny_base import name_of_base

MAKING = 2**31 - 1  # the stream of the new layers' first values


@dataclass
class Prepared:
    """Ready to train. `feeds` and `latents` have one for each stage."""

    whole: Recipe
    plan: list[Recipe]
    shown: Recipe
    machine: Machine
    base: Base
    net: Net
    feeds: list[Feed]
    latents: list[str | None]
    motion: MotionBuckets
    identity_error: float | None

    @property
    def feed(self) -> Feed:
        """The clips as the stage that is shown sees them."""
        return self.feeds[self.plan.index(self.shown)]

    @cached_property
    def tools(self) -> Tools:
        """The net on its device, with the recipe's precision, layout and activation checkpointing."""
        unet = self.net.unet
        unet.to(self.machine.device, torch.bfloat16 if self.whole.bf16_weights else None)
        if self.shown.fast:
            speed_up(unet)
        checkpoint_activations(unet, self.shown.checkpointing)
        self.net.autocast = self.machine.accelerator.autocast
        return Tools(self.net, Encoder(self.base, self.motion, self.feed.cache), schedule(self.shown), self.machine)


def prepare(
    whole: Recipe,
    shards: str | Path,
    keep_base: Path | None,
    latents: str | None,
    say: Callable[[str], None],
    clips: Path | None = None,
    index: ShardIndex | None = None,
) -> Prepared:
    """Reads the shards and the base, and makes the video UNet.

    Args:
        whole: the recipe, with all its stages.
        shards: a folder or URL.
        keep_base: where a small random base is written, and read from if it exists; None: nowhere.
        latents: a folder of `rushes latents` that must fit; None: the one beside the shards if it fits; "off": none.
        say: receives one line at a time, on the first rank.
        clips: a text file with the ids of the clips to train on, one per line; None: all.
        index: what `read_index(shards)` returned; None: reads it.

    Raises TrainError when something does not fit.
    """
    plan, shown = whole.plan(), whole.shown()
    torch.set_num_threads(shown.threads)
    hush()
    machine = Machine(shown.precision)
    if not machine.first:
        say = discard
    for stage in plan:
        if stage.batch < machine.world:
            raise TrainError(
                f"a batch of {stage.batch} leaves some of {machine.world} ranks without clips; set batch higher"
            )
    index = index or read_index(shards)
    if clips is not None:
        index = index.only(read_clip_list(clips), str(clips))
    pixels = [feed_of(stage, shards, index) for stage in plan]
    with TemporaryDirectory() as aside:
        folder = _base_folder(whole, pixels[plan.index(shown)], keep_base or Path(aside), shards, latents, machine, say)
        base = load_base(folder, shown)
    for stage in plan:
        check_size(base.vae, stage)
    for part in (base.vae, base.text_encoder, base.image_encoder):
        if part is not None:
            part.to(machine.device)

    feeds, names = [], []
    for stage, feed in zip(plan, pixels, strict=True):
        cache = None if latents == "off" else find(latents, shards, feed, stage, base, say)
        names.append(cache.identity if cache is not None else None)
        feeds.append(feed if cache is None else feed_of(stage, shards, index, cache))
    motion = MotionBuckets.of([clip.motion for clip in feeds[plan.index(shown)].train])

    torch.manual_seed((shown.seed * MAKING + 1) % 2**63)
    width = base.image_encoder.config.hidden_size if base.image_encoder else 0
    unet, report, identity = make(base.unet, shown, width)
    if report is None:
        say(f"the base is a {type(unet).__name__} already and is trained on as it is")
    else:
        say(f"inflated: {report}; step-0 difference to the image UNet {identity:.1e}")
    base.unet = None
    return Prepared(whole, plan, shown, machine, base, Net(unet, shown.fps_condition), feeds, names, motion, identity)


def _base_folder(
    whole: Recipe,
    feed: Feed,
    kept: Path,
    shards: str | Path,
    latents: str | None,
    machine: Machine,
    say: Callable[[str], None],
) -> Path:
    """The folder of the base; a small random one is built where the recipe names none, once for all ranks."""
    if whole.base:
        return folder_of(whole.base)
    beside = tiny_base(None if latents == "off" else latents, shards, whole.shown())
    if (beside / "model_index.json").is_file():
        return beside
    folder = kept / name_of_base(whole.shown())
    if machine.first and not (folder / "model_index.json").is_file():
        build_tiny(whole.shown(), feed, folder, say)
    machine.wait()
    return folder


def discard(line: str) -> None:
    """Ignores a log line: only the first rank prints."""
