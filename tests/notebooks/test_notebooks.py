"""Notebooks: their committed outputs match their sources, and they execute on a small run and, slow, on the run of `make demo`."""

import os
import shutil
from pathlib import Path

import nbformat
import numpy as np
import pytest

from curate.dataset.run import Run
from tests.curate.ablation.made import make_project
from tests.notebooks import books, gallery
from tests.project import ROOT, SMALLEST_RECIPE, Rushes, moving
from tests.videos import write_video

PIPELINE = """\
run: run
sources: footage
scan: {min_clip_s: 1.0, max_clip_s: 2.0, workers: 1}
measure:
  - {use: tests.stages.Brightness, workers: 1}
  - {use: filters.Motion, workers: 1}
  - {use: filters.Quality, workers: 1}
  - {use: filters.Fingerprint, workers: 1}
  - {use: filters.Duplicate, workers: 1}
  - {use: tests.stages.Seen, workers: 1}
  - {use: tests.stages.Checked, workers: 1}
caption:
  - {use: tests.stages.Says, workers: 1}
  - {use: tests.stages.Repeats, text: a rabbit on a meadow, workers: 1}
keep: {motion: {above: p10}}
shards: {short_side_px: 64, workers: 1}
"""
RECIPE = f"{SMALLEST_RECIPE}batch: 2\nheldout_every: 1\n"
NAMES = [path.stem for path in books.paths()]
SHORT = "03_captions_side_by_side"
"""Executed in `make test`; the others in `make test-all`."""
PICTURES = {
    "01_inspect_a_run": 3,
    "02_choose_thresholds": 4,
    "03_captions_side_by_side": 3,
    "04_search_and_duplicates": 5,
    "05_launch_a_finetune": 3,
    "06_write_your_own_filter": 2,
    "07_choose_data_by_ablation": 2,
}


@pytest.fixture(scope="module")
def variables(tmp_path_factory: pytest.TempPathFactory, rushes: Rushes) -> dict[str, str]:
    """A run of three videos, one of them a copy, and settings that make the notebooks small."""
    folder = tmp_path_factory.mktemp("notebook")
    (folder / "footage").mkdir()
    for i in range(2):
        write_video(folder / "footage" / f"{i}.mp4", moving(100, i + 1, 60 + 30 * i), 25, gop=25)
    write_video(folder / "footage" / "copy.mp4", moving(100, 1, 60), 25, gop=25, options={"crf": "30"})
    (folder / "pipeline.yaml").write_text(PIPELINE)
    (folder / "recipe.yaml").write_text(RECIPE)
    done = rushes("run", cwd=folder)
    assert done.code == 0, done.err
    return {
        "RUSHES_RUN": str(folder / "run"),
        "RUSHES_RECIPE": str(folder / "recipe.yaml"),
        "RUSHES_STEPS": "3",
        "RUSHES_OUT": str(folder / "trained"),
        "RUSHES_SCRATCH": str(folder / "my_filter"),
    }


@pytest.fixture(scope="module")
def with_more_clips(
    variables: dict[str, str], tmp_path_factory: pytest.TempPathFactory, rushes: Rushes
) -> dict[str, str]:
    """The same, with a run of enough clips to divide."""
    folder = make_project(tmp_path_factory.mktemp("ablated"), rushes)
    return {**variables, "RUSHES_RUN": str(folder / "run"), "RUSHES_AXES": "brightness"}


def pictures(book: nbformat.NotebookNode) -> int:
    """How many outputs are pictures."""
    return sum(bool({"image/png", "image/jpeg"} & set(o.get("data", {}))) for o in books.outputs(book))


@pytest.fixture(scope="module")
def demo(variables: dict[str, str], tmp_path_factory: pytest.TempPathFactory, rushes: Rushes) -> dict[str, str]:
    """The same, with the run of `make demo`: pipeline.yaml on the footage of `rushes footage`."""
    folder = tmp_path_factory.mktemp("demo")
    shutil.copyfile(ROOT / "pipeline.yaml", folder / "pipeline.yaml")
    for command in (("footage", "footage"), ("weights", "pull", "pipeline.yaml"), ("run", "pipeline.yaml")):
        done = rushes(*command, cwd=folder, timeout_s=1800, process=True)
        if done.code and command[0] != "run" and os.environ.get("CI") != "true":
            pytest.skip(f"needs the package index: {done.err}")
        assert done.code == 0, done.err
    return {
        **variables,
        "RUSHES_RUN": str(folder / "runs" / "demo"),
        "RUSHES_OUT": str(folder / "trained"),
        "RUSHES_SCRATCH": str(folder / "my_filter"),
    }


def executed(name: str, variables: dict[str, str]) -> nbformat.NotebookNode:
    """The executed notebook, without errors, standard error, empty tables or escape codes."""
    book = books.execute(books.FOLDER / f"{name}.ipynb", variables)
    shown = list(books.outputs(book))
    assert not [o for o in shown if o.output_type == "error"]
    assert not [o.text for o in shown if o.get("name") == "stderr"]
    tables = [o.data["text/html"] for o in shown if "<table" in o.get("data", {}).get("text/html", "")]
    assert all("<td>" in table for table in tables)
    assert tables or name.startswith("05")
    assert "\x1b[" not in "".join(map(books.text_of, shown))
    return book


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_executes_on_the_run_of_make_demo(name: str, demo: dict[str, str]) -> None:
    executed(name, demo)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == SHORT else pytest.mark.slow) for name in NAMES]
)
def test_a_notebook_executes_on_a_small_run(name: str, request: pytest.FixtureRequest) -> None:
    variables: dict[str, str] = request.getfixturevalue("with_more_clips" if name.startswith("07") else "variables")
    book = executed(name, variables)
    assert pictures(book) == PICTURES[name]
    text = "".join(map(books.text_of, books.outputs(book)))
    if name.startswith("01"):
        assert "<video" in text
    if name.startswith("04"):
        assert "0 groups" not in text
    if name.startswith("05"):
        assert (Path(variables["RUSHES_OUT"]) / "sample.png").exists()


def test_captions_and_duplicates_of_the_small_run(variables: dict[str, str]) -> None:
    run = Run.open(variables["RUSHES_RUN"])
    captions = run.captions()
    assert list(captions["captioner"].unique()) == ["says", "repeats"]
    of = captions.set_index(["clip_id", "captioner"])
    clip_id = captions["clip_id"].iloc[0]
    assert of.loc[(clip_id, "says"), "flags"] == "common"
    assert of.loc[(clip_id, "repeats"), "flags"] == ""
    assert of.loc[(clip_id, "repeats"), "rank"] == 0.25
    assert of.loc[(clip_id, "repeats"), "words"] == len(str(of.loc[(clip_id, "repeats"), "caption"]).split())
    assert list(run.captions([clip_id])["clip_id"]) == [clip_id] * 2

    copies = run.duplicates()
    assert len(copies) == 4  # two clips of a film and of its copy
    for group, members in copies.groupby("duplicate_group"):
        assert list(members["stays"]) == [True, False]
        assert members["clip_id"].iloc[0] == group
        assert members["sharpness"].iloc[0] >= members["sharpness"].iloc[1]
        assert set(members["file"]) == {"0.mp4", "copy.mp4"}


@pytest.mark.parametrize("name", NAMES)
def test_committed_outputs_belong_to_the_committed_cells(name: str) -> None:
    path = books.FOLDER / f"{name}.ipynb"
    book = books.read(path)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert len(book.cells) <= 10
    assert gallery.CREDIT in book.cells[0].source
    assert book.metadata.rushes.outputs_of == books.digest(book), (
        "its cells changed after it ran:  python -m tests.notebooks.execute"
    )
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert pictures(book) == PICTURES[name]
    assert path.stat().st_size <= books.MOST_BYTES
    assert books.clean(book) == books.read(path)  # no paths of a machine, no warnings, no videos


def test_an_edited_cell_and_a_machine_path_are_detected() -> None:
    book = books.read(books.paths()[0])
    before = books.digest(book)
    book.cells[1].source += "\n"
    assert books.digest(book) != before
    book.cells[1].outputs = [nbformat.v4.new_output("stream", name="stdout", text=f"{Path.home()}/films")]
    with pytest.raises(ValueError, match="a path of this machine"):
        books.clean(book)
    book.cells[1].outputs = [nbformat.v4.new_output("stream", name="stderr", text="a warning")]
    with pytest.raises(ValueError, match="standard error: a warning"):
        books.clean(book)


def test_the_gallery_is_cut_from_the_shared_footage(shared_dir: Path, tmp_path: Path) -> None:
    from curate.video import open as video

    for film in gallery.FILMS.values():
        assert (shared_dir / "footage" / "raw" / film.file).is_file()
    gallery.prepare(shared_dir / "footage" / "raw", tmp_path, ["rabbit_small"])
    made = video.frames_at(str(tmp_path / "rabbit_small.mp4"), [1.0], 90).frames_THWC
    assert made.shape == (1, 90, 160, 3)
    assert np.ptp(made) > 100
