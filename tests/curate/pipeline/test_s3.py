"""A run on object storage: a real S3-compatible server on loopback, a kill in the middle, and the same shards as on a disk."""

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
from tests.project import environment, moving
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
embed: {{use: {STAGES}.Heard}}
shards: {{workers: 1, short_side_px: 64, target_mb: 0.05}}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[tuple[dict[str, str], Path]]:
    """The environment that leads to the server, and the server's log of requests."""
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


def rushes(project: Path, env: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from curate.cli import main; main()", *arguments]
    return subprocess.Popen(
        command, cwd=project, env=environment() | env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def done(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err
    return out


def test_a_run_on_object_storage_survives_a_kill_and_is_the_same(project: Path, server, monkeypatch) -> None:
    env, log = server
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    files = s3fs.S3FileSystem()
    files.mkdir("rushes")
    first = rushes(project, env, "run")
    deadline = time.monotonic() + 120
    while not re.search(r"PUT /rushes/run/clips/part-\S+\.parquet \S+ 200", log.read_text()):
        assert first.poll() is None, first.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    family = [*psutil.Process(first.pid).children(recursive=True), psutil.Process(first.pid)]
    for member in family:
        try:
            os.kill(member.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    first.communicate()
    assert store.get_json("s3://rushes/run/shards/index.json") is None
    killed_at = len(log.read_text())
    assert "kept in" in done(rushes(project, env, "run"))
    again = done(rushes(project, env, "run"))
    assert "nothing to do" in again

    assert "kept in" in done(rushes(project, env, "run", "--run", "local"))
    there, here = Run.open("s3://rushes/run"), Run.open(project / "local")
    assert [shard["sha256"] for shard in there.index()["shards"]] == [
        shard["sha256"] for shard in here.index()["shards"]
    ]
    keys = files.find("rushes/run")
    assert not [key for key in keys if ".tmp" in key]
    # One put a part, nothing that lay there already among them. (A part without pictures goes before its part; a kill may come in between.)
    puts = re.findall(r"PUT /rushes/run/((?:clips|measures|captions|shards)/\S+\.parquet)", log.read_text()[killed_at:])
    assert len(puts) == len(set(puts)) > 0
    before = re.findall(r"PUT /rushes/run/(clips/part-\S+\.parquet) \S+ 200", log.read_text()[:killed_at])
    assert before
    assert not set(puts) & set(before)

    assert "all verified" in done(rushes(project, env, "shards", "verify", "s3://rushes/run"))
    assert (
        read_index("s3://rushes/run/shards")[0] == read_index(project / "local" / "shards")[0]
    )  # as training reads them
    hits = json.loads(
        done(rushes(project, env, "search", "s3://rushes/run", "anything", "--where", "brightness > 0", "--json"))
    )
    assert len(hits) == len(index.search(here, "anything", limit=10))
    assert done(rushes(project, env, "export", "s3://rushes/run", "--to", "csv", "--out", "csv")).startswith("12 clips")
    watch = Watch("s3://rushes/run")
    watch.look()
    assert watch.finished, watch.board
    assert "shards" in cost.read("s3://rushes/run")
    # A smaller selection is a version beside it, with shards copied on the server.
    done(rushes(project, env, "run", "--set", "keep.brightness.above=p50"))
    assert Run.open("s3://rushes/run").shards_root() == "s3://rushes/run/shards/v2"
    assert "all verified" in done(rushes(project, env, "shards", "verify", "s3://rushes/run"))


def test_a_bucket_that_cannot_be_reached_is_one_sentence(project: Path, server) -> None:
    env, _ = server
    process = rushes(project, env, "run", "--run", "s3://nosuchbucket/run")
    _, err = process.communicate(timeout=300)
    assert process.returncode in (1, 2)
    assert err.startswith("rushes: ")
    assert len(err.strip().splitlines()) == 1
    assert "secret" not in err
