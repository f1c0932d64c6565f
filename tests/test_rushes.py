"""The public interface: its names, what importing it costs, and that `run` and `open` do what the commands do."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import curate.errors
import rushes
from curate.clip import Clip
from tests.project import PIPELINE, ROOT, make_footage

HEAVY = {"pandas", "torch", "ray", "lancedb", "cv2", "pyarrow", "typer"}


def test_public_names_are_exactly_these():
    errors = ["ClaimError", "ConfigError", "RunError", "RushesError", "UsageError", "WeightsError"]
    assert sorted(rushes.__all__) == sorted([*errors, "Clip", "__version__", "open", "run"])
    assert all(getattr(rushes, name) is getattr(curate.errors, name) for name in errors)
    assert rushes.Clip is Clip
    assert rushes.__version__ == version("rushes")


def test_every_error_of_the_engine_is_public():
    found = {
        name for name, value in vars(curate.errors).items() if isinstance(value, type) and issubclass(value, Exception)
    }
    assert found <= set(rushes.__all__)


def test_unknown_name_raises_attribute_error():
    with pytest.raises(AttributeError, match="module 'rushes' has no attribute 'nosuch'"):
        rushes.nosuch  # noqa: B018


def test_import_loads_no_heavy_package():
    code = f"import sys, rushes; rushes.__version__, rushes.RunError; print(sorted({HEAVY!r} & set(sys.modules)))"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert done.stdout.strip() == "[]"


def test_open_of_another_folder_raises_usage_error(tmp_path: Path):
    with pytest.raises(rushes.UsageError, match="not a run directory"):
        rushes.open(tmp_path)


def test_run_in_this_process_returns_the_opened_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.path", [*sys.path])
    make_footage(tmp_path / "footage")
    (tmp_path / "pipeline.yaml").write_text(PIPELINE)
    made = rushes.run(
        tmp_path / "pipeline.yaml", sources=str(tmp_path / "footage/two.mp4"), overrides=["keep.brightness.above=0"]
    )
    assert len(made.sources()) == 1
    kept = made.selection().clip_ids
    assert kept
    again = rushes.open(tmp_path / "runs/small", ["keep.brightness.above=256"])
    assert again.clip_ids() == made.clip_ids()
    assert again.selection().clip_ids == []
