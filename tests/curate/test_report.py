"""The report page: text stays text."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from curate import report
from curate.run import Run


def test_captions_and_file_names_appear_as_text_never_as_markup(
    finished: Path, tmp_path: Path, monkeypatch: "object"
) -> None:
    target = tmp_path / "run"
    shutil.copytree(finished, target)
    run = Run.open(target)
    wide = run.wide()
    nasty = "<script>alert(1)</script> \"quotes\" 'single' & 🎬 ‏עברית"
    wide["caption"] = nasty
    wide["uri"] = "/videos/<img src=x onerror=alert(2)>.mp4"
    monkeypatch.setattr(run, "wide", lambda *_, **__: wide)  # type: ignore[attr-defined]
    page = Path(report.write(run)).read_text()
    assert "<script>" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "🎬 ‏עברית" in page


def test_a_run_in_which_nothing_was_measured_has_a_page(finished: Path, tmp_path: Path, monkeypatch: "object") -> None:
    target = tmp_path / "run"
    shutil.copytree(finished, target)
    run = Run.open(target)
    wide = run.wide()
    wide["motion"] = pd.Series([None] * len(wide), dtype="float32")
    monkeypatch.setattr(run, "wide", lambda *_, **__: wide)  # type: ignore[attr-defined]
    assert "motion" in Path(report.write(run)).read_text()


@pytest.mark.parametrize("values", [[2.0, 2.0], [2.0, np.nextafter(2.0, 3.0)], [0.0, 5e-324], [1e30, 1e30], [0.0, 1.0]])
def test_values_that_hardly_differ_have_a_histogram_too(values: list[float]) -> None:
    wide = pd.DataFrame({"motion": values})
    found = report._histogram(wide, wide["motion"] > 0, "motion")
    assert len(found["bars"]) == report.BINS
    assert max(bar["all"] for bar in found["bars"]) == 100
