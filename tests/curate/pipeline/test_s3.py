"""A run on object storage: an S3-compatible server on loopback, a kill during the run, and the same shards as on a local disk."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from curate.dataset.run import Run
from curate.progress import cost
from curate.progress.watch import Watch
from curate.search import index
from curate.tables import store
from tests.project import Rushes, environment, moving
from tests.servers import s3_server
from tests.videos import write_video
from train_hooks.shard_index import read_index

pytest.importorskip("moto")
s3fs = pytest.importorskip("s3fs")

STAGES = "tests.stages"
PIPELINE = f"""\
run: s3://rushes/run
sources: footage
scan: {{min_clip_s: 1.0, max_clip_s: 2.0, workers: 1}}
measure:
  - use: {STAGES}.Brightness
  - use: {STAGES}.Seen
caption:
  - use: {STAGES}.Says
embed: {{use: {STAGES}.CaptionVector}}
shards: {{workers: 1, short_side_px: 64, target_mb: 0.05}}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[tuple[dict[str, str], Path]]:
    """Environment variables that point to the server, and the server's request log."""
    with s3_server(tmp_path_factory.mktemp("s3")) as (port, log):
        yield (
            {
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
                "AWS_ACCESS_KEY_ID": "key",
                "AWS_SECRET_ACCESS_KEY": "secret",
                "AWS_DEFAULT_REGION": "us-east-1",
            },
            log,
        )


@pytest.fixture(scope="module")
def project(tmp_path_factory, server) -> Path:
    folder = tmp_path_factory.mktemp("project")
    (folder / "footage").mkdir()
    for i in range(4):
        write_video(folder / "footage" / f"{i}.mp4", moving(150, i + 1, 40 + 40 * i), 25, gop=25)
    (folder / "pipeline.yaml").write_text(PIPELINE)
    return folder


def killed_run(project: Path, env: dict[str, str], log: Path) -> None:
    """A `rushes run` whose whole process family is killed once the first part of the clips is stored."""
    command = [sys.executable, "-c", "from curate.cli import main; main()", "run"]
    first = subprocess.Popen(
        command, cwd=project, env=environment() | env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not re.search(r"PUT /rushes/run/clips/part-\S+\.parquet \S+ 200", log.read_text()):
        assert first.poll() is None, first.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for member in [*psutil.Process(first.pid).children(recursive=True), psutil.Process(first.pid)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(member.pid, signal.SIGKILL)
    first.communicate()


def test_a_killed_run_on_object_storage_resumes_and_equals_a_local_run(
    project: Path, server, monkeypatch, rushes: Rushes
) -> None:
    env, log = server
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    files = s3fs.S3FileSystem()
    files.mkdir("rushes")
    killed_run(project, env, log)

    def done(*arguments: str) -> str:
        ended = rushes(*arguments, cwd=project)
        assert ended.code == 0, ended.out + ended.err
        return ended.out

    assert store.get_json("s3://rushes/run/shards/index.json") is None
    killed_at = len(log.read_text())
    assert "kept in" in done("run")
    again = done("run")
    assert "nothing to do" in again

    assert "kept in" in done("run", "--run", "local")
    there, here = Run.open("s3://rushes/run"), Run.open(project / "local")
    assert [shard["sha256"] for shard in there.index()["shards"]] == [
        shard["sha256"] for shard in here.index()["shards"]
    ]
    keys = files.find("rushes/run")
    assert not [key for key in keys if ".tmp" in key]
    # One PUT for each part, and none of a part that was stored before the kill.
    puts = re.findall(r"PUT /rushes/run/((?:clips|measures|captions|shards)/\S+\.parquet)", log.read_text()[killed_at:])
    assert len(puts) == len(set(puts)) > 0
    before = re.findall(r"PUT /rushes/run/(clips/part-\S+\.parquet) \S+ 200", log.read_text()[:killed_at])
    assert before
    assert not set(puts) & set(before)

    assert "all verified" in done("shards", "verify", "s3://rushes/run")
    assert (
        read_index("s3://rushes/run/shards")[0] == read_index(project / "local" / "shards")[0]
    )  # as training reads them
    hits = json.loads(done("search", "s3://rushes/run", "anything", "--where", "brightness > 0", "--json"))
    assert len(hits) == len(index.search(here, "anything", limit=10))
    assert done("export", "s3://rushes/run", "--to", "csv", "--out", "csv").startswith("12 clips")
    watch = Watch("s3://rushes/run")
    watch.look()
    assert watch.finished, watch.board
    assert "shards" in cost.read("s3://rushes/run")
    # A smaller selection becomes shards v2, copied on the server.
    done("run", "--set", "keep.brightness.above=p50")
    assert Run.open("s3://rushes/run").shards_root() == "s3://rushes/run/shards/v2"
    assert "all verified" in done("shards", "verify", "s3://rushes/run")


def test_a_missing_bucket_is_a_one_line_error_without_the_key(
    project: Path, server, monkeypatch, rushes: Rushes
) -> None:
    env, _ = server
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    ended = rushes("run", "--run", "s3://nosuchbucket/run", cwd=project, process=True)
    assert ended.code in (1, 2)
    assert ended.err.startswith("rushes: ")
    assert len(ended.err.strip().splitlines()) == 1
    assert "secret" not in ended.err
