"""The metrics of a run: their values, and that the dashboard and docs name existing ones. Their export by Ray: test_submit.py."""

import json
import re
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from curate.cluster import runner
from curate.cluster.work import Finished, Receipt, StageReceipt
from curate.progress import metrics
from curate.progress.cost import Prices
from curate.progress.metrics import METRICS, Exporter, Metric
from tests.curate.progress.test_progress import SHARED

ROOT = Path(__file__).resolve().parents[3]


class Instruments:
    """Records values in place of Ray's instruments."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, ...], float] = defaultdict(float)

    def __call__(self, metric: Metric) -> Any:
        class Instrument:
            def inc(_, value: float, tags: dict[str, str]) -> None:  # noqa: N805
                assert value > 0, "Ray refuses anything else"
                self.values[self.key(metric, tags)] += value

            def set(_, value: float, tags: dict[str, str]) -> None:  # noqa: N805
                self.values[self.key(metric, tags)] = value

            observe = inc

        return Instrument()

    @staticmethod
    def key(metric: Metric, tags: dict[str, str]) -> tuple[str, ...]:
        assert set(tags) == set(metric.tags)
        assert all(value.isascii() for value in tags.values()), "Ray refuses anything else"
        return (metric.name, *(value for name, value in tags.items() if name != "run"))


def test_a_pass_is_exported_for_each_of_its_stages() -> None:
    instruments = Instruments()
    prices = Prices(gpu_hour=3600.0, prompt_million=1e6)
    exporter = Exporter("/runs/é", ("motion", "text_area"), 3, 2, 0.5, prices, instruments)
    exporter.begin()
    exporter.advance(SHARED)
    exporter.advance(SHARED)
    values = dict(instruments.values)
    assert values["rushes_rows", "motion"] == values["rushes_rows", "text_area"] == 20
    assert values["rushes_errors", "text_area"] == 2
    assert ("rushes_errors", "motion") not in values
    busy = {stage: values["rushes_busy_seconds", stage] for stage in ("motion", "text_area", "reading and writing")}
    assert busy == {"motion": 1.0, "text_area": 6.0, "reading and writing": 1.0}
    assert values["rushes_tokens", "text_area", "prompt"] == 200
    assert values["rushes_tokens", "text_area", "output"] == 14
    assert values["rushes_queue", "motion"] == 1
    assert values["rushes_workers", "motion"] == 2
    assert values["rushes_unit_seconds", "motion, text_area"] == 8.0
    assert values["rushes_money", "motion, text_area"] == 8.0 * 0.5 + 200
    exporter.end()
    assert instruments.values["rushes_workers", "text_area"] == 0
    assert instruments.values["rushes_queue", "text_area"] == 1


def test_gauges_are_repeated_until_the_step_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray exports a gauge for 20 s; a unit may take longer."""
    monkeypatch.setattr(metrics, "BEAT_S", 0.01)
    instruments = Instruments()
    exporter = Exporter("r", ("clips",), 3, 2, meter=instruments)
    exporter.begin()
    wanted = {("rushes_queue", "clips"): 3, ("rushes_workers", "clips"): 2}
    for _ in range(2):
        instruments.values.clear()
        deadline = time.monotonic() + 10
        while dict(instruments.values) != wanted and time.monotonic() < deadline:
            time.sleep(0.01)
        assert dict(instruments.values) == wanted
    exporter.end()
    time.sleep(0.05)
    instruments.values.clear()
    time.sleep(0.05)
    assert not instruments.values


def test_one_stage_is_busy_as_long_as_its_workers() -> None:
    instruments = Instruments()
    receipt = Finished(Receipt(5, 0, stages={"labels": StageReceipt(5, 0, 2.0)}), busy_s=3.0)
    Exporter("r", ("labels",), 1, 1, meter=instruments).advance(receipt)
    assert instruments.values["rushes_busy_seconds", "labels"] == 3.0


def test_windows_are_counted_as_in_the_progress() -> None:
    instruments = Instruments()
    Exporter("r", ("clips",), 1, 1, meter=instruments).advance(Finished(Receipt(30, 1, counted=2), busy_s=3.0))
    assert instruments.values["rushes_rows", "clips"] == 2


def test_without_ray_nothing_is_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.modules", {})
    assert runner.meter(metrics.ROWS) is None


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    board = json.loads((ROOT / "docs" / "grafana" / "rushes.json").read_text())
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    variables = {item["name"]: item for item in board["templating"]["list"]}
    named = set(re.findall(r"ray_rushes_\w+", " ".join([*asked, variables["run"]["definition"]])))
    exported = {name for metric in METRICS for name in metric.exported}
    assert named <= exported, named - exported
    assert all(named & set(metric.exported) for metric in METRICS), "every metric has a panel"
    assert all('run=~"$run"' in expr for expr in asked)
    assert variables["datasource"]["type"] == "datasource"
    assert variables["run"]["definition"] == variables["run"]["query"]["query"]
    sources = [part["datasource"]["uid"] for panel in board["panels"] for part in (panel, *panel["targets"])]
    assert {*sources, variables["run"]["datasource"]["uid"]} == {"${datasource}"}
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    assert board["schemaVersion"] >= 36, "datasources are objects from there on"
    labels = set(re.findall(r"by \(([\w, ]+)\)", " ".join(asked)))
    assert {label for found in labels for label in found.split(", ")} <= {"stage", "kind", "le"}


def test_the_page_lists_every_metric() -> None:
    page = (ROOT / "docs" / "monitoring.md").read_text()
    rows = {
        cells[0].strip(" `"): cells
        for cells in (line.split("|")[1:-1] for line in page.splitlines() if "`ray_" in line)
    }
    for metric in METRICS:
        name = f"ray_{metric.name}" + ("_total" if metric.kind == "counter" else "")
        cells = [cell.strip() for cell in rows[name]]
        assert cells[1:4] == [metric.kind, metric.unit, ", ".join(metric.tags)], name
