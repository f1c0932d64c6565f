"""Verdicts from simulated held-out losses with known effects."""

import numpy as np
import pytest

from curate.ablation.plan import Arm
from curate.ablation.verdict import answer, as_json, judge

CLIPS, CELLS = 24, 8


def arms(levels=(12.5, 25.0, 50.0), seeds: int = 3, axes=("motion", "idle")) -> list[Arm]:
    made = [Arm("all", 100, ("all",) * seeds)]
    for axis in axes:
        for level in levels:
            name = f"{axis}-{level:g}"
            made.append(Arm(name, 90, (name,) * seeds, axis, level, {"above": level / 100}, f"random-{level:g}"))
    made += [Arm(f"random-{level:g}", 90, tuple(f"random-{level:g}-{s}" for s in range(seeds))) for level in levels]
    return made


def losses(made: list[Arm], effect: dict[str, float], rng: np.random.Generator, seed_noise=0.01, clip_noise=0.02):
    """Losses with a large variance between clips and a small one between seeds; `effect` is the change of an arm in per cent."""
    clips = rng.normal(1.0, 0.3, CLIPS).clip(0.3)
    found = {}
    for arm in made:
        for seed, subset in enumerate(arm.subsets):
            change = effect.get(arm.name, 0.0) / 100 + rng.normal(0, seed_noise) + rng.normal(0, clip_noise, CLIPS)
            rows = (clips * (1 + change))[:, None] + rng.normal(0, 0.01, (CLIPS, CELLS))
            found[subset, seed] = {f"clip{i}": row.tolist() for i, row in enumerate(rows)}
    return found


def test_a_cut_that_helps_is_found_with_its_rule_and_an_idle_axis_is_not() -> None:
    made = arms()
    judged = judge(made, measured := losses(made, {"motion-25": -8.0, "motion-50": -8.5}, np.random.default_rng(0)))
    motion, idle = answer(judged, measured)
    assert (motion.level, motion.rule) == (25.0, {"above": 0.25})  # the milder of two without a significant difference
    assert "50 % drops more and is not significantly better" in motion.why or "dropping 25 %" in motion.why
    assert (idle.level, idle.rule) == (0.0, None)
    assert idle.why.startswith("no difference")
    by_name = {one.arm.name: one for one in judged}
    assert by_name["motion-25"].to_all.low < -8 < by_name["motion-25"].to_all.high
    assert by_name["motion-12.5"].outcome == "no difference"


def test_a_clear_best_wins_over_a_milder_one() -> None:
    made = arms()
    judged = judge(made, measured := losses(made, {"motion-25": -6.0, "motion-50": -15.0}, np.random.default_rng(0)))
    assert answer(judged, measured)[0].level == 50.0


def test_a_gain_that_a_random_subset_has_too_drops_nothing() -> None:
    made = arms()
    effect = {"motion-50": -8.0, "random-50": -8.0, "idle-50": -8.0}
    judged = judge(made, measured := losses(made, effect, np.random.default_rng(1)))
    assert {one.arm.name: one.outcome for one in judged}["motion-50"] == "as a random subset"
    assert [one.level for one in answer(judged, measured)] == [0.0, 0.0]
    assert answer(judged, measured)[0].why == "dropping helps, but a random subset of the same size helps as much"


def test_a_cut_that_hurts_is_worse() -> None:
    made = arms()
    judged = judge(made, measured := losses(made, {"motion-50": 10.0}, np.random.default_rng(2)))
    assert {one.arm.name: one.outcome for one in judged}["motion-50"] == "worse"
    assert answer(judged, measured)[0].why.startswith("dropping hurts: 50 % changes the loss by +")


@pytest.mark.parametrize("seeds", [pytest.param(2, marks=pytest.mark.slow), 3, pytest.param(5, marks=pytest.mark.slow)])
def test_at_most_one_of_twenty_ablations_without_information_names_a_winner(seeds) -> None:
    made, rng, wrong = arms(seeds=seeds), np.random.default_rng(3), 0
    for _ in range(200):
        measured = losses(made, {}, rng)
        wrong += any(one.rule for one in answer(judge(made, measured), measured))
    assert wrong <= 16  # at most 10 are expected; chance gives 17 or more in one of 50 runs


@pytest.mark.parametrize("seeds", [pytest.param(2, marks=pytest.mark.slow), 3, pytest.param(5, marks=pytest.mark.slow)])
def test_intervals_contain_the_true_effect(seeds) -> None:
    """For all arms simultaneously in 95 of 100 ablations, with high variance between seeds, between clips, or both."""
    made, rng = arms(seeds=seeds), np.random.default_rng(4)
    effect = {one.name: rng.uniform(-5, 5) for one in made if one.axis}
    held = 0
    for i in range(150):
        noise = [(0.02, 0.005), (0.003, 0.05), (0.01, 0.02)][i % 3]
        judged = judge(made, losses(made, effect, rng, *noise))
        held += all(one.to_all.low <= effect[one.arm.name] <= one.to_all.high for one in judged if one.arm.axis)
    assert held >= 0.91 * 150


def test_one_seed_has_no_interval_and_asks_for_more() -> None:
    made = arms(seeds=1)
    judged = judge(made, measured := losses(made, {"motion-50": -30.0}, np.random.default_rng(5)))
    assert {one.outcome for one in judged if one.arm.axis} == {"one seed"}
    assert answer(judged, measured)[0].why.endswith("give --seeds 3")
    assert as_json(judged, answer(judged, measured))["arms"][1]["to_all"][1:] == [None, None]


def test_unfinished_arms_are_skipped() -> None:
    made = arms()
    measured = losses(made, {}, np.random.default_rng(6))
    del measured["motion-25", 2]
    assert "motion-25" not in {one.arm.name for one in judge(made, measured)}
    assert len(judge(made, measured)) == len(made) - 1
    del measured["all", 0]
    assert judge(made, measured) == []
    assert answer([], measured) == []


def test_only_clips_with_losses_of_every_training_count() -> None:
    made = arms()
    measured = losses(made, {}, np.random.default_rng(7))
    del measured["all", 0]["clip3"]
    assert judge(made, measured)[0].loss == pytest.approx(
        np.mean([[measured["all", s][f"clip{i}"] for i in range(CLIPS) if i != 3] for s in range(3)])
    )


def test_one_training_under_two_names_has_equal_differences() -> None:
    made = arms(axes=("motion",))
    twin = Arm("motion-26", 90, made[1].subsets, "motion", 26.0, {"above": 0.26}, made[1].control)
    measured = losses(made, {}, np.random.default_rng(8))
    judged = {one.arm.name: one for one in judge([*made, twin], measured)}
    assert judged["motion-26"].to_all == judged["motion-12.5"].to_all
