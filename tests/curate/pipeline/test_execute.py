"""The pipeline on a small project: outputs, a second run, changed settings, kills."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from curate.dataset.run import Run
from curate.progress.status import counts
from tests.project import ROOT, SMALLEST_RECIPE, Rushes, environment
from train_hooks.shard_index import read_index


def read_shards(run: Path) -> pd.DataFrame:
    """All shards, read with the code of the README."""
    return pd.read_parquet(sorted(map(str, (run / "shards").glob("*.parquet"))))


@pytest.fixture
def copy(finished: Path, project: Path) -> "object":
    """A copy of the finished run that a test may change."""
    target = project / "runs" / f"copy-{time.monotonic_ns()}"
    shutil.copytree(finished, target)
    yield target
    shutil.rmtree(target)


def test_status_accounts_for_every_file_and_every_second(finished: Path, rushes: Rushes) -> None:
    status = rushes("status", finished, "--json").json()
    assert status["sources"] == {"total": 7, "ok": 3, "failed": 4, "duplicates": 0}
    seconds = status["seconds"]
    parts = ("kept", "dropped", "too_short", "unaligned", "transition", "failed")
    assert seconds["total"] == pytest.approx(185 / 25 + 150 / 25 + 80 / 25)
    assert sum(seconds[part] for part in parts) == pytest.approx(seconds["total"], rel=1e-9)
    assert status["clips"]["kept"] == status["shards"]["clips"] > 0
    assert status["clips"]["total"] == status["clips"]["kept"] + status["clips"]["dropped"] + status["clips"]["failed"]


def test_each_failed_file_has_an_error_message(finished: Path, rushes: Rushes) -> None:
    errors = {Path(row["uri"]).name: row["error"] for row in rushes("errors", finished, "--json").json()}
    assert set(errors) == {"text.mp4", "zero.mp4", "torn.mp4", "sound.mp4"}
    assert "empty" in errors["zero.mp4"]
    assert "audio only" in errors["sound.mp4"]
    assert "text.mp4" in rushes("errors", finished).out


def test_a_second_run_does_nothing_and_reports_it(finished: Path, project: Path, rushes: Rushes) -> None:
    before = {path: path.stat().st_mtime_ns for path in (finished / "clips").iterdir()}
    done = rushes("run", cwd=project)
    assert done.code == 0
    assert "nothing to do" in done.out
    assert {path: path.stat().st_mtime_ns for path in (finished / "clips").iterdir()} == before


def test_each_caption_is_joined_to_its_own_clip(finished: Path) -> None:
    wide = Run.open(finished).wide()
    captioned = wide[wide["caption"].notna()]
    assert len(captioned) == len(read_shards(finished))
    assert captioned["caption"].tolist() == [
        f"brightness {value:.3f}" for value in captioned["brightness"].astype(float)
    ]
    assert captioned["brightness"].nunique() == len(captioned)


def test_shards_open_in_pandas_datasets_and_pyav(finished: Path) -> None:
    import io
    import warnings

    import av

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # from the library's own imports
        import datasets

        loaded = datasets.load_dataset(
            "parquet",
            data_files=str(finished / "shards" / "*.parquet"),
            split="train",
            cache_dir=str(finished / "hf-cache"),
        )
    frame = read_shards(finished)
    assert loaded.num_rows == len(frame)
    for row in frame.to_dict("records"):
        with av.open(io.BytesIO(row["mp4"])) as container:
            frames = [picture.to_ndarray(format="rgb24") for picture in container.decode(video=0)]
        assert len(frames) == row["n_frames"]
        assert frames[0].shape == (row["height_px"], row["width_px"], 3)
        assert row["height_px"] == 64
        assert row["duration_s"] == pytest.approx(row["end_s"] - row["start_s"], abs=1 / row["fps"])
    file = pq.ParquetFile(finished / "shards" / "shard-00000.parquet")
    assert max(file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)) <= 16


def test_index_json_describes_the_shards(finished: Path) -> None:
    import hashlib
    import json

    index = json.loads((finished / "shards" / "index.json").read_text())
    assert index["clips"] == sum(shard["clips"] for shard in index["shards"])
    for shard in index["shards"]:
        data = (finished / "shards" / shard["file"]).read_bytes()
        assert shard["sha256"] == hashlib.sha256(data).hexdigest()
        assert shard["bytes"] == len(data)
    assert index["config"]["keep"] == {"brightness": {"above": "p10"}}
    assert {"pyarrow", "ray", "av"} <= set(index["versions"])


def test_search_ranks_the_clip_with_the_matching_caption_first(finished: Path, rushes: Rushes) -> None:
    wanted = Run.open(finished).wide().dropna(subset="caption").iloc[1]
    hits = rushes("search", finished, wanted["caption"].split()[1], "--json").json()
    assert hits[0]["clip_id"] == wanted["clip_id"]
    assert hits[0]["shard"] == "shard-00000.parquet"
    assert rushes("search", finished, " ").code == 2


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_table_exports_the_wide_table(finished: Path, rushes: Rushes, tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"wide.{suffix}"
    assert rushes("table", finished, "--to", target).code == 0
    frame = pd.read_csv(target) if suffix == "csv" else pd.read_parquet(target)
    promised = {"clip_id", "source_id", "uri", "start_s", "end_s", "fps", "n_frames", "width_px", "height_px", "error"}
    wanted = promised | {"brightness", "motion", "caption", "kept"}
    assert wanted <= set(frame.columns)
    assert frame["clip_id"].is_unique
    assert frame["motion"].notna().all()
    assert rushes("table", finished, "--to", tmp_path / "wide.xlsx").code == 2


def test_moving_a_threshold_decodes_nothing_and_adds_shards(copy: Path, project: Path, rushes: Rushes) -> None:
    measured = {path.name: path.stat().st_mtime_ns for path in (copy / "measures" / "motion").iterdir()}
    first = (copy / "shards" / "shard-00000.parquet").read_bytes()
    done = rushes("run", "--run", copy, "--set", "keep={}", cwd=project)
    assert done.code == 0, done.err
    assert {path.name: path.stat().st_mtime_ns for path in (copy / "measures" / "motion").iterdir()} == measured
    assert (copy / "shards" / "shard-00000.parquet").read_bytes() == first
    status = counts(Run.open(copy))
    assert status["shards"]["files"] == 2
    assert status["shards"]["clips"] == status["clips"]["total"]
    done = rushes("run", "--run", copy, "--set", "keep.brightness.above=p90", cwd=project)
    assert done.code == 0, done.err
    assert f"shards: {copy / 'shards' / 'v2'}" in done.out
    kept = pd.concat(map(pd.read_parquet, (copy / "shards" / "v2").glob("*.parquet")))
    assert set(kept["clip_id"]) == set(Run.open(copy).selection().clip_ids)


def test_another_caption_mix_rewrites_only_the_index(copy: Path, project: Path, rushes: Rushes) -> None:
    shard = copy / "shards" / "shard-00000.parquet"
    before = shard.stat().st_mtime_ns
    settings = ["--set", "shards.caption={says: 1}", "--set", "shards.suffix={', dark': {brightness: {below: p50}}}"]
    done = rushes("run", "--run", copy, *settings, cwd=project)
    assert done.code == 0, done.err
    assert shard.stat().st_mtime_ns == before
    run = Run.open(copy)
    middle = float(run.wide()["brightness"].astype(float).median())
    assert run.index()["captions"] == {  # type: ignore[index]
        "mix": {"says": 1.0},
        "suffix": [{"add": ", dark", "when": {"brightness": {"below": pytest.approx(middle)}}}],
    }
    clips = read_index(copy / "shards").clips
    wide = run.wide().set_index("clip_id")
    for clip in clips:
        dark = ", dark" if wide.loc[clip.clip_id, "brightness"] <= middle else ""
        assert clip.caption == wide.loc[clip.clip_id, "caption_says"] + dark


def test_a_keep_that_keeps_nothing_warns_and_shows_the_funnel(copy: Path, project: Path, rushes: Rushes) -> None:
    done = rushes("run", "--run", copy, "--set", "keep.brightness.above=1000", cwd=project)
    assert done.code == 0
    assert "no clip was kept" in done.err
    assert "brightness < 1000" in done.out
    assert rushes("search", copy, "anything").code == 2


@pytest.mark.slow  # imports all of training
def test_training_on_an_empty_selection_is_refused_and_older_shards_are_usable(
    copy: Path, project: Path, rushes: Rushes, tmp_path: Path
) -> None:
    assert rushes("run", "--run", copy, "--set", "keep.brightness.above=1000", cwd=project).code == 0
    trained = rushes("train", "--shards", copy, "--out", copy / "train")
    assert trained.code == 1
    assert len(trained.err.strip().splitlines()) == 1
    (tmp_path / "smallest.yaml").write_text(SMALLEST_RECIPE)
    quick = ("--recipe", tmp_path / "smallest.yaml", "--set", "batch=1")
    trained = rushes("train", "--shards", copy / "shards", "--plan", *quick)
    assert trained.code == 0
    assert trained.err == f"rushes: warning: {copy / 'shards' / 'v2'} is a newer version of these shards\n"


def test_a_changed_option_is_refused_and_recompute_rewrites_only_that_table(
    copy: Path, project: Path, rushes: Rushes
) -> None:
    change = ("--run", copy, "--set", "measure.brightness.scale=2")
    done = rushes("run", *change, cwd=project)
    assert done.code == 2
    assert "the table 'brightness' was made by another configuration (options.scale: 1.0 -> 2.0)" in done.err
    assert "--recompute brightness" in done.err
    before = {name: table.read() for name, table in Run.open(copy).tables().items()}
    untouched = {
        path: path.stat().st_mtime_ns for name in ("clips", "measures/motion") for path in (copy / name).iterdir()
    }
    done = rushes("run", *change, "--recompute", "brightness", cwd=project)
    assert done.code == 0, done.err
    assert {path: path.stat().st_mtime_ns for path in untouched} == untouched
    after = Run.open(copy).wide()
    old = before["brightness"].to_pandas().set_index("clip_id")["brightness"].reindex(after["clip_id"]).to_numpy()
    assert after["brightness"].to_numpy() == pytest.approx(2 * old)
    captioned = after.dropna(subset="caption")
    assert captioned["caption"].tolist() == [f"brightness {v:.3f}" for v in captioned["brightness"].astype(float)]


def test_a_scanned_source_missing_from_sources_is_refused(copy: Path, project: Path, rushes: Rushes) -> None:
    done = rushes("run", "--run", copy, "--sources", project / "footage" / "one.mp4", cwd=project)
    assert done.code == 2
    assert "no longer listed under sources" in done.err


def test_retry_errors_retries_failed_sources(copy: Path, project: Path, rushes: Rushes) -> None:
    footage = project / "footage"
    torn = (footage / "torn.mp4").read_bytes()
    try:
        shutil.copyfile(footage / "two.mp4", footage / "torn.mp4")
        assert "nothing to do" in rushes("run", "--run", copy, cwd=project).out
        done = rushes("run", "--run", copy, "--retry-errors", cwd=project)
        assert done.code == 0, done.err
        status = counts(Run.open(copy))
        assert status["sources"] == {"total": 7, "ok": 4, "failed": 3, "duplicates": 1}
        assert status["seconds"]["duplicate"] == pytest.approx(6.0)
    finally:
        (footage / "torn.mp4").write_bytes(torn)


def test_a_source_changed_since_the_scan_fails_only_its_own_clips(copy: Path, project: Path, rushes: Rushes) -> None:
    footage = project / "footage"
    two = (footage / "two.mp4").read_bytes()
    try:
        shutil.copyfile(footage / "one.mp4", footage / "two.mp4")
        shutil.rmtree(copy / "shards")
        done = rushes("run", "--run", copy, cwd=project)
        assert done.code == 0, done.err
        failed = [row for row in rushes("errors", copy, "--json").json() if row["table"] == "shards"]
        assert failed
        assert all("has changed since it was scanned" in row["error"] for row in failed)
        status = counts(Run.open(copy))
        assert status["clips"]["failed"] == len(failed)
        assert status["shards"]["clips"] == status["clips"]["kept"]
    finally:
        (footage / "two.mp4").write_bytes(two)


def test_a_broken_stage_stops_the_run(project: Path, rushes: Rushes, tmp_path: Path) -> None:
    settings = [
        "--set",
        "scan.max_clip_s=0.6",
        "--set",
        "scan.min_clip_s=0.2",
        "--set",
        "scan.thumb_fps=8",
        "--set",
        "keep={}",
        "--set",
        "caption=[]",
    ]
    fussy = ["--set", "measure=[{use: tests.stages.Fussy, on: '0123456789abcdef'}]"]
    done = rushes("run", "--run", tmp_path / "run", *settings, *fussy, cwd=project)
    assert done.code == 1
    assert "the stage is broken, not the data" in done.err
    missing = ["--set", "measure=[{use: tests.stages.NeedsNothingThere}]"]
    done = rushes("run", "--run", tmp_path / "run2", *settings, *missing, cwd=project)
    assert done.code == 1
    assert "needs the package 'no_such_package_at_all'" in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_a_long_source_is_scanned_in_windows_and_adds_up(project: Path, rushes: Rushes, tmp_path: Path) -> None:
    settings = ["--set", "scan.window_s=4", "--set", "caption=[]", "--set", "keep={}"]
    done = rushes("run", "--run", tmp_path / "run", *settings, cwd=project)
    assert done.code == 0, done.err
    run = Run.open(tmp_path / "run")
    assert run.spans().groupby("source_id")["window"].nunique().max() == 2
    ledger = run.ledger()
    assert ledger.accounted_share == 1.0
    assert ledger.total_s == pytest.approx(185 / 25 + 150 / 25 + 80 / 25)


def test_commands_read_an_unfinished_run(copy: Path, rushes: Rushes, tmp_path: Path) -> None:
    for gone in ("shards", "index.lance", "captions", "measures/motion", "report"):
        shutil.rmtree(copy / gone)
        assert rushes("status", copy).code == 0, gone
    for command in (["funnel"], ["errors"], ["report"], ["table", "--to", tmp_path / "x.csv"]):
        done = rushes(command[0], copy, *command[1:])
        assert done.code == 0, (command, done.err)
    assert "not finished" in rushes("status", copy).out
    assert rushes("search", copy, "x").code == 2


@pytest.mark.slow
@pytest.mark.skipif(sys.prefix == sys.base_prefix, reason="needs a virtual environment to open under another name")
def test_an_environment_in_a_folder_with_a_space_works(project: Path, tmp_path: Path) -> None:
    """Ray passes the interpreter's path to a shell; unquoted, no worker starts and the run waits forever."""
    (tmp_path / "an env 🎬").symlink_to(sys.prefix)
    python = tmp_path / "an env 🎬" / "bin" / "python"
    command = [str(python), "-c", "from curate.cli import main; main()", "run", "--run", str(tmp_path / "run")]
    done = subprocess.run(
        command, cwd=project, env=environment(), capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert counts(Run.open(tmp_path / "run"))["clips"]["kept"] > 0


def test_two_runs_at_once_are_refused(finished: Path, project: Path, rushes: Rushes) -> None:
    import fcntl

    with (finished / ".lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = rushes("run", cwd=project)
    assert done.code == 2
    assert "another rushes run is at work" in done.err


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(signal.SIGKILL, id="SIGKILL"),
        pytest.param(signal.SIGTERM, id="SIGTERM", marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, id="SIGINT", marks=pytest.mark.slow),
    ],
)
def test_a_stopped_run_resumes_and_ends_with_the_same_tables_and_shards(
    how: signal.Signals, finished: Path, project: Path, rushes: Rushes
) -> None:
    target = project / "runs" / f"killed-{how.name}"
    command = [sys.executable, "-c", "from curate.cli import main; main()", "run", "--run", str(target)]
    chance = random.Random(int(how))
    for moment in range(2):
        # Stop at the first new part of a table, or shortly after: in the middle of a step.
        parts_before = len(list(target.rglob("part-*.parquet"))) if target.exists() else 0
        process = subprocess.Popen(
            command,
            cwd=project,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if target.exists() and len(list(target.rglob("part-*.parquet"))) > parts_before:
                break
            time.sleep(0.02)
        time.sleep(chance.random() * 0.5)
        process.send_signal(how)
        code = process.wait(timeout=60)
        if moment == 0:
            expected = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[how]
            assert code == expected
    done = rushes("run", "--run", target, cwd=project)
    assert done.code == 0, done.err
    whole, resumed = Run.open(finished), Run.open(target)
    for name, table in whole.tables().items():
        assert resumed.tables()[name].read().equals(table.read()), name
    assert [shard["sha256"] for shard in resumed.index()["shards"]] == [
        shard["sha256"] for shard in whole.index()["shards"]
    ]  # type: ignore[index]
    assert not list(target.rglob(".*.tmp"))
    shutil.rmtree(target)


@pytest.mark.slow  # the release check installs a wheel without torch
def test_the_base_install_needs_no_torch(project: Path, tmp_path: Path) -> None:
    """A run with filters.Motion and filters.TextArea succeeds where importing torch or another extra fails."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'torchvision', 'transformers', 'open_clip', 'diffusers', 'decord'):\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
    )
    code = "import curate, filters, annotate; from curate.cli import main; main()"
    settings = [
        "--set",
        "measure=[{use: filters.Motion}, {use: filters.TextArea}]",
        "--set",
        "caption=[]",
        "--set",
        "keep={}",
    ]
    command = [sys.executable, "-c", code, "run", "--run", str(tmp_path / "run"), *settings]
    clean = {**environment(), "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    done = subprocess.run(command, cwd=project, env=clean, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert Run.open(tmp_path / "run").wide()[["motion", "text_area"]].notna().all().all()
    captions = [*command, "--set", "caption=[{use: annotate.Labels}]"]
    done = subprocess.run(captions, cwd=project, env=clean, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode != 0
    assert "torch" in done.stderr
    assert "rushes[models]" in done.stderr


def test_the_report_is_written_by_the_run_and_by_the_report_command(copy: Path, rushes: Rushes) -> None:
    folder = copy / "report"
    assert (folder / "page" / "app.js").exists()
    assert len(list((folder / "pictures").iterdir())) >= 1
    shutil.rmtree(folder)
    assert rushes("report", copy).out.strip() == str(folder / "index.html")
    assert (folder / "index.html").exists()
