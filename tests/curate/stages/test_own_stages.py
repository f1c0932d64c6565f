"""A user's own stages: modules beside the pipeline file are found, and a folder named like one of our packages hides nothing unnoticed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.project import ROOT

OWN = """\
from dataclasses import dataclass
from typing import ClassVar
import pyarrow as pa

@dataclass
class {name}:
    columns: ClassVar = {{"own": pa.float32()}}
    def setup(self): ...
    def __call__(self, clips): return [{{"clip_id": clip.clip_id, "own": 1.0}} for clip in clips]
"""
PIPELINE = "run: runs/own\nsources: footage\nmeasure: [{{use: {use}}}]\n"
CHECK = """\
import sys
from pathlib import Path
from curate.cli.common import load
from curate.errors import ConfigError
try:
    run = load(Path(sys.argv[1]), None, None, None)[1]
    stage = run.steps[0].stage
    print(sys.modules[type(stage).__module__].__file__)
except ConfigError as error:
    print(error)
"""


def answer(lab: Path, use: str, *path: Path, cwd: Path | None = None) -> str:
    """The file of the class behind `use:`, or the error, in a new process with this PYTHONPATH."""
    (lab / "pipeline.yaml").write_text(PIPELINE.format(use=use))
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    command = [sys.executable, "-c", CHECK, str(lab / "pipeline.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env, cwd=cwd or "/")
    return done.stdout.strip()


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """A folder with stages of its own in `mystages.py` and in a package `filters`."""
    (tmp_path / "filters").mkdir()
    (tmp_path / "filters/__init__.py").write_text(OWN.format(name="Motion"))
    (tmp_path / "mystages.py").write_text(OWN.format(name="Blur"))
    return tmp_path


def test_module_beside_the_pipeline_file_is_found(lab: Path) -> None:
    assert answer(lab, "mystages.Blur", ROOT) == str(lab / "mystages.py")


def test_package_beside_the_pipeline_file_does_not_hide_ours(lab: Path) -> None:
    assert answer(lab, "filters.Motion", ROOT) == str(ROOT / "filters/motion.py")


def test_package_that_hides_ours_on_the_path_is_named(lab: Path) -> None:
    message = answer(lab, "filters.Motion", lab, ROOT)
    assert message.startswith("pipeline.yaml:3: use: 'filters.Motion': Python imports 'filters' from ")
    assert str(lab / "filters/__init__.py") in message
    assert str(ROOT / "filters/__init__.py") in message


def test_package_that_hides_ours_in_the_current_directory_is_named(lab: Path) -> None:
    message = answer(lab, "filters.Motion", ROOT, cwd=lab)
    assert str(lab / "filters/__init__.py") in message


def test_single_file_that_hides_our_package_is_named(lab: Path, tmp_path: Path) -> None:
    (lab / "filters/__init__.py").unlink()
    (lab / "filters").rmdir()
    (lab / "filters.py").write_text(OWN.format(name="Motion"))
    assert str(lab / "filters.py") in answer(lab, "filters.motion.Motion", lab, ROOT)
