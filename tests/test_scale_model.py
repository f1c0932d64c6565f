"""The model of a large job: docs/scale.md shows its output, and its costs are proportional to hours and prices."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.scale_model import COSTS, Assumptions, model

ROOT = Path(__file__).resolve().parents[1]


def lines(hours: float = 1e6, **changed: float) -> dict[str, float]:
    return {what: value for what, value, _ in model(json.loads(COSTS.read_text()), hours, 30.0, Assumptions(**changed))}


def test_the_page_shows_what_the_model_prints() -> None:
    command = [sys.executable, "-m", "benchmarks.scale_model"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    assert printed in (ROOT / "docs" / "scale.md").read_text()


def test_costs_are_proportional_to_hours_and_prices() -> None:
    once, twice = lines(1000.0), lines(2000.0)
    assert all(twice[what] == pytest.approx(2 * value) for what, value in once.items())
    assert lines(core_hour=0.08)["money: cores"] == pytest.approx(2 * lines()["money: cores"])
    assert lines(gpu_clips_s=4.0)["GPUs for captions"] == pytest.approx(lines()["GPUs for captions"] / 4)
    assert lines(pixel_factor=9.0)["core hours: scan"] == pytest.approx(9 * lines()["core hours: scan"])
    assert lines(pixel_factor=9.0)["core hours: measure"] == lines()["core hours: measure"]


def test_an_unknown_assumption_is_refused_with_its_name() -> None:
    command = [sys.executable, "-m", "benchmarks.scale_model", "--set", "gpus=3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, "unknown assumption 'gpus'" in done.stderr) == (1, True)
