"""Scan jobs refuse a source that changed since its header was read."""

import os
from pathlib import Path
from typing import Any

import pytest

from curate.config.config import ScanConfig
from curate.pipeline.source_jobs import ScanJob
from curate.scan import scan, sources
from curate.stages.stage import StageSpec
from curate.tables.table import Table


class Decoder:
    """Replaces the sandbox and records the files it would open."""

    def __init__(self) -> None:
        self.opened: list[str] = []

    def call(self, _: Any, uri: str, *__: Any, wall_s: float, online: bool) -> list[dict[str, Any]]:
        assert wall_s > 0
        assert not online
        self.opened.append(uri)
        return []


@pytest.fixture
def job(tmp_path: Path) -> ScanJob:
    table = Table(str(tmp_path / "clips"), scan.SCHEMA)
    made = ScanJob(4096, table, ScanConfig(), StageSpec("cuts", "curate.cuts.Cascade", {}, "here"), "sampled")
    made._sandbox = Decoder()  # type: ignore[assignment]
    return made


def test_a_replaced_source_is_not_scanned(job: ScanJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"one film")
    known = sources.identify(str(path), "sampled")["source_id"]
    window = {"uri": str(path), "source_id": known, "window": 0, "last_window": 0, "duration_s": 1.0}
    looked: list[str] = []
    true = sources.identify
    monkeypatch.setattr(sources, "identify", lambda uri, digest: looked.append(uri) or true(uri, digest))
    assert job._scan(window) == job._scan(window) == []
    assert len(job._sandbox.opened) == 2  # type: ignore[attr-defined]
    assert len(looked) == 1, "an unchanged file is hashed only once"

    path.write_bytes(b"another film")
    os.utime(path, (1, 1))
    (row,) = job._scan(window)
    assert "has changed since its header was read" in row["error"]
    assert row["source_id"] == known
    path.unlink()
    (row,) = job._scan(window)
    assert row["error"] == "scan: the file no longer exists"
    assert len(job._sandbox.opened) == 2  # type: ignore[attr-defined]

    path.write_bytes(b"one film")
    assert job._scan(window) == []
