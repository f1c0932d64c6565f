"""`rushes train`: recipe -> base -> inflation -> feed -> loop -> export -> sample."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from train_hooks.base import check_size, folder_of, hush, load_base
from train_hooks.conditioning import MotionBuckets
from train_hooks.export import check_out, export
from train_hooks.feed import Feed, ShardClip, stack
from train_hooks.loop import run_loop
from train_hooks.net import Net, make
from train_hooks.objectives import schedule
from train_hooks.pictures import write_sheet, write_video
from train_hooks.recipe import Recipe
from train_hooks.recipe_files import load_recipe
from train_hooks.sample import Ask, open_folder, sample, sampler
from train_hooks.tiny_base import build_base, save_base
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
    shards: str | Path,
    out: Path,
    overrides: Mapping[str, str] | None = None,
    say: Callable[[str], None] = print,
    pickled: bool = False,
) -> TrainResult:
    """Runs a recipe on a shards folder and writes a diffusers folder with a sample video to `out`.

    `pickled` asks for the weights as other projects' pickles too, where there are such (train_hooks/export.py).

    Raises RecipeError when the recipe or an override is wrong, TrainError when the shards, the base or a step fail.
    """
    started_s = time.monotonic()
    whole = load_recipe(recipe, overrides)
    plan, shown = whole.plan(), whole.shown()
    check_out(out)
    torch.set_num_threads(shown.threads)
    hush()

    feeds = [feed_of(stage, shards) for stage in plan]
    feed = feeds[plan.index(shown)]
    used = reached(plan, feeds)
    left_out = dict(feed.left_out)
    left_out |= {
        c.clip_id: f"not reached in {whole.steps} steps of {shown.batch}" for c in feed.train if c.clip_id not in used
    }
    say_clips(feed, used, left_out, say)
    motion = MotionBuckets.of([clip.motion for clip in feed.train])

    with TemporaryDirectory() as aside:
        folder = folder_of(whole.base) if whole.base else build_tiny(shown, feed, Path(aside), say)
        base = load_base(folder, shown)
    for stage in plan:
        check_size(base.vae, stage)
    unet, report, identity = make(base.unet, shown, base.image_encoder.config.hidden_size if base.image_encoder else 0)
    if report is None:
        say(f"the base is a {type(unet).__name__} already and is trained on as it is")
    else:
        say(f"inflated: {report}; step-0 difference to the image UNet {identity:.1e}")
    base.unet = None
    net = Net(unet, shown.fps_condition)

    losses = run_loop(whole, base, net, schedule(shown), feeds, motion, say)
    say(
        f"loss on the fixed grid: {losses.grid_before:.4f} -> {losses.grid_after:.4f} "
        f"({whole.steps} steps, {losses.steps_s:.0f} s)"
    )

    clip = clip_to_show(feed, used)
    record = {
        "recipe": asdict(whole),
        "shards": {"path": str(shards), "index_sha256": feed.index_sha256},
        "losses": asdict(losses),
        "identity_error": identity,
        "motion_quantiles": list(motion.quantiles),
        "clips": {"used": sorted(used), "heldout": sorted(c.clip_id for c in feed.heldout), "left_out": left_out},
        "n_without_caption": feed.n_without_caption,
        "sample": {"clip_id": clip.clip_id, "prompt": clip.caption, "seed": shown.seed},
    }
    export(base, unet, sampler(shown), record, out, pickled)

    real = feed.read(clip, epoch=0)
    real_TCHW = (real.video_CTHW.transpose(0, 1) + 1) / 2
    ask = Ask(clip.caption, shown.seed, motion.bucket(clip.motion), real.video_CTHW[:, 0])
    sampled_TCHW = sample(*open_folder(out), ask)
    write_video(sampled_TCHW, shown.fps, out / "sample.mp4")
    write_sheet([sampled_TCHW, real_TCHW], out / "sample.png")
    seconds = time.monotonic() - started_s
    say(f'sampled "{clip.caption}" into {out / "sample.mp4"}; {seconds:.0f} s in all')
    return TrainResult(
        out, losses.grid_before, losses.grid_after, len(used), len(feed.heldout), left_out, out / "sample.mp4", seconds
    )


def feed_of(stage: Recipe, shards: str | Path) -> Feed:
    """The clips as a stage sees them."""
    return Feed(
        shards, frames=stage.frames, fps=stage.fps, width_px=stage.width_px, height_px=stage.height_px, batch=stage.batch,
        windows_per_clip=stage.windows_per_clip, heldout_share=stage.heldout_share, seed=stage.seed, tagged=stage.tagged_frames,
    )  # fmt: skip


def reached(plan: Sequence[Recipe], feeds: Sequence[Feed]) -> set[str]:
    """Ids of the clips that some step of some stage trains on."""
    found: set[str] = set()
    begin = 0
    for stage, feed in zip(plan, feeds, strict=True):
        end = begin + stage.steps
        found |= feed.reached(min(end, stage.overfit)) if stage.overfit else feed.reached(end, begin)
        begin = end
    return found


def build_tiny(recipe: Recipe, feed: Feed, folder: Path, say: Callable[[str], None]) -> Path:
    """Writes the small random base, its VAE fitted to the clips' frames, as a diffusers folder."""
    base = build_base(recipe)
    first_error, last_error = fit_vae(base.vae, vae_frames(recipe, feed), recipe.vae_fit_steps, recipe.vae_fit_lr)
    say(
        f"small VAE fitted to the clips' frames in {recipe.vae_fit_steps} steps: "
        f"mean error {first_error:.3f} -> {last_error:.3f} (pixels are -1..1)"
    )
    save_base(base, folder)
    return folder


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
