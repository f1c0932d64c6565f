"""Selection, funnel and ledger, on numbers that can be checked by hand."""

import numpy as np
import pandas as pd
import pytest

from curate.config.config import Rule
from curate.errors import ConfigError, RunError
from curate.run.ledger import balance
from curate.run.select import Selection, describe, select


def wide(n: int = 8) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "clip_id": [f"c{i}" for i in range(n)],
            "source_id": "s",
            "start_s": np.arange(n, dtype=float) * 2,
            "end_s": np.arange(n, dtype=float) * 2 + 2,
            "motion": np.arange(n, dtype="float32"),
            "text": [0.0, 0.5] * (n // 2),
            "camera": ["pan", "static"] * (n // 2),
            "error": pd.Series([None] * n, dtype=object),
        }
    )


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        pytest.param({}, list(range(8)), id="no rule keeps all"),
        pytest.param({"motion": {"above": 3}}, [3, 4, 5, 6, 7], id="bounds are inclusive"),
        pytest.param({"motion": {"below": 3}}, [0, 1, 2, 3], id="below"),
        pytest.param({"motion": {"above": 2, "below": 4}}, [2, 3, 4], id="between"),
        pytest.param({"motion": {"above": "p25"}}, [2, 3, 4, 5, 6, 7], id="a quarter goes: p25 of 0..7 is 1.75"),
        pytest.param({"motion": {"above": "p50"}, "text": {"below": 0.07}}, [4, 6], id="two rules"),
        pytest.param({"camera": {"is": "pan"}}, [0, 2, 4, 6], id="is"),
        pytest.param({"camera": {"is": ["pan", "static"]}}, list(range(8)), id="one of"),
        pytest.param({"motion": {"above": 100}}, [], id="nothing"),
    ],
)
def test_rules(keep: dict[str, dict[str, object]], kept: list[int]) -> None:
    selection = select(wide(), {name: Rule.model_validate(rule) for name, rule in keep.items()})
    assert selection.clip_ids == [f"c{i}" for i in kept]
    assert selection.kept_s == 2.0 * len(kept)


def test_the_funnel_counts_alone_in_order_and_together() -> None:
    selection = select(wide(), {"motion": Rule(above=2.0), "text": Rule(below=0.1)})
    assert [(d.rule, d.alone_clips, d.in_order_clips, d.in_order_s) for d in selection.drops] == [
        ("motion >= 2", 2, 2, 4.0),
        ("text <= 0.1", 4, 3, 6.0),
    ]
    assert len(selection.clip_ids) == 3


def test_a_clip_without_a_value_fails_the_rule_and_a_failed_clip_is_not_dropped_but_failed() -> None:
    frame = wide()
    frame.loc[7, "motion"] = np.nan
    frame.loc[6, "error"] = "motion: bad"
    selection = select(frame, {"motion": Rule(above="p0")})
    assert selection.clip_ids == [f"c{i}" for i in range(6)]
    assert (selection.failed_clips, selection.failed_s) == (1, 2.0)
    assert selection.drops[0].in_order_clips == 1
    assert selection.thresholds == {"motion p0": 0.0}


def test_a_percentile_of_nothing_keeps_nothing() -> None:
    frame = wide()
    frame["motion"] = np.nan
    assert select(frame, {"motion": Rule(above="p25")}).clip_ids == []


@pytest.mark.parametrize(
    ("keep", "told"),
    [({"moton": Rule(above=1.0)}, "did you mean 'motion'"), ({"camera": Rule(above=1.0)}, "use `is:` instead")],
)
def test_a_rule_that_does_not_fit(keep: dict[str, Rule], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        select(wide(), keep)


def test_a_rule_reads_as_it_is_meant() -> None:
    assert describe("motion", Rule(above="p25", below=3.0)) == "motion >= p25 and motion <= 3"


# -- the ledger


def sources(**changes: object) -> pd.DataFrame:
    row = {"uri": "a", "source_id": "s", "duration_s": 10.0, "error": None, "duplicate_of": None}
    return pd.DataFrame([{**row, **changes}]).astype({"error": object, "duplicate_of": object})


def spans(*rows: tuple[float, float, str | None, str | None]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["start_s", "end_s", "skip", "error"]).astype({"skip": object, "error": object})
    return frame.assign(source_id="s")


def chosen(kept_s: float, failed_s: float = 0.0) -> Selection:
    return Selection([], kept_s, 0, 0.0, 0, failed_s)


def test_a_whole_source_adds_up() -> None:
    ledger = balance(sources(), spans((0, 4, None, None), (4, 5, "too_short", None), (5, 10, None, None)), chosen(9.0))
    ledger.check()
    assert (ledger.total_s, ledger.kept_s, ledger.too_short_s, ledger.accounted_share) == (10.0, 9.0, 1.0, 1.0)


def test_a_broken_source_counts_what_its_header_promised_as_failed() -> None:
    ledger = balance(sources(), spans((0, 4, None, None), (4, 10, None, "the file ends early")), chosen(4.0))
    ledger.check()
    assert (ledger.total_s, ledger.failed_s) == (10.0, 6.0)


def test_duplicates_and_files_that_cannot_be_opened_are_told_beside_the_sum() -> None:
    table = pd.concat(
        [sources(), sources(uri="b", duplicate_of="a"), sources(uri="c", source_id="x", error="bad", duration_s=np.nan)]
    )
    ledger = balance(table, spans((0, 10, None, None)), chosen(10.0))
    ledger.check()
    assert (ledger.total_s, ledger.duplicate_s, ledger.unknown_length_files) == (10.0, 10.0, 1)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        pytest.param([(0, 4, None, None), (5, 10, None, None)], "a gap at 4.000 s", id="gap"),
        pytest.param([(0, 6, None, None), (5, 10, None, None)], "an overlap at 6.000 s", id="overlap"),
        pytest.param([], "a was never scanned", id="lost"),
    ],
)
def test_spans_that_do_not_meet_stop_the_run(
    rows: list[tuple[float, float, str | None, str | None]], told: str
) -> None:
    with pytest.raises(RunError, match=told):
        balance(sources(), spans(*rows), chosen(9.0))


def test_a_sum_that_is_off_stops_the_run() -> None:
    with pytest.raises(RunError, match="does not add up"):
        balance(sources(), spans((0, 10, None, None)), chosen(9.0)).check()


def test_percentile_over_ties_that_drops_nothing_is_remarked() -> None:
    wide = pd.DataFrame({"clip_id": list("abcd"), "start_s": 0.0, "end_s": 1.0, "error": None, "m": [0.0, 0, 0, 1]})
    tied = select(wide, {"m": Rule(above="p25")})
    assert len(tied.clip_ids) == 4
    assert tied.remarks == ["m p25 drops no clip: 3 of 4 clips share the value 0 at that percentile"]
    assert select(wide, {"m": Rule(above="p100")}).remarks == []
