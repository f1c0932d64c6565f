"""Selection, funnel and ledger, on small inputs with results computed by hand."""

from io import StringIO
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from curate.cli import funnel
from curate.config.config import Rule
from curate.errors import ConfigError, RunError
from curate.run.ledger import Ledger, balance
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
def test_rules_keep_the_expected_clips(keep: dict[str, dict[str, object]], kept: list[int]) -> None:
    selection = select(wide(), {name: Rule.model_validate(rule) for name, rule in keep.items()})
    assert selection.clip_ids == [f"c{i}" for i in kept]
    assert selection.kept_s == 2.0 * len(kept)


def test_funnel_counts_drops_alone_in_order_and_together() -> None:
    selection = select(wide(), {"motion": Rule(above=2.0), "text": Rule(below=0.1)})
    assert [(d.rule, d.alone_clips, d.in_order_clips, d.in_order_s) for d in selection.drops] == [
        ("motion >= 2", 2, 2, 4.0),
        ("text <= 0.1", 4, 3, 6.0),
    ]
    assert len(selection.clip_ids) == 3


def test_clip_without_a_value_is_dropped_and_failed_clip_counts_as_failed() -> None:
    frame = wide()
    frame.loc[7, "motion"] = np.nan
    frame.loc[6, "error"] = "motion: bad"
    selection = select(frame, {"motion": Rule(above="p0")})
    assert selection.clip_ids == [f"c{i}" for i in range(6)]
    assert (selection.failed_clips, selection.failed_s) == (1, 2.0)
    assert selection.drops[0].in_order_clips == 1
    assert selection.thresholds == {"motion p0": 0.0}


def test_percentile_without_values_keeps_no_clip() -> None:
    frame = wide()
    frame["motion"] = np.nan
    assert select(frame, {"motion": Rule(above="p25")}).clip_ids == []


@pytest.mark.parametrize(
    ("keep", "message"),
    [({"moton": Rule(above=1.0)}, "did you mean 'motion'"), ({"camera": Rule(above=1.0)}, "use `is:` instead")],
)
def test_invalid_rule_raises_config_error(keep: dict[str, Rule], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        select(wide(), keep)


def test_rule_is_described_as_a_condition() -> None:
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


def test_ledger_of_a_complete_source_balances() -> None:
    ledger = balance(sources(), spans((0, 4, None, None), (4, 5, "too_short", None), (5, 10, None, None)), chosen(9.0))
    ledger.check()
    assert (ledger.total_s, ledger.kept_s, ledger.too_short_s, ledger.accounted_share) == (10.0, 9.0, 1.0, 1.0)


def test_undecoded_seconds_of_a_broken_source_count_as_failed() -> None:
    ledger = balance(sources(), spans((0, 4, None, None), (4, 10, None, "the file ends early")), chosen(4.0))
    ledger.check()
    assert (ledger.total_s, ledger.failed_s) == (10.0, 6.0)


def test_duplicates_and_unreadable_files_are_reported_outside_the_total() -> None:
    table = pd.concat(
        [sources(), sources(uri="b", duplicate_of="a"), sources(uri="c", source_id="x", error="bad", duration_s=np.nan)]
    )
    ledger = balance(table, spans((0, 10, None, None)), chosen(10.0))
    ledger.check()
    assert (ledger.total_s, ledger.duplicate_s, ledger.unknown_length_files) == (10.0, 10.0, 1)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        pytest.param([(0, 4, None, None), (5, 10, None, None)], "a gap at 4.000 s", id="gap"),
        pytest.param([(0, 6, None, None), (5, 10, None, None)], "an overlap at 6.000 s", id="overlap"),
        pytest.param([], "a was never scanned", id="lost"),
    ],
)
def test_gap_or_overlap_between_spans_raises_run_error(
    rows: list[tuple[float, float, str | None, str | None]], message: str
) -> None:
    with pytest.raises(RunError, match=message):
        balance(sources(), spans(*rows), chosen(9.0))


def test_unbalanced_ledger_raises_run_error() -> None:
    with pytest.raises(RunError, match="does not add up"):
        balance(sources(), spans((0, 10, None, None)), chosen(9.0)).check()


def test_percentile_over_ties_that_drops_nothing_is_remarked() -> None:
    wide = pd.DataFrame({"clip_id": list("abcd"), "start_s": 0.0, "end_s": 1.0, "error": None, "m": [0.0, 0, 0, 1]})
    tied = select(wide, {"m": Rule(above="p25")})
    assert len(tied.clip_ids) == 4
    assert tied.remarks == ["m p25 drops no clip: 3 of 4 clips share the value 0 at that percentile"]
    assert select(wide, {"m": Rule(above="p100")}).remarks == []


def test_funnel_prints_the_remark_on_ties_in_one_line() -> None:
    frame = pd.DataFrame({"clip_id": list("abcd"), "start_s": 0.0, "end_s": 1.0, "error": None, "m": [0.0, 0, 0, 1]})
    selection = select(frame, {"m": Rule(above="p25")})
    out = StringIO()
    run = SimpleNamespace(selection=lambda: selection, ledger=Ledger)
    funnel.show(cast(Any, run), Console(file=out, width=200))
    remarks = [line.strip() for line in out.getvalue().splitlines() if "drops no clip" in line]
    assert remarks == ["m p25 drops no clip: 3 of 4 clips share the value 0 at that percentile"]
