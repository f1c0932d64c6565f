"""The grid of an ablation: clips of each subset, held-out clips, and errors."""

import numpy as np
import pandas as pd
import pytest

from curate.ablation.axis import Axis
from curate.ablation.plan import Grid, digest_of, plan
from curate.config.config import Rule
from curate.errors import UsageError

LEVELS = (0, 12.5, 25, 50)


def clips(n: int = 200, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "clip_id": [f"c{i:04d}" for i in range(n)],
            "motion": rng.gamma(2, 1, n),
            "text_area": rng.random(n),
            "idle": rng.random(n),
        }
    )


def axes(*names: str) -> list[Axis]:
    return [Axis.parse(name, {}) for name in names]


def arm(grid: Grid, name: str):
    return next(one for one in grid.arms if one.name == name)


def test_each_level_drops_only_the_bad_end_of_its_axis() -> None:
    frame = clips()
    grid = plan(frame, axes("motion", "text_area"), LEVELS, 3)
    values = frame.set_index("clip_id")
    free = set(grid.subsets["all"])
    for axis, sign in (("motion", 1), ("text_area", -1)):
        for level in LEVELS[1:]:
            kept = set(grid.subsets[f"{axis}-{level:g}"])
            assert len(kept) == pytest.approx(len(free) * (1 - level / 100), abs=1)
            assert (sign * values.loc[list(kept), axis]).min() > (sign * values.loc[list(free - kept), axis]).max()
            ((side, bound),) = arm(grid, f"{axis}-{level:g}").rule.items()
            assert (side, sign) in (("above", 1), ("below", -1))
            passing = values[axis] >= bound if sign > 0 else values[axis] <= bound
            assert set(values.index[passing]) & free == kept


def test_controls_have_the_same_size_other_clips_for_each_seed_and_are_shared_by_axes() -> None:
    grid = plan(clips(), axes("motion", "text_area", "idle"), LEVELS, 3)
    controls = [one for one in grid.arms if one.name.startswith("random-")]
    assert len(controls) == 3
    for one in grid.arms:
        if one.axis is not None and one.control is not None:
            assert arm(grid, one.control).clips == pytest.approx(one.clips, rel=0.03)
    for one in controls:
        drawn = [frozenset(grid.subsets[subset]) for subset in one.subsets]
        assert len(set(drawn)) == 3
        assert {len(ids) for ids in drawn} == {one.clips}
    assert len(grid.trainings) == 3 * (1 + 3 * 3 + 3)
    assert grid.trainings[0] == ("all", 0)


def test_heldout_clips_are_in_no_training_pass_every_level_and_are_balanced() -> None:
    frame = clips(600)
    grid = plan(frame, axes("motion", "text_area"), (0, 25), 2)
    judged = {*grid.heldout, *grid.elsewhere}
    assert not any(judged & set(ids) for ids in grid.subsets.values())
    assert len(grid.heldout) == 64
    assert grid.heldout_level == 25
    values = frame.set_index("clip_id")
    pool = values[
        (values.motion >= np.percentile(values.motion, 25)) & (values.text_area <= np.percentile(values.text_area, 75))
    ]
    for axis in ("motion", "text_area"):
        assert set(grid.heldout) <= set(pool.index)
        assert pool[axis].rank(pct=True)[grid.heldout].mean() == pytest.approx(0.5, abs=0.02)
    assert not set(grid.elsewhere) & set(pool.index)


def test_the_plan_does_not_depend_on_the_order_of_clips() -> None:
    frame = clips()
    one = plan(frame, axes("motion"), LEVELS, 2)
    other = plan(frame.sample(frac=1, random_state=1), axes("motion"), LEVELS, 2)
    assert one == other


def test_adding_axes_and_levels_keeps_existing_subsets() -> None:
    frame = clips()
    one = plan(frame, axes("motion"), (25,), 2)
    known = {digest_of(ids): name for name, ids in one.subsets.items()}
    judged = (one.heldout, one.elsewhere, one.heldout_level)
    more = plan(frame, axes("motion", "text_area"), (12.5, 25, 26), 3, judged=judged, known=known)
    assert (more.heldout, more.elsewhere) == (one.heldout, one.elsewhere)
    assert set(one.trainings) <= set(more.trainings)
    assert all(more.subsets[name] == ids for name, ids in one.subsets.items())
    assert arm(more, "motion-26").control == arm(one, "motion-25").control  # nearly as large


def test_levels_with_the_same_clips_share_trainings_with_a_note() -> None:
    frame = clips()
    frame["text_area"] = np.where(frame["text_area"] < 0.8, 0.0, frame["text_area"])
    grid = plan(frame, axes("text_area"), (25, 50), 2)
    assert arm(grid, "text_area-50").subsets == arm(grid, "text_area-25").subsets
    assert len(grid.trainings) == 2 * 3
    assert (
        "text_area-50 has the same clips as text_area-25, because many clips have the same value; it is trained once"
        in grid.notes
    )


def test_every_level_drops_nulls_with_a_note() -> None:
    frame = clips()
    frame.loc[:9, "motion"] = np.nan
    grid = plan(frame, axes("motion"), (25,), 2)
    assert grid.notes[0] == "10 of 200 clips have no motion: every level above 0 drops them, as a rule in keep: does"
    assert not set(grid.subsets["motion-25"]) & set(frame.clip_id[:10])
    assert set(grid.subsets["all"]) & set(frame.clip_id[:10])


def test_a_milder_level_for_heldout_clips_has_a_note() -> None:
    grid = plan(clips(80), axes("motion", "text_area", "idle"), (50,), 2)
    assert grid.heldout_level < 50
    assert f"the held-out clips are those that pass {grid.heldout_level:g} %" in grid.notes[-1]


def test_heldout_clips_can_be_restricted() -> None:
    frame = clips()
    wanted = (frame["idle"] > 0.7).to_numpy()
    grid = plan(frame, axes("motion"), (25,), 2, wanted=wanted)
    assert set(grid.heldout) <= set(frame.clip_id[wanted])
    assert set(grid.elsewhere) <= set(frame.clip_id[~wanted])


@pytest.mark.parametrize(
    ("change", "call", "message"),
    [
        ({}, {"levels": (120,)}, "--levels 120: a level is a percentage"),
        ({}, {"levels": (-5,)}, "--levels -5: a level is a percentage"),
        ({}, {"levels": (0,)}, "give at least one level above 0"),
        (
            {},
            {"levels": (99,)},
            "motion at 99 % leaves 2 clips and a training needs 8: give lower --levels or more clips",
        ),
        ({}, {"seeds": 0}, "--seeds 0"),
        ({"motion": 3.0}, {}, "--axes motion: all clips have the value 3, so no level drops a part of them"),
        ({"motion": None}, {}, "--axes motion: none of the 200 clips has a value"),
        ({"motion": "x"}, {}, "a percentage can be cut only from numbers"),
        ({"motion": True}, {}, "a percentage can be cut only from numbers"),
        ({}, {"n_heldout": 2}, "too few: 4 must be held out"),
    ],
    ids=[
        "over 100",
        "negative",
        "no level",
        "too few clips",
        "no seed",
        "constant",
        "all null",
        "words",
        "flags",
        "too few to hold out",
    ],
)
def test_errors_of_a_plan(change, call, message) -> None:
    frame = clips().assign(**change)
    if change.get("motion", 0) is None:
        frame["motion"] = np.nan
    with pytest.raises(UsageError, match=message.replace("(", r"\(")):
        plan(frame, axes("motion"), **{"levels": (25,), "seeds": 2, **call})


def test_too_few_clips_to_hold_out() -> None:
    with pytest.raises(UsageError, match="12 clips are too few: 4 must be held out"):
        plan(clips(12), axes("motion"), (25,), 2)


@pytest.mark.parametrize(
    ("text", "keep", "side"),
    [
        ("motion", {}, "above"), ("text_area", {}, "below"), ("text_area:above", {}, "above"), ("mine", {}, "above"),
        ("mine", {"mine": Rule(below=3)}, "below"), ("watermark", {"watermark": Rule(above=0.1)}, "above"),
    ],
)  # fmt: skip
def test_which_side_of_an_axis_is_dropped(text, keep, side) -> None:
    assert Axis.parse(text, keep).side == side


@pytest.mark.parametrize("text", ["motion:sideways", ":above", ""])
def test_a_malformed_axis(text) -> None:
    with pytest.raises(UsageError, match="--axes"):
        Axis.parse(text, {})
