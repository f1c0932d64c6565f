"""DataFrames of a run: percentiles equal thresholds, and `around` returns clips on both sides of a threshold."""

from pathlib import Path

import pandas as pd
import pytest

from curate.dataset.run import Run
from curate.errors import ConfigError, UsageError


@pytest.fixture(scope="module")
def run(finished: Path) -> Run:
    return Run.open(finished)


def test_percentiles_equal_the_thresholds_of_keep(run: Run) -> None:
    table = run.percentiles()
    assert list(table.index) == ["duration_s", "brightness", "motion"]
    for at in ("p10", "p25", "p90"):
        thresholds = run.funnel({"motion": {"above": at}}).attrs["thresholds"]
        assert table.loc["motion", at] == thresholds[f"motion {at}"]
    values = run.clips()["brightness"]
    assert tuple(table.loc["brightness", ["clips", "p0", "p100"]]) == (len(values), values.min(), values.max())
    assert list(run.percentiles(["motion"]).index) == ["motion"]


def test_measure_without_values_has_null_percentiles(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = run.wide()
    wide["motion"] = pd.Series([None] * len(wide), dtype="float32")
    monkeypatch.setattr(run, "wide", lambda *_, **__: wide)
    assert run.percentiles().loc["motion", "clips"] == 0
    assert run.percentiles().loc["motion"].drop("clips").isna().all()
    assert "motion" not in run.correlations().columns


def test_correlations_are_of_ranks(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = run.wide()
    wide["motion"] = -(wide["brightness"].astype(float) ** 3)
    monkeypatch.setattr(run, "wide", lambda *_, **__: wide)
    table = run.correlations(["brightness", "motion"])
    assert table.loc["brightness", "motion"] == pytest.approx(-1)
    assert table.loc["motion", "motion"] == pytest.approx(1)


@pytest.mark.parametrize("threshold", ["p50", "p0", "p100", 90.0])
def test_clips_around_a_threshold(run: Run, threshold: float | str) -> None:
    found = run.around("brightness", threshold, n=2)
    limit = found.attrs["threshold"]
    if isinstance(threshold, str):
        assert limit == run.percentiles().loc["brightness", threshold]
    every = sorted(run.clips()["brightness"].astype(float))
    below, above = [v for v in every if v < limit], [v for v in every if v >= limit]
    assert list(found["brightness"]) == [*below[-2:], *above[:2]]
    assert list(found["side"]) == ["below"] * len(below[-2:]) + ["above"] * len(above[:2])
    assert set(found["file"]) <= {"one.mp4", "two.mp4", "with space é.mp4"}


def test_invalid_queries_raise_errors(run: Run) -> None:
    with pytest.raises(ConfigError, match="no column 'motoin'; did you mean 'motion'"):
        run.around("motoin", "p25")
    with pytest.raises(ConfigError, match="'caption_says' holds string, not numbers"):
        run.percentiles(["caption_says"])
    with pytest.raises(ConfigError, match=r"threshold .q25.: .*a percentile of this run such as p25"):
        run.around("motion", "q25")
    with pytest.raises(UsageError, match=r"has no duplicate detection; put filters\.Fingerprint"):
        run.duplicates()
    with pytest.raises(UsageError, match="there is no clip 'x'"):
        run.captions(["x"])


def test_captions_of_one_captioner_without_a_check(run: Run) -> None:
    table = run.captions()
    assert set(table["captioner"]) == {"says"}
    assert set(table["clip_id"]) == set(run.clips().dropna(subset=["caption"])["clip_id"])
    assert (table["words"] == 2).all()
    assert table["rank"].isna().all()
    assert (table["flags"] == "").all()


def test_notes_and_long_texts_are_on_the_sheet(run: Run) -> None:
    import cv2
    import numpy as np

    clip_ids = run.clip_ids()[:2]

    def height(notes: list[str]) -> int:
        sheet = run.show(clip_ids, columns=["brightness"], notes=notes)
        return cv2.imdecode(np.frombuffer(sheet.png, np.uint8), cv2.IMREAD_COLOR).shape[0]

    assert height(["a"]) == height([])
    assert height(["many words " * 40]) > height([]) + 16  # wrapped, not cut off
