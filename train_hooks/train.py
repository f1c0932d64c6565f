"""`rushes train`: recipe -> base -> inflation -> feed -> loop -> export -> sample."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from train_hooks.export import check_out, export
from train_hooks.feed import Feed, ShardClip, stack
from train_hooks.inflate import inflate
from train_hooks.loop import run_loop
from train_hooks.recipe import Recipe, load_recipe
from train_hooks.sample import sample, write_mp4, write_sheet
from train_hooks.tiny_base import build_base
from train_hooks.tiny_vae import fit_vae


@dataclass(frozen=True)
class TrainResult:
    """What a training left behind.

    The losses are means over one fixed grid of (clip, timestep, noise), before and after.
    """

    out: Path
    first_loss: float
    last_loss: float
    n_clips_used: int
    n_clips_heldout: int
    left_out: dict[str, str]
    """Why each clip that is neither used nor held out is not: clip_id -> reason."""
    sample: Path
    seconds: float


def train(
    recipe: str,
    shards: Path,
    out: Path,
    overrides: Mapping[str, str] | None = None,
    say: Callable[[str], None] = print,
) -> TrainResult:
    """Runs a recipe on a shards folder and writes a diffusers folder with a sample video to `out`.

    Raises RecipeError when the recipe or an override is wrong, TrainError when the shards, the base or a step fail.
    """
    started_s = time.monotonic()
    plan = load_recipe(recipe, overrides)
    check_out(out)
    torch.set_num_threads(plan.threads)
    hush()

    feed = Feed(
        shards, frames=plan.frames, fps=plan.fps, width_px=plan.width_px, height_px=plan.height_px, batch=plan.batch,
        windows_per_clip=plan.windows_per_clip, heldout_share=plan.heldout_share, seed=plan.seed,
    )  # fmt: skip
    used = feed.reached(plan.steps)
    left_out = dict(feed.left_out)
    left_out |= {
        c.clip_id: f"not reached in {plan.steps} steps of {plan.batch}" for c in feed.train if c.clip_id not in used
    }
    say_clips(feed, used, left_out, say)

    base = build_base(plan)
    first_error, last_error = fit_vae(base.vae, vae_frames(plan, feed), plan.vae_fit_steps, plan.vae_fit_lr)
    say(
        f"small VAE fitted to the clips' frames in {plan.vae_fit_steps} steps: "
        f"mean error {first_error:.3f} -> {last_error:.3f} (pixels are -1..1)"
    )
    unet, report, identity = inflate(base.unet)
    say(f"inflated: {report}; step-0 difference to the image UNet {identity:.1e}")

    losses = run_loop(plan, base, unet, feed, say)
    say(
        f"loss on the fixed grid: {losses.grid_before:.4f} -> {losses.grid_after:.4f} "
        f"({plan.steps} steps, {losses.steps_s:.0f} s)"
    )

    shown = clip_to_show(feed, used)
    record = {
        "recipe": asdict(plan),
        "shards": {"path": str(shards), "index_sha256": feed.index_sha256},
        "losses": asdict(losses),
        "vae_error": [first_error, last_error],
        "clips": {"used": sorted(used), "heldout": sorted(c.clip_id for c in feed.heldout), "left_out": left_out},
        "n_without_caption": feed.n_without_caption,
        "sample": {"clip_id": shown.clip_id, "prompt": shown.caption, "seed": plan.seed},
    }
    export(base, unet, record, out)

    sampled_TCHW = sample(out, shown.caption, plan)
    real_TCHW = (feed.read(shown, epoch=0).video_CTHW.transpose(0, 1) + 1) / 2
    write_mp4(sampled_TCHW, plan.fps, out / "sample.mp4")
    write_sheet(sampled_TCHW, real_TCHW, out / "sample.png")
    seconds = time.monotonic() - started_s
    say(f'sampled "{shown.caption}" into {out / "sample.mp4"}; {seconds:.0f} s in all')
    return TrainResult(
        out, losses.grid_before, losses.grid_after, len(used), len(feed.heldout), left_out, out / "sample.mp4", seconds
    )


def hush() -> None:
    """Keeps the libraries' progress bars and their remarks on what they deprecate off the screen; warnings and errors stay."""
    import diffusers
    import transformers

    for library in (diffusers.utils.logging, transformers.utils.logging):
        library.disable_progress_bar()
        library.set_verbosity_error()


def vae_frames(plan: Recipe, feed: Feed) -> Iterator[Tensor]:
    """Batches of single frames (N, 3, H, W) for the VAE, from the same windows that the loop will train on; endless."""
    draws = torch.Generator().manual_seed(plan.seed)
    step = 0
    while True:
        frames_NCHW = stack(feed.samples(step % plan.steps)).transpose(1, 2).flatten(0, 1)
        yield frames_NCHW[torch.randperm(len(frames_NCHW), generator=draws)[: plan.vae_fit_batch]]
        step += 1


def clip_to_show(feed: Feed, used: set[str]) -> ShardClip:
    """The trained clip whose caption fewest others share, the first in shard order.

    One without a caption only if all lack it.
    """
    clips = [clip for clip in feed.train if clip.clip_id in used]
    shared = Counter(clip.caption for clip in clips)
    return min(clips, key=lambda clip: (not clip.caption, shared[clip.caption]))


def say_clips(feed: Feed, used: set[str], left_out: dict[str, str], say: Callable[[str], None]) -> None:
    """Accounts for every clip of the shards, naming at most five of those left out; train.json names all."""
    say(f"clips: {len(used)} used, {len(feed.heldout)} held out for the loss grid, {len(left_out)} left out")
    for clip_id, reason in list(left_out.items())[:5]:
        say(f"  left out {clip_id}: {reason}")
    if len(left_out) > 5:
        say(f"  and {len(left_out) - 5} more, all listed in train.json")
    if feed.n_without_caption:
        say(f"  {feed.n_without_caption} clips have no caption and train with an empty one")
