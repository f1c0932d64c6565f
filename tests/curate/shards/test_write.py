"""Shards: their contents, versions without rewrites, and the checks of `rushes shards verify`."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from curate.clips.write import ClipOptions, CutError
from curate.cluster.work import Receipt
from curate.config import pipeline_file
from curate.config.buckets import Bucket, bucket_of
from curate.config.config import BucketsConfig, ShardsConfig
from curate.dataset.run import Run
from curate.errors import ConfigError
from curate.run.data import plain_rows
from curate.shards import write as shards
from curate.shards.job import ShardJob, ShardUnit, stored
from curate.shards.verify import verify
from curate.tables import store
from tests.project import Rushes, moving
from tests.videos import write_video

PIPELINE = """\
run: run
sources: footage
scan: {min_clip_s: 1.0, max_clip_s: 2.0, workers: 1}
measure:
  - use: tests.stages.Brightness
shards: {workers: 1, short_side_px: 48, target_mb: 0.03}
"""


@pytest.fixture(scope="module")
def kept_aside(tmp_path_factory, rushes: Rushes) -> tuple[Path, Path]:
    """A run over three videos with several small shards: its original directory, and a copy of it."""
    folder = tmp_path_factory.mktemp("shards") / "project"
    (folder / "footage").mkdir(parents=True)
    for i in range(3):
        write_video(folder / "footage" / f"{i}.mp4", moving(250, i + 1, 40 + 40 * i), 25, gop=25)
    (folder / "pipeline.yaml").write_text(PIPELINE)
    assert rushes("run", cwd=folder).code == 0
    return folder, Path(shutil.copytree(folder, folder.with_name("aside")))


@pytest.fixture
def project(kept_aside: tuple[Path, Path]) -> Path:
    """The unchanged run in its original directory, because sources are identified by path."""
    folder, aside = kept_aside
    shutil.rmtree(folder)
    return Path(shutil.copytree(aside, folder))


def index_of(project: Path, version: int = 1) -> dict:
    return json.loads((Path(Run.open(project / "run").shards_root(version)) / "index.json").read_text())


def rows_of(folder: Path) -> pd.DataFrame:
    return pd.concat([pd.read_parquet(path) for path in sorted(folder.glob("*.parquet"))], ignore_index=True)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_shards_are_balanced_and_the_index_lists_their_contents(project: Path) -> None:
    index = index_of(project)
    sizes = [shard["bytes"] for shard in index["shards"]]
    assert len(sizes) >= 3
    assert max(sizes) < 2 * min(sizes)
    rows = rows_of(project / "run" / "shards")
    assert len(rows) == index["clips"] == 15
    assert index["buckets"] == {"": {"clips": 15}}  # a height of 48 px is below the smallest bucket
    assert rows["bucket"].isna().all()
    assert set(rows["mode"]) == {"exact"}
    assert (rows["lost_frames"] == 0).all()
    assert (rows["mp4"].str.len() == rows["mp4_bytes"]).all()
    assert (index["version"], index["parent"]) == (1, None)
    assert index["selection"]["total_clips"] == index["selection"]["kept_clips"] == 15
    assert index["code"] is None or len(index["code"]) >= 40
    file = pq.ParquetFile(project / "run" / "shards" / "shard-00000.parquet")
    for i, name in enumerate(file.schema_arrow.names):
        chunk = file.metadata.row_group(0).column(i)
        if name == "mp4":
            assert (chunk.compression, chunk.statistics) == ("UNCOMPRESSED", None)


def test_larger_selection_adds_shards_and_rewrites_none(project: Path, rushes: Rushes) -> None:
    assert rushes("run", "--set", "keep.brightness.above=p60", "--run", "grown", cwd=project).code == 0
    before = bytes_of(project / "grown" / "shards")
    assert rushes("run", "--set", "keep={}", "--run", "grown", cwd=project).code == 0
    after = bytes_of(project / "grown" / "shards")
    for name, data in before.items():
        assert name in ("index.json", "plan.json") or after[name] == data
    assert len(rows_of(project / "grown" / "shards")) == 15
    assert not (project / "grown" / "shards" / "v2").exists()


def test_smaller_selection_creates_a_new_version(project: Path, rushes: Rushes) -> None:
    old = bytes_of(project / "run" / "shards")
    ids = rows_of(project / "run" / "shards").set_index("clip_id")
    assert rushes("run", "--set", "keep.brightness.above=p20", cwd=project).code == 0
    assert bytes_of(project / "run" / "shards") == old
    new = index_of(project, 2)
    assert (new["version"], new["parent"]["version"]) == (2, 1)
    assert new["parent"]["sha256"] == store.sha256(str(project / "run" / "shards" / "index.json"))
    rows = rows_of(project / "run" / "shards" / "v2").set_index("clip_id")
    assert len(rows) == 12
    assert (rows["mp4"] == ids.loc[rows.index, "mp4"]).all()
    listed = json.loads(rushes("shards", "list", "run", "--json", cwd=project).out)
    assert [(row["version"], row["clips"]) for row in listed] == [(1, 15), (2, 12)]
    assert list(verify(str(project / "run" / "shards" / "v2"))) == []
    # Reverting creates a third version, because the second may be in use.
    assert rushes("run", "--set", "keep.brightness.above=p50", cwd=project).code == 0
    assert index_of(project, 3)["parent"]["version"] == 2


def test_unchanged_pixels_are_not_encoded_again(project: Path, rushes: Rushes) -> None:
    """With an additional measure every row is new, and every mp4 is copied."""
    text = (project / "pipeline.yaml").read_text().replace("measure:", "measure:\n  - use: filters.Motion")
    (project / "pipeline.yaml").write_text(text)
    for video in (project / "footage").iterdir():
        video.write_bytes(b"nothing can be cut from this")
    assert rushes("run", cwd=project).code == 0
    rows, old = rows_of(project / "run" / "shards" / "v2"), rows_of(project / "run" / "shards")
    assert rows["motion"].notna().all()
    assert rows.set_index("clip_id")["mp4"].equals(old.set_index("clip_id")["mp4"])
    assert index_of(project, 2)["left_out"] == []


def test_the_same_selection_gives_the_same_bytes(project: Path, rushes: Rushes) -> None:
    sums = [shard["sha256"] for shard in index_of(project)["shards"]]
    shutil.rmtree(project / "run" / "shards")
    assert rushes("run", cwd=project).code == 0
    assert [shard["sha256"] for shard in index_of(project)["shards"]] == sums


@pytest.mark.parametrize("fault", ["byte", "missing", "short"])
def test_verify_finds_a_damaged_shard_and_repair_rewrites_only_it(project: Path, rushes: Rushes, fault: str) -> None:
    folder = project / "run" / "shards"
    good = bytes_of(folder)
    path = folder / "shard-00001.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    match fault:
        case "byte":
            path.write_bytes(data)
        case "short":
            path.write_bytes(data[:1000])
        case "missing":
            path.unlink()
    times = {name: (folder / name).stat().st_mtime_ns for name in good if (folder / name).exists()}
    done = rushes("shards", "verify", "run", cwd=project)
    assert done.code == 1
    assert done.out.startswith(
        "shard-00001.parquet: " + ("is missing" if fault == "missing" else "has changed since it was written")
    )
    assert "1 shard is damaged" in done.err
    assert "--repair" in done.err
    done = rushes("shards", "verify", "run", "--repair", cwd=project)
    assert done.code == 0, done.err
    assert "1 shard written again: shard-00001.parquet" in done.out
    after = bytes_of(folder)
    assert after == good
    untouched = set(times) - {"shard-00001.parquet", "shard-00001.json", "index.json", "plan.json"}
    assert all((folder / name).stat().st_mtime_ns == times[name] for name in untouched)
    done = rushes("shards", "verify", "run", "--decode", cwd=project)
    assert done.code == 0
    assert "15 clips" in done.out
    assert "all verified" in done.out


def test_verify_finds_inconsistent_index(project: Path, rushes: Rushes) -> None:
    folder = project / "run" / "shards"
    index = index_of(project)
    (folder / "shard-00099.parquet").write_bytes(b"")
    index["clips"] += 1
    index["buckets"] = {}
    index["columns"]["motion"] = "float"
    (folder / "index.json").write_text(json.dumps(index))
    whats = [fault.what for fault in verify(str(folder))]
    assert any("index.json says 16 clips" in what for what in whats)
    assert any("buckets" in what for what in whats)
    assert any("other columns" in what and "motion" in what for what in whats)
    assert any("shard-00099.parquet is not in index.json" in what for what in whats)
    assert rushes("shards", "verify", "footage", cwd=project).code == 2


def test_changed_source_is_an_error_and_retried_on_request(project: Path, rushes: Rushes) -> None:
    shutil.rmtree(project / "run" / "shards")
    good = (project / "footage" / "0.mp4").read_bytes()
    (project / "footage" / "0.mp4").write_bytes((project / "footage" / "1.mp4").read_bytes())
    assert rushes("run", cwd=project).code == 0
    run = Run.open(project / "run")
    errors = [item["error"] for item in run.index()["left_out"]]
    assert len(errors) == 5
    assert all("0.mp4 has changed since it was scanned (its content was" in error for error in errors)
    assert all(", now " in error for error in errors)
    before = bytes_of(project / "run" / "shards")
    assert len(rows_of(project / "run" / "shards")) == 10
    (project / "footage" / "0.mp4").write_bytes(good)
    assert rushes("run", "--retry-errors", cwd=project).code == 0
    assert run.index()["left_out"] == []
    assert len(rows_of(project / "run" / "shards")) == 15
    kept = {name for name in before if name.endswith(".parquet")}
    assert all((project / "run" / "shards" / name).read_bytes() == before[name] for name in kept)


def test_missing_source_affects_only_its_clips(project: Path) -> None:
    run = Run.open(project / "run")
    rows = plain_rows(run.wide().sort_values(["source_id", "start_s"]))
    (project / "footage" / "1.mp4").unlink()
    job = ShardJob(4096, str(project / "out"), shards.schema(run), ClipOptions(), BucketsConfig(), "sampled")
    job.setup()
    receipt = job.work(ShardUnit("shard-00000", rows))
    job.close()
    assert receipt == Receipt(15, 5)
    receipt_file = store.get_json(str(project / "out" / "shard-00000.json"))
    assert all("1.mp4" in item["error"] for item in receipt_file["left_out"])
    assert receipt_file["buckets"] == {"4x3-64p-49f": 10}


ASPECTS = [(16, 9), (4, 3), (1, 1), (9, 16)]


@pytest.mark.parametrize(
    ("size", "n_frames", "frames", "name"),
    [
        ((1920, 1080), 100, [17, 81], "16x9-1080p-81f"),
        ((854, 480), 100, "4n+1", "16x9-480p-97f"),
        ((1920, 800), 20, [17, 81], "16x9-720p-17f"),  # cropped to 16:9 it is 1422 x 800
        ((400, 640), 17, [17, 81], "9x16-240p-17f"),
        ((500, 500), 16, [17, 81], None),
        ((50, 50), 100, [17, 81], None),
        ((500, 500), 3, "8n+5", None),
    ],
)
def test_bucket_of_a_clip(size, n_frames, frames, name) -> None:
    found = bucket_of(*size, n_frames, ASPECTS, [240, 480, 720, 1080], frames)
    assert (found and found.name) == name
    if found:
        assert Bucket.named(name) == found


def test_invalid_buckets_raise_an_error() -> None:
    with pytest.raises(ValueError, match="'16/9' is not an aspect ratio"):
        BucketsConfig(aspects=["16/9"])
    with pytest.raises(ValueError, match="must not be empty"):
        BucketsConfig(frames=[])
    assert ShardsConfig(buckets={"frames": "4n+1"}).buckets.frames == "4n+1"


def test_unknown_key_of_buckets_raises_config_error(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("run: r\nsources: x\nshards:\n  buckets: {aspect: ['1:1']}\n")
    with pytest.raises(ConfigError, match=r"p.yaml:4: unknown key 'shards.buckets.aspect'; did you mean 'aspects'"):
        pipeline_file.load(tmp_path / "p.yaml")


def test_unwritten_clip_has_an_error() -> None:
    assert stored({"clip_id": "a"}, CutError("a", "why")) == "why"
