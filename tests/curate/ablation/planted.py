"""Synthetic datasets with a known answer: a third of the clips to train on is bad, the measure `mark` shows it, the measure `idle` does not."""

from pathlib import Path

import numpy as np
import pandas as pd

from curate.ablation.axis import Axis
from curate.ablation.plan import Grid, plan
from curate.ablation.verdict import AxisAnswer, Judged, answer, judge
from tests.train_hooks.worlds import COLOURS, clip_row, encode, write_shards
from train_hooks.ablation import JUDGED, SUBSETS, AblationJob, make_base
from train_hooks.recipe_files import load_recipe

KINDS = ("noise", "frozen", "watermark")
RECIPE = "tiny_modelscope"
TINY = {
    "frames": "3", "fps": "4", "width_px": "16", "height_px": "16", "unet_channels": "16,16", "vae_channels": "16,16", "head_dim": "16",
    "text_width": "16", "vae_fit_steps": "0", "batch": "8", "micro_batch": "8", "threads": "1", "log_every": "1000", "heldout_every": "0",
    "checkpoint_every": "1000", "sample_steps": "1", "windows_per_clip": "1", "lr": "4e-3", "lr_warmup_steps": "5", "lr_decay": "cosine",
    "ema_decay": "0", "prediction": "sample", "caption_dropout": "0", "image_rank_share": "0", "inherited_grad_scale": "1",
}  # fmt: skip
SIDE_PX, FRAMES, FPS = 64, 16, 8
TRAINED, JUDGES = 48, 16
AXES = (Axis("mark", "above"), Axis("idle", "above"))
LEVELS = (0.0, 100 / 3)


def moving(rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """(T, H, W, 3): a square that moves back and forth on a straight line once a second, and its caption."""
    name = list(COLOURS)[rng.integers(len(COLOURS))]
    side = int(rng.integers(16, 28))
    begin, end = rng.integers(0, SIDE_PX - side, (2, 2))
    frames = np.full((FRAMES, SIDE_PX, SIDE_PX, 3), 60, np.uint8)
    for i, frame in enumerate(frames):
        y, x = (begin + (end - begin) * abs((2 * i / FPS + 1) % 2 - 1)).astype(int)
        frame[y : y + side, x : x + side] = COLOURS[name]
    return frames, f"a {name} square moves"


def spoiled(kind: str, frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same clip made bad: replaced by noise, frozen at the first frame, or covered by a bright mark."""
    if kind == "noise":
        return rng.integers(0, 256, frames.shape, np.uint8)
    if kind == "frozen":
        return np.repeat(frames[:1], len(frames), axis=0)
    marked = frames.copy()
    marked[:, 8:-8, 8:-8] = (marked[:, 8:-8, 8:-8] * 0.3 + 255 * 0.7).astype(np.uint8)
    marked[:, 12:-12:8, 12:-12] = 0
    return marked


def shards_of(folder: Path, kind: str, seed: int) -> tuple[Path, pd.DataFrame, list[str]]:
    """Shards, the measures of the clips to train on (`mark` is low on the bad third, `idle` is random), and the held-out clips."""
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    rows, measures, judges = [], [], []
    for i in range(TRAINED + JUDGES):
        frames, caption = moving(rng)
        clip_id, bad = f"clip{i:03d}", i < TRAINED // 3
        rows.append(clip_row(clip_id, encode(spoiled(kind, frames, rng) if bad else frames, FPS), FRAMES, caption, FPS))
        rows[-1] |= {"width_px": SIDE_PX, "height_px": SIDE_PX}
        if i < TRAINED:
            measures.append({"clip_id": clip_id, "mark": rng.random() + (0 if bad else 1), "idle": rng.random()})
        else:
            judges.append(clip_id)
    return write_shards(folder / "shards", rows), pd.DataFrame(measures), judges


def ablate(
    folder: Path, kind: str, seed: int, steps: int, seeds: int, axes: tuple[Axis, ...] = AXES
) -> tuple[Grid, list[Judged], list[AxisAnswer]]:
    """An ablation without the files of its plan: the grid, every training, the verdict."""
    shards, measures, judges = shards_of(folder, kind, seed)
    grid = plan(measures, axes, LEVELS, seeds, judged=(judges, [], LEVELS[-1]))
    overrides = TINY | {"steps": str(steps)}
    make_base(load_recipe(RECIPE, overrides), str(shards), folder, lambda line: None)
    (folder / SUBSETS).mkdir()
    for name, clip_ids in grid.subsets.items():
        (folder / SUBSETS / f"{name}.txt").write_text("\n".join(clip_ids))
    job = AblationJob(RECIPE, str(shards), str(folder), overrides, {"heldout": grid.heldout})
    losses = {}
    for subset, number in grid.trainings:
        name = f"{subset}-s{number}"
        receipt = job.work({"name": name, "subset": subset, "seed": number})
        assert "seconds" in receipt, receipt
        losses[subset, number] = pd.read_json(folder / JUDGED / f"{name}.json", typ="series")["losses"]["heldout"]
    judged = judge(grid.arms, losses)
    return grid, judged, answer(judged, losses)
