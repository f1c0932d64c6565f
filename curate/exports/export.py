"""Exports: the clips of a shards folder in the formats that other people's loaders read.

| format | what is written |
|---|---|
| webdataset | `000000.tar` ...: `ID.mp4`, `ID.txt` (caption), `ID.json` (every other column) |
| hf | `data/train-00000-of-00001.parquet` and on, of 500 MB, with a `Video` column: `datasets.load_dataset(folder)` |
| diffusers-folder | `train/ID.mp4`, `train/metadata.jsonl` (`file_name`, `text`): `load_dataset("videofolder")`, diffusers' scripts |
| zeroscope-json | `videos/ID.mp4`, `dataset.json`: a prompt per frame index, as ExponentialML's Text-To-Video-Finetuning reads |
| finetrainers | `videos/ID.mp4`, `videos.txt`, `prompts.txt`, a line each, and `training.json` |
| diffusion-pipe | `videos/ID.mp4`, `videos/ID.txt`, and `dataset.toml` with the sizes and numbers of frames of the buckets |
| csv | `videos/ID.mp4` and `clips.csv`: `path`, `caption`, every column that is no list; text like a formula gets an apostrophe in front |

Beside them lies `export.json`: what was exported, from which shards, under which condition.
"""

import csv
import io
import json
import math
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.config.buckets import Bucket
from curate.errors import UsageError, nearest, plain_name
from curate.run.data import ROW_GROUP_ROWS
from curate.run.shard_index import check_format
from curate.tables import store
from curate.tables.where import parse

DTYPES = {
    "string": "string",
    "bool": "bool",
    "int32": "int32",
    "int64": "int64",
    "float": "float32",
    "double": "float64",
}
"""Types of columns that are one value, as Arrow and as `datasets` call them."""
CaptionOf = Callable[[Mapping[str, Any]], str]


@dataclass(frozen=True)
class Item:
    """One clip on its way out: `row` holds its columns but for the mp4."""

    clip_id: str
    mp4: bytes
    caption: str
    row: Mapping[str, Any]


def export(
    root: str,
    to: str,
    out: Path,
    *,
    caption_of: CaptionOf = lambda row: row.get("caption") or "",
    where: str | None = None,
    bucket: str | None = None,
) -> int:
    """Writes clips of a shards folder into a folder of another format.

    Args:
        root: The shards, a directory with index.json.
        to: One of FORMATS.
        out: A folder that is not there yet, or empty.
        caption_of: The caption of a row.
        where: Which clips (curate/tables/where.py).
        bucket: Clips of this bucket alone, such as `16x9-480p-81f`.

    Returns how many clips were written.

    Raises UsageError for a format that is none, a folder that holds something, shards that are none, a condition that is none, or when no clip
    is left.
    """
    if to not in FORMATS:
        raise UsageError(f"there is no export format '{to}'{nearest(to, FORMATS)}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is there already; give an empty folder")
    index = store.get_json(store.join(root, "index.json"))
    if index is None:
        raise UsageError(f"{root} has no index.json: it holds no finished shards")
    check_format(index, root)
    if bucket is not None and bucket not in index["buckets"]:
        raise UsageError(
            f"no clip is in a bucket '{bucket}'{nearest(bucket, [name for name in index['buckets'] if name])}"
        )
    out.mkdir(parents=True, exist_ok=True)
    kept = _Counted(_items(root, index, caption_of, where, bucket))
    FORMATS[to](kept, out, index)
    if not kept.n:
        raise UsageError("no clip fits, so there is nothing to export")
    about = {
        "format": to,
        "clips": kept.n,
        "shards": {"path": root, "version": index["version"], "plan": index["plan"]},
        "where": where,
        "bucket": bucket,
    }
    (out / "export.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return kept.n


class _Counted:
    """Counts what goes by."""

    def __init__(self, items: Iterator[Item]) -> None:
        self.items, self.n = items, 0

    def __iter__(self) -> Iterator[Item]:
        for item in self.items:
            self.n += 1
            yield item


def _items(
    root: str, index: Mapping[str, Any], caption_of: CaptionOf, where: str | None, bucket: str | None
) -> Iterator[Item]:
    """The clips in the order of the shards. Rows that do not fit are left out before their mp4 is read."""
    for shard in index["shards"]:
        with store.open_arrow(store.join(root, plain_name(shard["file"]))) as handle:
            file = pq.ParquetFile(handle)
            columns = [name for name in file.schema_arrow.names if name != "mp4"]
            chosen = parse(where, {field.name: field.type for field in file.schema_arrow}) if where else None
            for group in range(file.num_row_groups):
                rows = file.read_row_group(group, columns=columns).append_column(
                    "_at", pa.array(range(_rows(file, group)))
                )
                if chosen is not None:
                    rows = rows.filter(chosen.expression)
                if bucket is not None:
                    rows = rows.filter(pc.equal(rows.column("bucket"), bucket))
                if not len(rows):
                    continue
                mp4s = file.read_row_group(group, columns=["mp4"]).column("mp4")
                for row in rows.to_pylist():
                    mp4 = mp4s[row.pop("_at")].as_py()
                    yield Item(plain_name(row["clip_id"]), mp4, " ".join(caption_of(row).split()), row)


def _rows(file: pq.ParquetFile, group: int) -> int:
    return int(file.metadata.row_group(group).num_rows)


# -- the formats


def webdataset(items: Iterable[Item], out: Path, index: Mapping[str, Any], tar_bytes: int = 2**28) -> None:
    """Tar files of about 256 MiB; members carry no times or owners, so the same clips give the same bytes."""
    number, tar = 0, None
    for item in items:
        if tar is None or tar.offset > tar_bytes:
            if tar is not None:
                tar.close()
            tar = tarfile.open(out / f"{number:06d}.tar", "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
            number += 1
        told = json.dumps(_plain(item.row), ensure_ascii=False)
        for name, data in (("mp4", item.mp4), ("txt", item.caption.encode()), ("json", told.encode())):
            member = tarfile.TarInfo(f"{item.clip_id}.{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    if tar is not None:
        tar.close()


def hf(items: Iterable[Item], out: Path, index: Mapping[str, Any], file_bytes: int = 500 * 10**6) -> None:
    """Parquet with the features that `datasets` reads from it: a `Video`, the caption as `text`, and every column that is no list."""
    folder = out / "data"
    folder.mkdir()
    writer: pq.ParquetWriter | None = None
    written = n_bytes = 0
    for rows in _batches(items, ROW_GROUP_ROWS):
        made = [
            {"video": {"bytes": i.mp4, "path": f"{i.clip_id}.mp4"}, "text": i.caption, **_scalars(i.row, index)}
            for i in rows
        ]
        if writer is None or n_bytes > file_bytes:
            if writer is not None:
                writer.close()
            schema = _hf_schema([name for name in made[0] if name in index["columns"]], index)
            writer = pq.ParquetWriter(folder / f"{written:05d}.parquet", schema, compression="zstd")
            written, n_bytes = written + 1, 0
        writer.write_table(pa.Table.from_pylist(made, schema=writer.schema))
        n_bytes += sum(len(i.mp4) for i in rows)
    if writer is not None:
        writer.close()
    for n in range(written):  # the names tell how many there are, which is known now
        (folder / f"{n:05d}.parquet").rename(folder / f"train-{n:05d}-of-{written:05d}.parquet")


def _hf_schema(names: Sequence[str], index: Mapping[str, Any]) -> pa.Schema:
    """Arrow's schema of these columns behind the video and its text, and in its metadata what `datasets` calls features."""
    kinds = {name: index["columns"][name] for name in names}
    video = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema({"video": video, "text": pa.string(), **{n: pa.type_for_alias(k) for n, k in kinds.items()}})
    features = {"video": {"_type": "Video"}, "text": {"dtype": "string", "_type": "Value"}}
    features |= {name: {"dtype": DTYPES[kind], "_type": "Value"} for name, kind in kinds.items()}
    return schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def diffusers_folder(items: Iterable[Item], out: Path, index: Mapping[str, Any]) -> None:
    """One folder with the videos and a line of JSON for each."""
    folder = out / "train"
    folder.mkdir()
    with (folder / "metadata.jsonl").open("w", encoding="utf-8") as lines:
        for item in items:
            (folder / f"{item.clip_id}.mp4").write_bytes(item.mp4)
            told = {"file_name": f"{item.clip_id}.mp4", "text": item.caption, **_plain(_scalars(item.row, index))}
            lines.write(json.dumps(told, ensure_ascii=False) + "\n")


def zeroscope_json(items: Iterable[Item], out: Path, index: Mapping[str, Any]) -> None:
    """Prompts at frame indices: a captioner's tagged frames where it has any, else the caption at the first frame."""
    data = []
    for item in _with_videos(items, out):
        tagged = next((v for name, v in item.row.items() if name.startswith("tagged_frames") and v), None)
        prompts = tagged or [{"frame_index": 0, "prompt": item.caption}]
        path = f"videos/{item.clip_id}.mp4"
        data.append({"video_path": path, "num_frames": item.row["n_frames"], "data": list(prompts)})
    (out / "dataset.json").write_text(
        json.dumps({"name": out.name, "data": data}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def finetrainers(items: Iterable[Item], out: Path, index: Mapping[str, Any]) -> None:
    """Two files of lines in the same order, and the entry for `--dataset_config`."""
    names, prompts, buckets = [], [], set()
    for item in _with_videos(items, out):
        names.append(f"videos/{item.clip_id}.mp4\n")
        prompts.append(item.caption + "\n")
        buckets.add(item.row["bucket"])
    (out / "videos.txt").write_text("".join(names), encoding="utf-8")
    (out / "prompts.txt").write_text("".join(prompts), encoding="utf-8")
    sizes = sorted([b.frames, b.size_px[1], b.size_px[0]] for b in map(Bucket.named, filter(None, buckets)))
    entry = {"data_root": str(out), "dataset_type": "video", "video_resolution_buckets": sizes}
    (out / "training.json").write_text(json.dumps({"datasets": [entry]}, indent=1) + "\n", encoding="utf-8")


def diffusion_pipe(items: Iterable[Item], out: Path, index: Mapping[str, Any]) -> None:
    """Pairs of mp4 and txt, and the dataset file: sizes as side of a square of the same area, numbers of frames, aspect ratios."""
    buckets = set()
    for item in _with_videos(items, out):
        (out / "videos" / f"{item.clip_id}.txt").write_text(item.caption, encoding="utf-8")
        buckets.add(item.row["bucket"])
    found = [Bucket.named(name) for name in buckets if name]
    sides = sorted({round(math.sqrt(b.size_px[0] * b.size_px[1]) / 16) * 16 for b in found}) or [256]
    frames = sorted({1, *(b.frames for b in found)})
    aspects = sorted({round(b.aspect[0] / b.aspect[1], 3) for b in found}) or [1.0]
    text = f"""\
# Written by `rushes export --to diffusion-pipe`.
resolutions = {sides}
frame_buckets = {frames}
enable_ar_bucket = true
ar_buckets = {aspects}

[[directory]]
path = {json.dumps(str((out / "videos").absolute()))}
num_repeats = 1
"""
    (out / "dataset.toml").write_text(text, encoding="utf-8")


def as_csv(items: Iterable[Item], out: Path, index: Mapping[str, Any]) -> None:
    """A table for everything else. Text that a spreadsheet would run as a formula begins with an apostrophe, see `inert`."""
    writer = None
    with (out / "clips.csv").open("w", encoding="utf-8", newline="") as file:
        for item in _with_videos(items, out):
            row = {"path": f"videos/{item.clip_id}.mp4", **_scalars(item.row, index), "caption": item.caption}
            row = {name: inert(value) for name, value in row.items()}
            if writer is None:
                writer = csv.DictWriter(file, list(row))
                writer.writeheader()
            writer.writerow(row)


FORMATS: dict[str, Callable[[Iterable[Item], Path, Mapping[str, Any]], None]] = {
    "webdataset": webdataset,
    "hf": hf,
    "diffusers-folder": diffusers_folder,
    "zeroscope-json": zeroscope_json,
    "finetrainers": finetrainers,
    "diffusion-pipe": diffusion_pipe,
    "csv": as_csv,
}


FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a formula begins, to a spreadsheet (OWASP, "CSV Injection")."""


def inert(value: Any) -> Any:
    """Text with an apostrophe in front where it begins like a formula: captions and file names are a stranger's. Numbers stay as they are."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def _with_videos(items: Iterable[Item], out: Path) -> Iterator[Item]:
    """Passes the clips on, each when its mp4 lies in `videos/`."""
    (out / "videos").mkdir()
    for item in items:
        (out / "videos" / f"{item.clip_id}.mp4").write_bytes(item.mp4)
        yield item


def _batches(items: Iterable[Item], n: int) -> Iterator[list[Item]]:
    batch: list[Item] = []
    for item in items:
        batch.append(item)
        if len(batch) == n:
            yield batch
            batch = []
    if batch:
        yield batch


def _scalars(row: Mapping[str, Any], index: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that are no lists, structs or bytes."""
    return {name: row[name] for name, kind in index["columns"].items() if kind in DTYPES and name in row}


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """For JSON, which knows neither bytes nor numbers that are none."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
        if not isinstance(value, bytes)
    }
