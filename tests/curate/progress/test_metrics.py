"""The metrics of a run: what is counted, and that dashboard and page name what there is. That Ray exports them: test_submit.py."""

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
    """Remembers what it was told, as Ray's would."""

    def __init__(self) -> None:
        self.told: dict[tuple[str, ...], float] = defaultdict(float)

    def __call__(self, metric: Metric) -> Any:
        class Instrument:
            def inc(_, value: float, tags: dict[str, str]) -> None:  # noqa: N805
                assert value > 0, "Ray refuses anything else"
                self.told[self.key(metric, tags)] += value

            def set(_, value: float, tags: dict[str, str]) -> None:  # noqa: N805
                self.told[self.key(metric, tags)] = value

            observe = inc

        return Instrument()

    @staticmethod
    def key(metric: Metric, tags: dict[str, str]) -> tuple[str, ...]:
        assert set(tags) == set(metric.tags)
        assert all(value.isascii() for value in tags.values()), "Ray refuses anything else"
        return (metric.name, *(value for name, value in tags.items() if name != "run"))


def test_what_a_pass_does_is_told_for_each_of_its_stages() -> None:
    heard = Instruments()
    prices = Prices(gpu_hour=3600.0, prompt_million=1e6)
    exporter = Exporter("/runs/é", ("motion", "text_area"), 3, 2, 0.5, prices, heard)
    exporter.begin()
    exporter.advance(SHARED)
    exporter.advance(SHARED)
    told = dict(heard.told)
    assert told["rushes_rows", "motion"] == told["rushes_rows", "text_area"] == 20
    assert told["rushes_errors", "text_area"] == 2
    assert ("rushes_errors", "motion") not in told
    busy = {stage: told["rushes_busy_seconds", stage] for stage in ("motion", "text_area", "reading and writing")}
    assert busy == {"motion": 1.0, "text_area": 6.0, "reading and writing": 1.0}
    assert told["rushes_tokens", "text_area", "prompt"] == 200
    assert told["rushes_tokens", "text_area", "output"] == 14
    assert told["rushes_queue", "motion"] == 1
    assert told["rushes_workers", "motion"] == 2
    assert told["rushes_unit_seconds", "motion, text_area"] == 8.0
    assert told["rushes_money", "motion, text_area"] == 8.0 * 0.5 + 200
    exporter.end()
    assert heard.told["rushes_workers", "text_area"] == 0
    assert heard.told["rushes_queue", "text_area"] == 1


def test_gauges_are_told_again_and_again_until_the_step_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray exports a gauge for 20 s; a unit may take longer."""
    monkeypatch.setattr(metrics, "BEAT_S", 0.01)
    heard = Instruments()
    exporter = Exporter("r", ("clips",), 3, 2, meter=heard)
    exporter.begin()
    wanted = {("rushes_queue", "clips"): 3, ("rushes_workers", "clips"): 2}
    for _ in range(2):
        heard.told.clear()
        deadline = time.monotonic() + 10
        while dict(heard.told) != wanted and time.monotonic() < deadline:
            time.sleep(0.01)
        assert dict(heard.told) == wanted
    exporter.end()
    time.sleep(0.05)
    heard.told.clear()
    time.sleep(0.05)
    assert not heard.told


def test_one_stage_is_busy_as_long_as_its_workers() -> None:
    heard = Instruments()
    receipt = Finished(Receipt(5, 0, stages={"labels": StageReceipt(5, 0, 2.0)}), busy_s=3.0)
    Exporter("r", ("labels",), 1, 1, meter=heard).advance(receipt)
    assert heard.told["rushes_busy_seconds", "labels"] == 3.0


def test_windows_are_counted_as_in_the_progress() -> None:
    heard = Instruments()
    Exporter("r", ("clips",), 1, 1, meter=heard).advance(Finished(Receipt(30, 1, counted=2), busy_s=3.0))
    assert heard.told["rushes_rows", "clips"] == 2


def test_without_ray_there_is_nothing_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
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
