"""A small run to ablate, and ablations with invented losses, so that their verdicts can be tested in moments."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from curate.ablation import results
from curate.ablation.axis import Axis
from curate.ablation.plan import plan
from curate.ablation.results import Ablation
from curate.dataset.run import Run
from curate.voting import votes
from curate.voting.contest import Comparison
from tests.project import SMALLEST_RECIPE, Rushes, moving
from tests.videos import write_video

PROMPTS = ["a red ball", "</script><img src=x onerror=alert(1)> \u05e9\u05dc\u05d5\u05dd 🎬"]


PIPELINE = """\
run: run
sources: footage
scan: {min_clip_s: 0.5, max_clip_s: 1.0, thumb_fps: 4, workers: 1}
measure:
  - {use: tests.stages.Brightness, workers: 1}
  - {use: filters.Motion, workers: 1}
caption:
  - {use: tests.stages.Says, workers: 1}
keep:                            # wide open
  motion: {above: 0.0}           # ours
shards: {short_side_px: 64, workers: 1}
"""
RECIPE = f"{SMALLEST_RECIPE}steps: 2\nbatch: 2\n"
CLIPS = 24


def make_project(folder: Path, rushes: Rushes) -> Path:
    """A project with a finished run of 24 clips of a second, from dark to bright, and a recipe of two steps, `small.yaml`."""
    (folder / "footage").mkdir()
    shots = [moving(25, seed=i, level=20 + 8 * i) for i in range(CLIPS)]
    for name, part in (("dark", shots[: CLIPS // 2]), ("bright", shots[CLIPS // 2 :])):
        write_video(folder / "footage" / f"{name}.mp4", np.concatenate(part), 25, gop=25)
    (folder / "pipeline.yaml").write_text(PIPELINE)
    (folder / "small.yaml").write_text(RECIPE)
    done = rushes("run", cwd=folder)
    assert done.code == 0, done.err
    assert len(Run.open(folder / "run").selection().clip_ids) >= 20
    return folder


def make(
    run: Path,
    name: str = "tiny",
    seeds: int = 3,
    better: str = "motion-25",
    by: float = 0.8,
    n: int = 60,
    samples: bool = False,
) -> Ablation:
    """An ablation of motion and idle with losses of 1, and of `by` for the arm `better`."""
    rng = np.random.default_rng(0)
    clips = pd.DataFrame({"clip_id": [f"c{i:03d}" for i in range(n)], "motion": rng.random(n), "idle": rng.random(n)})
    axes = [Axis("motion", "above"), Axis("idle", "above")]
    grid = plan(clips, axes, (0, 25, 50), seeds)
    folder = results.folder_of(str(run), name)
    prompts = [{"text": text, "seed": i, "clip_id": grid.heldout[i]} for i, text in enumerate(PROMPTS)]
    results.write_plan(folder, {}, axes, grid, prompts=prompts, recipe="tiny", overrides={}, steps=80, shards="shards")
    (folder / "judged").mkdir()
    for subset, seed in grid.trainings:
        level = by if subset == better else 1.0
        draw = lambda ids, level=level: {clip: [level + 0.01 * rng.standard_normal()] * 8 for clip in ids}  # noqa: E731
        result = {
            "losses": {"heldout": draw(grid.heldout), "elsewhere": draw(grid.elsewhere)},
            "scores": {"clipsim": 0.2},
            "seconds": 3.0,
        }
        (folder / "judged" / f"{results.training_name(subset, seed)}.json").write_text(json.dumps(result))
        if samples and seed == 0:
            home = folder / "samples" / results.training_name(subset, seed)
            home.mkdir(parents=True)
            for i in range(len(PROMPTS)):
                write_video(home / f"{i:02d}.mp4", rng.integers(0, 255, (4, 48, 80, 3)).astype(np.uint8), 4)
    return Ablation.open(str(run), name)


def vote(
    opened: Ablation, voter: str, winner: str, loser: str, n: int, question: str = "quality", left: bool | None = None
) -> None:
    """`n` votes of `winner` over `loser`, on all prompts and seeds. `left`: the winner is always on the left; None: alternating sides."""
    group = winner.split("-")[0] if winner != "all" else loser.split("-")[0]
    made = []
    for i in range(n):
        on_left = i % 2 == 0 if left is None else left
        pair = Comparison(group, i % 2, i // 2, *((winner, loser) if on_left else (loser, winner)))
        made.append(votes.new_vote(voter, pair, pair.a, question, "left" if on_left else "right"))
    votes.append(opened.folder / votes.FILE, made)
