"""Round trips: each export is read by its consumer and has the bytes and captions of the shards."""

import csv
import io
import json
import tarfile
import tomllib
from pathlib import Path

import av
import pandas as pd
import pytest

from curate.config.buckets import Bucket
from curate.dataset.run import Run
from curate.errors import UsageError
from curate.exports import hf
from curate.exports.export import FORMATS, Item, export
from tests.project import Rushes, moving
from tests.videos import write_video

STAGES = "tests.stages"
PIPELINE = f"""\
run: run
sources: all.csv
scan: {{min_clip_s: 1.0, max_clip_s: 2.0, workers: 1}}
measure:
  - use: {STAGES}.Brightness
  - use: {STAGES}.Vector
caption:
  - use: {STAGES}.Says
  - {{use: {STAGES}.Repeats, name: other}}
shards:
  workers: 1
  caption: {{says: 0.5, other: 0.5}}
  suffix: {{", dark": {{brightness: {{below: 90}}}}}}
  buckets: {{short_sides_px: [96], frames: [17, 49]}}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory, rushes: Rushes) -> Path:
    folder = tmp_path_factory.mktemp("export")
    lines = ["uri,license"]
    for i in range(3):
        write_video(folder / f"{i}.mp4", moving(100 + 20 * i, i + 1, 40 + 50 * i), 25, gop=25)
        lines.append(f"{i}.mp4,cc-by-4.0")
    (folder / "all.csv").write_text("\n".join(lines) + "\n")
    (folder / "pipeline.yaml").write_text(PIPELINE)
    done = rushes("run", cwd=folder)
    assert done.code == 0, done.err
    return folder


@pytest.fixture(scope="module")
def rows(project: Path) -> pd.DataFrame:
    shards = sorted((project / "run" / "shards").glob("*.parquet"))
    return pd.concat(map(pd.read_parquet, shards)).set_index("clip_id")


@pytest.fixture(scope="module")
def exported(project: Path, rushes: Rushes) -> Path:
    for to in FORMATS:
        done = rushes("export", "run", "--to", to, "--out", f"out/{to}", cwd=project)
        assert done.code == 0, done.err
        assert f"clips as {to} in" in done.out
    return project / "out"


def check(rows: pd.DataFrame, found: dict[str, tuple[bytes, str]]) -> None:
    """Every clip is present, with its bytes and one of its captions."""
    assert set(found) == set(rows.index)
    for clip_id, (mp4, caption) in found.items():
        row = rows.loc[clip_id]
        assert mp4 == row["mp4"]
        assert caption.removesuffix(", dark") in (row["caption_says"], row["caption_other"])
        assert caption.endswith(", dark") == (row["brightness"] <= 90)


def n_frames(mp4: bytes) -> int:
    with av.open(io.BytesIO(mp4)) as container:
        return sum(1 for _ in container.decode(video=0))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset leaves its files open
def test_webdataset(exported: Path, rows: pd.DataFrame) -> None:
    webdataset = pytest.importorskip("webdataset")
    tars = sorted(map(str, (exported / "webdataset").glob("*.tar")))
    samples = list(webdataset.WebDataset(tars, shardshuffle=False))
    check(rows, {s["__key__"]: (s["mp4"], s["txt"].decode()) for s in samples})
    columns = json.loads(samples[0]["json"])
    assert columns["brightness"] == pytest.approx(rows.loc[samples[0]["__key__"], "brightness"])
    with tarfile.open(tars[0]) as tar:
        assert {member.mtime for member in tar} == {0}


def test_hf(exported: Path, rows: pd.DataFrame) -> None:
    datasets = pytest.importorskip("datasets")
    found = datasets.load_dataset(str(exported / "hf"), split="train", cache_dir=str(exported / "cache"))
    assert isinstance(found.features["video"], datasets.Video)
    plain = found.cast_column("video", datasets.Video(decode=False))
    check(rows, {row["clip_id"]: (row["video"]["bytes"], row["text"]) for row in plain})
    assert found.features["brightness"].dtype == "float32"


def test_hf_in_several_files(project: Path, rows: pd.DataFrame, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    index = json.loads((project / "run" / "shards" / "index.json").read_text())
    records = rows.reset_index().to_dict("records") * 4  # more than one row group
    hf.write((Item(row["clip_id"], row["mp4"], "", row) for row in records), tmp_path, index, file_bytes=1)
    names = sorted(path.name for path in (tmp_path / "data").iterdir())
    assert names == [f"train-{n:05d}-of-{len(names):05d}.parquet" for n in range(len(names))]
    assert len(names) == -(-len(records) // 16) > 1
    found = datasets.load_dataset(str(tmp_path), split="train", cache_dir=str(tmp_path / "cache"))
    assert found["clip_id"][:] == [row["clip_id"] for row in records]


def test_diffusers_folder(exported: Path, rows: pd.DataFrame) -> None:
    datasets = pytest.importorskip("datasets")
    folder = exported / "diffusers-folder"
    found = datasets.load_dataset("videofolder", data_dir=str(folder), split="train", cache_dir=str(exported / "cache"))
    plain = found.cast_column("video", datasets.Video(decode=False))
    check(rows, {row["clip_id"]: (Path(row["video"]["path"]).read_bytes(), row["text"]) for row in plain})


def test_zeroscope_json(exported: Path, rows: pd.DataFrame) -> None:
    """As the reader of Text-To-Video-Finetuning: a sample for each prompt of each video."""
    folder = exported / "zeroscope-json"
    found = {}
    for video in json.loads((folder / "dataset.json").read_text())["data"]:
        mp4 = (folder / video["video_path"]).read_bytes()
        assert n_frames(mp4) == video["num_frames"]
        for prompt in video["data"]:
            assert 0 <= prompt["frame_index"] < video["num_frames"]
            found[Path(video["video_path"]).stem] = (mp4, prompt["prompt"])
    check(rows, found)


def test_finetrainers(exported: Path, rows: pd.DataFrame) -> None:
    """As its documentation says: line n of videos.txt belongs to line n of prompts.txt."""
    folder = exported / "finetrainers"
    videos = (folder / "videos.txt").read_text().splitlines()
    prompts = (folder / "prompts.txt").read_text().splitlines()
    check(rows, {Path(v).stem: ((folder / v).read_bytes(), p) for v, p in zip(videos, prompts, strict=True)})
    [entry] = json.loads((folder / "training.json").read_text())["datasets"]
    assert entry["video_resolution_buckets"] == [[17, 96, 128], [49, 96, 128]]


def test_diffusion_pipe(exported: Path, rows: pd.DataFrame) -> None:
    """As its example says: pairs with the same stem, and a TOML file that names the folder."""
    dataset = tomllib.loads((exported / "diffusion-pipe" / "dataset.toml").read_text())
    assert dataset["frame_buckets"] == [1, 17, 49]
    assert dataset["resolutions"] == [112]
    folder = Path(dataset["directory"][0]["path"])
    check(rows, {p.stem: (p.read_bytes(), p.with_suffix(".txt").read_text()) for p in folder.glob("*.mp4")})


def test_csv(exported: Path, rows: pd.DataFrame) -> None:
    with (exported / "csv" / "clips.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    check(rows, {line["clip_id"]: ((exported / "csv" / line["path"]).read_bytes(), line["caption"]) for line in lines})
    assert "vector" not in lines[0]


def test_where_and_bucket_select_clips_and_a_second_export_gives_the_same_bytes(
    project: Path, rows: pd.DataFrame, rushes: Rushes
) -> None:
    limit = float(rows.loc[rows["bucket"] == "4x3-96p-49f", "brightness"].min())
    done = rushes(
        "export",
        "run",
        "--to",
        "csv",
        "--out",
        "few",
        "--where",
        f"brightness > {limit}",
        "--bucket",
        "4x3-96p-49f",
        cwd=project,
    )
    assert done.code == 0, done.err
    names = {path.stem for path in (project / "few" / "videos").iterdir()}
    assert names == set(rows.index[(rows["brightness"] > limit) & (rows["bucket"] == "4x3-96p-49f")])
    assert json.loads((project / "few" / "export.json").read_text())["clips"] == len(names)
    again = rushes("export", "run", "--to", "webdataset", "--out", "again", cwd=project)
    assert again.code == 0
    tar = (project / "again" / "000000.tar").read_bytes()
    assert tar == (project / "out" / "webdataset" / "000000.tar").read_bytes()


def test_errors_of_export(project: Path, rushes: Rushes) -> None:
    root = Run.open(project / "run").shards_root()
    for arguments, message in (
        (
            {"to": "webdatset", "out": project / "x1"},
            "there is no export format 'webdatset'; did you mean 'webdataset'",
        ),
        ({"to": "csv", "out": project / "run"}, "exists and is not an empty folder"),
        ({"to": "csv", "out": project / "x2", "bucket": "1x1-96p-17f"}, "no clip is in a bucket"),
        ({"to": "csv", "out": project / "x3", "where": "brightness > 999"}, "no clip of .* matches"),
    ):
        with pytest.raises(UsageError, match=message):
            export(root, **arguments)
    assert rushes("export", "nowhere", "--to", "csv", "--out", "x4", cwd=project).code == 2


def test_card(project: Path, rows: pd.DataFrame, rushes: Rushes) -> None:
    done = rushes("card", "run", cwd=project)
    assert done.code == 0, done.err
    card = Path(done.out.strip()).read_text()
    assert card.startswith("---\nlicense: cc-by-4.0\n")
    for text in (
        "| cc-by-4.0 | 3 |",
        "## Selection",
        f"{len(rows)} video clips",
        "`tests.stages.Brightness`",
        "4x3-96p-49f",
    ):
        assert text in card
    datasets = pytest.importorskip("datasets")
    found = datasets.load_dataset(str(project / "run" / "shards"), split="train", cache_dir=str(project / "cache"))
    assert len(found) == len(rows)


def test_size_of_a_bucket() -> None:
    assert Bucket.named("16x9-480p-81f").size_px == (854, 480)
    assert Bucket.named("9x16-480p-81f").size_px == (480, 854)
    with pytest.raises(ValueError, match="is not the name of a bucket"):
        Bucket.named("wide")
