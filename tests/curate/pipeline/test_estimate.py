"""Cost estimates of a run from a sample."""

from pathlib import Path

import pytest

from curate.cluster.pool import Resources
from curate.cluster.work import Finished, Receipt, StageReceipt
from curate.dataset.run import Run
from curate.errors import UsageError
from curate.pipeline.estimate import _line, _with_parts
from curate.progress.cost import Prices, Spent
from curate.progress.model import duration
from tests.project import Rushes

WORDY = ["--set", "caption=[{use: tests.stages.Wordy}]", "--set", "keep={}"]


def test_an_estimate_equals_the_cost_of_the_run(project: Path, rushes: Rushes, tmp_path: Path) -> None:
    run = tmp_path / "run"
    estimated = rushes("run", "--run", run, *WORDY, "--estimate", "--million-tokens", "100/1000", cwd=project)
    assert estimated.code == 0, estimated.err
    assert not list(run.rglob("*.parquet"))
    line = next(line.split() for line in estimated.out.splitlines() if line.startswith("wordy "))
    clips = int(line[1])
    done = rushes("run", "--run", run, *WORDY, "--million-tokens", "100/1000", cwd=project)
    assert done.code == 0, done.err
    made = len(Run.open(run).clip_ids())
    assert clips == made  # the sample is the whole footage
    assert line[-1] == f"{made * (1000 * 100 + 10 * 1000) / 1e6:.2f}"
    assert " tokens/s" in done.out
    assert f"{line[-1]} spent" in done.out


def test_a_sample_without_clips_is_a_usage_error(project: Path, rushes: Rushes, tmp_path: Path) -> None:
    done = rushes(
        "run",
        "--run",
        tmp_path / "run",
        "--estimate",
        "--set",
        "scan.min_clip_s=9",
        "--set",
        "scan.max_clip_s=20",
        cwd=project,
    )
    assert done.code == 2
    assert "has no clip" in done.err


@pytest.mark.parametrize("prices", ["1", "a/b", "1/2/3", "-1/1"])
def test_prices_are_numbers(project: Path, rushes: Rushes, prices: str) -> None:
    with pytest.raises(UsageError, match=r"0\.15/0\.60"):
        Prices.parse(None, prices)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """One worker, without Ray."""
    monkeypatch.setattr("curate.cluster.runner.workers_for", lambda resources, n_units: 1)


@pytest.mark.usefixtures("alone")
def test_work_is_scaled_to_all_rows_and_setup_is_not() -> None:
    spent = Spent()
    receipt = Receipt(5, 0, stages={"vlm": StageReceipt(5, 0, 9.0, prompt_tokens=50, output_tokens=5)})
    for _ in range(2):
        spent.add(Finished(receipt, setup_s=3.0, busy_s=10.0))
    spent.wall_s = 20.0 + 4.0
    line = _line("vlm", spent, 1000, 16, Resources(workers=1), Prices(prompt_million=1.0, output_million=10.0))
    assert (line.rows, line.workers, line.rows_per_s) == (1000, 1, 0.5)
    assert (line.prompt_tokens, line.output_tokens) == (10_000, 1_000)
    assert line.wall_s == pytest.approx(4.0 + 2000.0)
    assert line.money == pytest.approx(0.02)


@pytest.mark.usefixtures("alone")
def test_stages_of_one_pass_are_listed_separately() -> None:
    spent = Spent()
    stages = {"a": StageReceipt(10, 0, 2.0), "b": StageReceipt(10, 0, 6.0)}
    spent.add(Finished(Receipt(10, 0, stages=stages), busy_s=10.0))
    spent.wall_s = 10.0
    lines = _with_parts(_line("a, b", spent, 100, 16, Resources(workers=1), Prices()), spent)
    assert [(line.name, line.wall_s) for line in lines] == [("2 stages in one pass", 100.0), ("b", 60.0), ("a", 20.0)]
    assert [line.part_of for line in lines] == [None, lines[0].name, lines[0].name]


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.04, "4.0 s"), (45, "45 s"), (720, "12 min"), (12_240, "3.4 h"), (181_440, "2.1 days")]
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
