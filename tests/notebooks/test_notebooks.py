"""The notebooks run from top to bottom on a real small run."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.curate.videos import write_video
from tests.project import ROOT, Rushes, environment, moving

PIPELINE = """\
run: run
sources: footage
scan: {min_clip_s: 1.0, max_clip_s: 2.0, workers: 1}
measure:
  - {use: filters.Motion, workers: 1}
caption:
  - {use: tests.curate.stages.Repeats, text: people, workers: 1}
keep: {motion: {above: p25}}
shards: {workers: 1}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory, rushes: Rushes) -> Path:
    folder = tmp_path_factory.mktemp("notebook")
    (folder / "footage").mkdir()
    for i in range(3):
        write_video(folder / "footage" / f"{i}.mp4", moving(120, i + 1, 60 + 30 * i), 25, gop=25)
    (folder / "pipeline.yaml").write_text(PIPELINE)
    done = rushes("run", cwd=folder)
    assert done.code == 0, done.err
    return folder / "run"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_a_run_is_inspected(run: Path, monkeypatch) -> None:
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RUSHES_RUN", str(run))
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    book = nbformat.read(ROOT / "notebooks" / "01_inspect_a_run.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in book.cells), "commit notebooks without their outputs"
    NotebookClient(
        book, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(ROOT / "notebooks")}}
    ).execute()
    outputs = [output for cell in book.cells for output in cell.get("outputs", [])]
    pictures = [o for o in outputs if "image/png" in o.get("data", {})]
    assert len(pictures) == 3
    assert any("<video" in str(o.get("data", {}).get("text/html", "")) for o in outputs)
    assert not any(o.output_type == "error" for o in outputs)
    if keep := os.environ.get("RUSHES_KEEP_NOTEBOOK"):
        nbformat.write(book, keep)
