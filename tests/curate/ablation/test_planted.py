"""Synthetic datasets with a known answer: dropping the bad third beats keeping it and dropping a random third."""

from pathlib import Path

import pytest

from curate.ablation.verdict import Judged
from tests.curate.ablation.planted import AXES, KINDS, TRAINED, ablate, shards_of

STEPS = 25


def losses(judged: list[Judged]) -> dict[str, float]:
    return {"random" if one.arm.name.startswith("random") else one.arm.axis or "all": one.loss for one in judged}


@pytest.mark.slow  # 40 CPU s; benchmarks/ablate.py at length
def test_dropping_the_noise_beats_keeping_it_and_a_random_subset(tmp_path: Path) -> None:
    """One dataset, one seed of each training. benchmarks/ablate.py has ten datasets of each kind."""
    grid, judged, answers = ablate(tmp_path, "noise", 0, STEPS, seeds=1, axes=AXES[:1])
    loss = losses(judged)
    assert loss["mark"] < 0.95 * loss["all"]
    assert loss["mark"] < 0.95 * loss["random"]
    assert not any(answer.rule for answer in answers)  # one seed is not enough
    assert set(grid.subsets["mark-33.3333"]) == {f"clip{i:03d}" for i in range(TRAINED // 3, TRAINED)}


@pytest.mark.slow  # two datasets of twelve trainings; benchmarks/ablate.py has ten of each kind
@pytest.mark.parametrize("kind", ["noise", "watermark"])
def test_the_answer_drops_the_bad_third_and_leaves_an_idle_axis_alone(kind: str, tmp_path: Path) -> None:
    _, judged, (mark, idle) = ablate(tmp_path, kind, 0, 40, seeds=3)
    loss = losses(judged)
    assert loss["mark"] < min(loss["all"], loss["random"])
    assert (mark.level > 0, idle.level) == (True, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_mark_identifies_the_bad_third_and_idle_does_not(kind: str, tmp_path: Path) -> None:
    _, measures, judges = shards_of(tmp_path, kind, 0)
    bad = measures["clip_id"] < f"clip{TRAINED // 3:03d}"
    assert (measures["mark"] < 1).tolist() == bad.tolist()
    assert measures["idle"][bad].between(0, 1).all()
    assert not set(judges) & set(measures["clip_id"])
