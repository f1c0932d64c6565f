"""Writes one shard: clips are cut from their sources (each is read once, in order) or copied from the parent version."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.clips.write import ClipOptions, Cut, CutError, Span, cut
from curate.cluster.work import Receipt
from curate.config.buckets import aspect_of, bucket_of
from curate.config.config import BucketsConfig
from curate.run.data import ROW_GROUP_ROWS
from curate.sandbox.job import Sandboxed
from curate.sandbox.sandbox import SandboxError
from curate.scan.sources import identify
from curate.stages.stage import one_sentence
from curate.tables import store
from curate.tables.table import encode
from curate.video.letterbox import Box, common_box

CROP = ("crop_x_px", "crop_y_px", "crop_width_px", "crop_height_px")
STORED = ("start_s", "end_s", "duration_s", "fps", "n_frames", "width_px", "height_px", *CROP)
"""Columns that describe the span in the tables, and the stored mp4 in a shard."""
ADDED = [
    pa.field("bucket", pa.string()),
    pa.field("mode", pa.string()),
    pa.field("lost_frames", pa.int32()),
    pa.field("has_audio", pa.bool_()),
    pa.field("mp4_bytes", pa.int64()),
    pa.field("mp4", pa.large_binary()),
]
"""`mode`: exact or copy. `lost_frames`: frames of the span that a copy lost. `bucket`: null if the clip fits no bucket."""
WALL_FLOOR_S, WALL_FACTOR = 120.0, 30.0
"""Time limit for one source: this many seconds plus a factor times the seconds covered. Our choice."""


@dataclass(frozen=True)
class ShardUnit:
    """One shard: its name, the rows of its clips in order, and `(file, row)` of clips that an earlier version holds with the same pixels."""

    shard: str
    rows: Sequence[Mapping[str, Any]]
    written: Mapping[str, tuple[str, int]] = field(default_factory=dict)


@dataclass
class ShardJob(Sandboxed):
    """Writes shards, one per unit."""

    root: str
    schema: pa.Schema
    options: ClipOptions
    buckets: BucketsConfig
    digest: str

    def work(self, unit: ShardUnit) -> Receipt:
        """Writes the shard, then its receipt."""
        made = taken_over(unit.written)
        to_cut = [row for row in unit.rows if row["clip_id"] not in made]
        for _, group in groupby(to_cut, key=lambda row: row["source_id"]):
            made |= self._cut(list(group))
        written: list[dict[str, Any]] = []
        left_out: list[dict[str, Any]] = []
        for row in unit.rows:
            clip = made[row["clip_id"]]
            if isinstance(clip, str):
                left_out.append({"clip_id": row["clip_id"], "seconds": row["end_s"] - row["start_s"], "error": clip})
            else:
                written.append({**row, **clip, "bucket": self._bucket(clip)})
        counts: dict[str, int] = {}
        for row in written:
            counts[row["bucket"] or ""] = counts.get(row["bucket"] or "", 0) + 1
        receipt: dict[str, Any] = {
            "file": f"{unit.shard}.parquet",
            "clips": len(written),
            "seconds": sum(row["duration_s"] for row in written),
            "bytes": 0,
            "sha256": None,
            "buckets": counts,
            "left_out": left_out,
        }
        if written:
            data = encode(pa.Table.from_pylist(written, schema=self.schema), ROW_GROUP_ROWS)
            store.put(store.join(self.root, receipt["file"]), data)
            receipt |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        store.put_json(store.join(self.root, f"{unit.shard}.json"), receipt)
        return Receipt(len(unit.rows), len(left_out))

    def _bucket(self, clip: Mapping[str, Any]) -> str | None:
        aspects = [aspect_of(text) for text in self.buckets.aspects]
        sizes = (clip["width_px"], clip["height_px"], clip["n_frames"])
        found = bucket_of(*sizes, aspects, self.buckets.short_sides_px, self.buckets.frames)
        return None if found is None else found.name

    def _cut(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any] | str]:
        """For each clip of one source its columns, or the error."""
        uri, source_id = rows[0]["uri"], rows[0]["source_id"]
        spans = [span_of(row) for row in rows]
        try:
            now = identify(uri, self.digest)["source_id"]
            if now != source_id:
                raise ValueError(f"{uri} has changed since it was scanned (its content was {source_id}, now {now})")
            wall_s = WALL_FLOOR_S + WALL_FACTOR * (spans[-1].end_s - spans[0].start_s)
            made = self._sandbox.call(cut_all, uri, spans, self.options, wall_s=wall_s, online=not store.is_local(uri))
        except SandboxError as error:
            return {span.clip_id: str(error) for span in spans}
        except (OSError, ValueError) as error:
            return {span.clip_id: one_sentence(error) for span in spans}
        clips = {clip.clip_id: clip for clip in made}
        return {row["clip_id"]: stored(row, clips[row["clip_id"]]) for row in rows}


def span_of(row: Mapping[str, Any]) -> Span:
    """The span to cut, from a row of the clips table."""
    box = Box(*(row[name] for name in CROP))
    return Span(row["clip_id"], row["start_s"], row["end_s"], row["first_hash"], row["last_hash"], box)


def stored(row: Mapping[str, Any], clip: Cut | CutError) -> dict[str, Any] | str:
    """The columns that describe a written clip, or the error."""
    if isinstance(clip, CutError):
        return clip.error
    facts = {name: value for name, value in asdict(clip).items() if name in (*STORED, "mode", "has_audio", "mp4")}
    lost = max(0, row["n_frames"] - clip.n_frames) if clip.mode == "copy" else 0
    return {**facts, **_crop(row, clip), "lost_frames": lost, "mp4_bytes": len(clip.mp4)}


def _crop(row: Mapping[str, Any], clip: Cut) -> dict[str, int]:
    """The box without black bars in the pixels of the stored mp4."""
    stored_px = (clip.width_px, clip.height_px)
    if clip.shows is not None:  # they were cut off
        return dict(zip(CROP, (0, 0, *stored_px), strict=True))
    found = Box(*(row[name] for name in CROP))
    return dict(zip(CROP, common_box([found], (row["width_px"], row["height_px"]), stored_px), strict=True))


def taken_over(written: Mapping[str, Sequence[Any]]) -> dict[str, dict[str, Any] | str]:
    """The columns of clips in other shards. `written` maps a clip_id to (file, row)."""
    found: dict[str, dict[str, Any] | str] = {}
    by_file: dict[str, dict[int, str]] = {}
    for clip_id, (path, row) in written.items():
        by_file.setdefault(path, {})[row] = clip_id
    names = [*STORED, *(field.name for field in ADDED if field.name != "bucket")]
    for path, wanted in by_file.items():
        with store.open_arrow(path) as file:
            parquet = pq.ParquetFile(file)
            first = 0
            for group in range(parquet.num_row_groups):
                n = parquet.metadata.row_group(group).num_rows
                if any(first <= row < first + n for row in wanted):
                    rows = parquet.read_row_group(group, columns=names).to_pylist()
                    found |= {wanted[first + i]: row for i, row in enumerate(rows) if first + i in wanted}
                first += n
    return found


def cut_all(uri: str, spans: Sequence[Span], options: ClipOptions) -> list[Cut | CutError]:
    """All clips of one source; the function that runs in the sandbox."""
    return list(cut(uri, spans, options))
