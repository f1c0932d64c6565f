"""One training from the prepared recipe to the finished folder: fingerprint, loop, export, sample. Resumes where `out` has a checkpoint."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from train_hooks.checkpoint import Checkpoints, manifest_of, saved
from train_hooks.errors import StoppedBySignal, TrainError
from train_hooks.export import export
from train_hooks.feed import Feed, as_float
from train_hooks.fingerprint import differences, fingerprint
from train_hooks.frames import too_short
from train_hooks.loop import Training
from train_hooks.metrics import Metrics
from train_hooks.out_folder import FOLDER, clear, record_in
from train_hooks.pictures import write_sheet, write_video
from train_hooks.plan import preflight
from train_hooks.prepare import Prepared, discard
from train_hooks.recipe import Recipe
from train_hooks.sample import Ask, open_folder, sample, sampler
from train_hooks.shard_index import ShardClip
from train_hooks.sheets import Sheets


def run_session(
    made: Prepared,
    shards: str | Path,
    out: Path,
    say: Callable[[str], None],
    pickled: bool,
    restart: bool,
    allow_changes: bool,
) -> None:
    """Trains, exports and samples into `out`, or returns at once where `out` is this training, finished. Raises as `train_hooks.train.train`."""
    say = say if made.machine.first else discard
    whole, shown, feed, machine = made.whole, made.shown, made.feed, made.machine
    mark = fingerprint(whole, feed.index, made.latents)
    if restart and machine.first:
        clear(out)
    machine.wait()
    _check_same(out, mark, allow_changes, say)
    if _finished(out, whole.steps):
        say(f"{out} holds this training, finished; --restart trains again from step 0")
        return
    out.mkdir(parents=True, exist_ok=True)

    used = reached(made.plan, made.feeds)
    left_out = dict(feed.left_out)
    left_out |= {
        c.clip_id: f"not reached in {whole.steps} steps of {shown.batch}" for c in feed.train if c.clip_id not in used
    }
    say_clips(feed, used, left_out, say)
    training = begin(made, out, mark, say)
    if shown.sample_every and machine.first:
        training.sheets = sheets_of(made, clip_to_show(feed, used), out / "samples")
    if machine.device.type == "cuda":
        training.flops = preflight(made, say)
    training.run()
    if training.stopped_by is not None:
        progress = f"stopped after step {training.state.step} of {whole.steps}"
        raise StoppedBySignal(
            training.stopped_by, f"{progress}; {out} has a checkpoint: the same command resumes there"
        )
    say(
        f"loss on the fixed grid: {training.state.grid_before:.4f} -> {training.grid_after:.4f} "
        f"({whole.steps} steps, {training.seconds:.0f} s)"
    )
    if machine.first:
        left_out |= feed.left_out | training.state.broken
        used -= left_out.keys()
        clip = clip_to_show(feed, used)
        record = _record(made, training, clip, used, left_out)
        record["shards"]["path"] = str(shards)
        _finish(made, clip, record, out, pickled)
        say(f'sampled "{clip.caption}" into {out / "sample.mp4"}')
    machine.wait()


def begin(made: Prepared, out: Path, mark: Mapping[str, Any], say: Callable[[str], None]) -> Training:
    """The loop with its checkpoints and its metrics in `out`, not yet running."""
    checkpoints = Checkpoints(out, made.whole.checkpoint_keep, mark, say)
    metrics = Metrics(out / "tensorboard" if made.machine.first else None)
    return Training(made.whole, made.tools, made.feeds, checkpoints, metrics, say)


def _record(
    made: Prepared, training: Training, clip: ShardClip, used: set[str], left_out: dict[str, str]
) -> dict[str, Any]:
    """What `train.json` says of a training."""
    feed, state = made.feed, training.state
    return {
        "recipe": asdict(made.whole),
        "fingerprint": training.checkpoints.fingerprint,
        "shards": {"index_sha256": feed.index.sha256},
        "losses": {
            "grid_before": state.grid_before, "grid_after": training.grid_after, "grid_clips": training.grid_clips,
            "per_step": training.metrics.losses, "steps_s": training.seconds,
        },
        "identity_error": made.identity_error,
        "motion_quantiles": list(made.motion.quantiles),
        "clips": {"used": sorted(used), "heldout": sorted(c.clip_id for c in feed.heldout), "left_out": left_out},
        "skipped_steps": state.skipped,
        "latents": made.latents,
        "ranks": made.machine.world,
        "n_without_caption": feed.n_without_caption,
        "sample": {"clip_id": clip.clip_id, "prompt": clip.caption, "seed": made.shown.seed},
    }  # fmt: skip


def _finish(made: Prepared, clip: ShardClip, record: dict[str, Any], out: Path, pickled: bool) -> None:
    """The finished folder, and a sample from it."""
    shown, feed = made.shown, made.feed
    for part in (made.base.vae, made.base.text_encoder, made.base.image_encoder, made.net.unet):
        if part is not None:
            part.to("cpu", torch.float32)
    export(made.base, made.net.unet, sampler(shown), record, out, pickled)
    ask = Ask(clip.caption, shown.seed, made.motion.bucket(clip.motion), first_frame(feed, clip))
    sampled_TCHW = sample(*open_folder(out), ask)
    write_video(sampled_TCHW, shown.fps, out / "sample.mp4")
    real = [real_frames(feed, clip)] if long_enough(feed, clip) else []
    write_sheet([sampled_TCHW, *real], out / "sample.png")


def real_frames(feed: Feed, clip: ShardClip) -> torch.Tensor:
    """A clip's own frames at the recipe's size, decoded even where it was trained on by its latents: (T, 3, H, W), 0..1."""
    return feed.window(clip, 0, feed.sizes[0])[0].float() / 255


def first_frame(feed: Feed, clip: ShardClip) -> torch.Tensor:
    """A frame of a clip at the recipe's size, however short the clip is: (3, H, W), -1..1."""
    return as_float(feed.window(clip, 0, feed.sizes[0]._replace(frames=1))[0][0])


def sheets_of(made: Prepared, clip: ShardClip, folder: Path) -> Sheets:
    """What is sampled while training: the recipe's prompts, or the caption of the clip that is shown at the end."""
    feed = made.feed
    prompts = made.shown.sample_prompts or (clip.caption,)
    bucket, first_CHW = made.motion.bucket(clip.motion), first_frame(feed, clip)
    asks = [Ask(prompt, made.shown.seed + i, bucket, first_CHW) for i, prompt in enumerate(prompts)]
    others = readable(feed, [c for c in feed.train if c != clip and long_enough(feed, c)])
    clips = [*([clip] if long_enough(feed, clip) else []), *islice(others, max(len(prompts), 2) - 1)]
    return Sheets(made.shown, made.base, made.net, asks, [real_frames(feed, c) for c in clips], folder)


def readable(feed: Feed, clips: Iterable[ShardClip]) -> Iterator[ShardClip]:
    """The clips that can be decoded, in their order."""
    for clip in clips:
        try:
            feed.window(clip, 0, feed.sizes[0] if long_enough(feed, clip) else feed.sizes[0]._replace(frames=1))
        except TrainError:
            continue
        yield clip


def long_enough(feed: Feed, clip: ShardClip) -> bool:
    """Whether a clip can be shown at the recipe's own size."""
    return too_short(clip, feed.sizes[0].frames, feed.fps) is None


def _check_same(out: Path, mark: Mapping[str, Any], allow_changes: bool, say: Callable[[str], None]) -> None:
    """Raises TrainError, naming the difference, where `out` holds another training."""
    before = _mark_of(out)
    if before is None:
        return
    changes = "; ".join(differences(before, mark))
    if not changes:
        return
    if not allow_changes:
        raise TrainError(
            f"{out} holds another training ({changes}); --restart starts from step 0, --allow-changes resumes it, or give another --out"
        )
    say(f"resuming although something changed: {changes}")


def _mark_of(out: Path) -> dict[str, Any] | None:
    """The fingerprint of the training in a folder: of its newest checkpoint, or of its record."""
    for path in reversed(saved(out / FOLDER)):
        try:
            found: dict[str, Any] = manifest_of(path)["fingerprint"]
            return found
        except TrainError:
            continue
    record = record_in(out)
    return None if record is None else record.get("fingerprint", {"recipe": "of an older version of rushes"})


def _finished(out: Path, steps: int) -> bool:
    record = record_in(out)
    return record is not None and len(record["losses"]["per_step"]) == steps and (out / "sample.mp4").is_file()


def reached(plan: Sequence[Recipe], feeds: Sequence[Feed]) -> set[str]:
    """Ids of the clips that some step of some stage trains on."""
    found: set[str] = set()
    begin = 0
    for stage, feed in zip(plan, feeds, strict=True):
        end = begin + stage.steps
        found |= feed.reached(min(end, stage.overfit)) if stage.overfit else feed.reached(end, begin)
        begin = end
    return found


def clip_to_show(feed: Feed, used: set[str]) -> ShardClip:
    """The trained clip whose caption fewest others share, the first in shard order that can be decoded.

    One without a caption only if all lack it, and one that is too short for the recipe's own size only if all are.
    """
    clips = [clip for clip in feed.train if clip.clip_id in used]
    clips = [clip for clip in clips if long_enough(feed, clip)] or clips
    shared = Counter(clip.caption for clip in clips)
    ordered = sorted(clips, key=lambda clip: (not clip.caption, shared[clip.caption]))
    return next(readable(feed, ordered), ordered[0])


def say_clips(feed: Feed, used: set[str], left_out: dict[str, str], say: Callable[[str], None]) -> None:
    """Accounts for every clip of the shards, naming at most five of those left out; train.json names all."""
    say(f"clips: {len(used)} used, {len(feed.heldout)} held out for the loss grid, {len(left_out)} left out")
    for clip_id, reason in list(left_out.items())[:5]:
        say(f"  left out {clip_id}: {reason}")
    if len(left_out) > 5:
        say(f"  and {len(left_out) - 5} more, all listed in train.json")
    if feed.n_without_caption:
        say(f"  {feed.n_without_caption} clips have no caption and train with an empty one")
