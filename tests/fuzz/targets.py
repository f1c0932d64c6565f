"""Readers of untrusted input, each with small valid inputs to start from. A finding is any exception but our own, a hang, or high memory use.

`python -m tests.fuzz TARGET --seconds 60` runs one; with the package `atheris` installed it is guided by coverage, otherwise inputs are mutated
at random from a seed. Videos are opened in this process: a crash of the decoder ends it, which is why the product uses a sandbox.
"""

import contextlib
import io
import json
import random
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.config import lines as yaml_lines
from curate.config.config import SourcesConfig
from curate.config.pipeline_file import validate
from curate.dataset.run import Run
from curate.errors import RushesError
from curate.sandbox import answers
from curate.sandbox.answers import AnswerError
from curate.scan import sources
from curate.shards import verify as shards_verify
from curate.tables import where
from curate.video import header
from curate.video import packet_index as video_index
from curate.video.container import VideoError
from train_hooks.errors import TrainHooksError
from train_hooks.shard_index import read_index

OURS = (RushesError, TrainHooksError, VideoError, AnswerError)
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Target:
    """`reads` takes bytes and raises only our own errors; `begins` returns valid inputs."""

    reads: Callable[[bytes], object]
    begins: Callable[[], Sequence[bytes]]


@cache
def scratch() -> Path:
    """A folder for inputs that must be files; it is deleted with the process."""
    folder = tempfile.TemporaryDirectory(prefix="rushes-fuzz-")
    _held.append(folder)
    return Path(folder.name)


_held: list[tempfile.TemporaryDirectory[str]] = []


def file(data: bytes, name: str) -> Path:
    path = scratch() / name
    path.write_bytes(data)
    return path


def video(data: bytes) -> None:
    path = str(file(data, "film.mp4"))
    with contextlib.suppress(VideoError):
        header.probe(path)
    video_index.index_packets(path)


@cache
def films() -> list[bytes]:
    from tests.project import moving
    from tests.videos import write_video

    found = []
    for name in ("film.mp4", "film.mkv"):
        write_video(scratch() / name, moving(12, 1, width=64, height=48), 25, gop=6)
        found.append((scratch() / name).read_bytes())
    return found


def table(rows: Sequence[dict[str, object]]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows)), buffer)
    return buffer.getvalue()


def manifest(name: str) -> Callable[[bytes], object]:
    return lambda data: sources.discover(SourcesConfig.model_validate(str(file(data, name))), scratch())


def shard_index(data: bytes) -> None:
    folder = shards()
    (folder / "index.json").write_bytes(data)
    with contextlib.suppress(TrainHooksError):
        read_index(folder)
    list(shards_verify.verify(str(folder)))


def shard(data: bytes) -> None:
    folder = shards()
    name = json.loads(good_index())["shards"][0]["file"]
    (folder / "index.json").write_bytes(good_index())
    (folder / name).write_bytes(data)
    with contextlib.suppress(TrainHooksError):
        read_index(folder)
    list(shards_verify.verify(str(folder), decode=True))


@cache
def finished() -> Path:
    """A run of one short film."""
    from curate.config.pipeline_file import load
    from curate.pipeline import execute as pipeline
    from curate.progress.progress import Progress
    from tests.fuzz.machine import PIPELINE, killed_after
    from tests.project import moving
    from tests.videos import write_video

    folder = scratch() / "project"
    (folder / "footage").mkdir(parents=True)
    write_video(folder / "footage" / "a.mp4", moving(60, 1), 25, gop=25)
    (folder / "pipeline.yaml").write_text(PIPELINE.replace("LEVEL", "0"))
    progress = Progress()
    progress.console.quiet = True
    with killed_after(None):
        pipeline.execute(Run(str(folder / "run"), load(folder / "pipeline.yaml")), progress)
    return folder / "run"


@cache
def shards() -> Path:
    return Path(shutil.copytree(finished() / "shards", scratch() / "shards"))


@cache
def good_index() -> bytes:
    return (finished() / "shards" / "index.json").read_bytes()


def good_shards() -> list[bytes]:
    return [path.read_bytes() for path in sorted((finished() / "shards").glob("*.parquet"))]


def run_directory(data: bytes) -> None:
    folder = scratch() / "strange"
    folder.mkdir(exist_ok=True)
    (folder / "pipeline.json").write_bytes(data)
    run = Run.open(folder)
    run.selection()


def config(data: bytes) -> None:
    document = yaml_lines.parse(data.decode(errors="surrogateescape"), "pipeline.yaml")
    validate(document.data, document, scratch(), scratch())


def condition(data: bytes) -> None:
    types = {"brightness": pa.float32(), "caption": pa.string(), "n_frames": pa.int32(), "has_audio": pa.bool_()}
    where.parse(data.decode(errors="replace"), types)


MANIFEST = [{"uri": "a.mp4", "title": "one"}, {"uri": "s3://bucket/b.mp4", "title": None}]
TARGETS = {
    "video": Target(video, films),
    "manifest_csv": Target(manifest("m.csv"), lambda: [b"uri,title\na.mp4,one\ns3://bucket/b.mp4,\n"]),
    "manifest_parquet": Target(manifest("m.parquet"), lambda: [table(MANIFEST)]),
    "shard_index": Target(shard_index, lambda: [good_index()]),
    "shard": Target(shard, good_shards),
    "run": Target(run_directory, lambda: [(finished() / "pipeline.json").read_bytes()]),
    "config": Target(
        config, lambda: [(ROOT / "pipeline.yaml").read_bytes(), b"run: r\nsources: x\nkeep: {a: {above: p25}}\n"]
    ),
    "where": Target(condition, lambda: [b"brightness > 0.5 and not (caption like '%dog%' or n_frames in (1, 2))"]),
    "answer": Target(
        answers.decode, lambda: [answers.encode({"a": [1, (2.5, None)], "b": b"xy", "c": np.zeros((2, 3), "f4")})]
    ),
}
WORDS = (
    b"",
    b"\x00",
    b"\xff" * 8,
    b"../",
    b"null",
    b"-1",
    b"1e999",
    b"9" * 30,
    b"{}",
    b"[[[[",
    b'"',
    b"&a *a",
    b"\n",
    b"://",
    b"true",
)


def changed(good: bytes, rng: random.Random) -> bytes:
    """An input with one to six things done to it: bytes changed, words put in, pieces cut out, doubled or moved."""
    data = bytearray(good)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(data) + 1)
        size = rng.choice((1, 2, 4, 8, 64, max(1, len(data) // 4)))
        kind = rng.randrange(6)
        if kind == 0 and data:
            data[min(at, len(data) - 1)] = rng.randrange(256)
        elif kind == 1:
            data[at:at] = rng.choice(WORDS)
        elif kind == 2:
            del data[at : at + size]
        elif kind == 3:
            data[at:at] = data[at : at + size]
        elif kind == 4:
            data[at : at + 4] = rng.randbytes(4)
        else:
            data[at : at + size] = rng.choice(WORDS)
    return bytes(data)


def survives(target: Target, data: bytes) -> Exception | None:
    """What the reader raised that is not ours; None: it held."""
    try:
        target.reads(data)
    except OURS:
        return None
    except Exception as error:
        return error
    return None
