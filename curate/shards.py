"""Shards: the kept clips as mp4 bytes with every score and caption, in Parquet files that any loader reads.

    shards/plan.json            which clips go into which shard, and what it was worked out from
    shards/shard-00000.parquet  row groups of at most 16 rows; mp4 uncompressed, other columns zstd
    shards/shard-00000.json     counts, sha256 and what could not be written; put down after the shard: presence means done
    shards/index.json           written last: the sum of it, with schema version, resolved configuration and package versions

In a shard `start_s`, `end_s`, `duration_s`, `fps`, `n_frames`, `width_px`, `height_px` and `crop_*_px` describe the stored mp4.
When the selection grows, shards are added; when it shrinks or a table it is made from changes, the shards concerned are made anew.
"""

import hashlib
import importlib.metadata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pandas as pd
import pyarrow as pa

from curate import runner, store
from curate.clips import ClipOptions, Cut, CutError, Span, cut
from curate.letterbox import Box, common_box
from curate.progress import Progress
from curate.run import ROW_GROUP_ROWS, Run, arrow_types, plain_rows
from curate.runner import Resources
from curate.sandbox import Sandbox, SandboxError
from curate.select import resolve
from curate.sources import identify
from curate.stage import one_sentence
from curate.table import digest, encode

SCHEMA_VERSION = 2
CROP = ("crop_x_px", "crop_y_px", "crop_width_px", "crop_height_px")
EVIDENCE = {f"{end}_{name}" for end in ("start", "end") for name in ("kind", "confidence", "detector")}
"""Of use for choosing clips, not for reading them."""
LONGEST_VECTOR = 16
"""Longer vectors (embeddings) stay in their tables and in the index."""
PACKAGES = [
    "rushes",
    "av",
    "lancedb",
    "numpy",
    "opencv-python-headless",
    "pandas",
    "pyarrow",
    "rapidocr",
    "ray",
    "scenedetect-headless",
    "torch",
]
WALL_FLOOR_S, WALL_FACTOR = 120.0, 30.0
"""Encoding one source may take this long, plus this many times the seconds it covers. Ours."""


def write(run: Run, clip_ids: Sequence[str], progress: Progress) -> bool:
    """Brings the shards up to the selection. Returns whether anything changed.

    Args:
        run: the run.
        clip_ids: the kept clips.
        progress: where it is told how far things are.

    Raises RunError when the shards cannot be written.
    """
    wide = run.wide(columns=set(schema(run).names))
    wide = wide[wide["clip_id"].isin(set(clip_ids))].drop(columns=["error", *EVIDENCE])
    plan = _plan(run, wide.sort_values(["source_id", "start_s"], ignore_index=True))
    pending = [name for name in plan["shards"] if store.get_json(_receipt_path(run, name)) is None]
    finished = run.index()
    captions = _captions(run)
    if finished is not None and not pending and finished["plan"] == digest(plan):
        if finished.get("captions") == captions:
            return False
        store.put_json(run.path("shards", "index.json"), {**finished, "captions": captions})
        return True
    store.remove(run.path("shards", "index.json"))
    store.sweep(run.path("shards"))
    rows = {row["clip_id"]: row for row in plain_rows(wide)}
    units = [{"shard": name, "rows": [rows[clip_id] for clip_id in plan["shards"][name]]} for name in pending]
    options = run.pipeline.config.shards
    job = ShardJob(
        run.path("shards"),
        schema(run),
        ClipOptions(mode=options.mode, short_side_px=options.short_side_px, fps=options.fps, crf=options.crf),
        run.pipeline.config.digest,
        run.pipeline.config.scan.memory_mb,
    )
    total = sum(len(clip_ids) for clip_ids in plan["shards"].values())
    with progress.step("shards", total, total - sum(len(unit["rows"]) for unit in units)) as step:
        for receipt in runner.run_units(job, units, Resources(options.workers)):
            step.advance(receipt)
    _write_index(run, plan, captions)
    return True


def schema(run: Run) -> pa.Schema:
    """The columns of a shard: where the clip comes from, the stored mp4, captions and every measure."""
    types = arrow_types(run)
    names = [
        name
        for name in types
        if name not in ("error", "skip", "window", "first_frame", "thumbs", "thumb_times_s", *EVIDENCE)
    ]
    names = [name for name in names if not any(step.kind == "embed" and name in step.columns for step in run.steps)]
    fields = [pa.field(name, types[name]) for name in names if not _is_for_stages(types[name])]
    return pa.schema([*fields, pa.field("mode", pa.string()), pa.field("mp4", pa.large_binary())])


def _is_for_stages(kind: pa.DataType) -> bool:
    """Whether a column holds what other stages and the index work with: packed bytes, long vectors."""
    return bool(pa.types.is_binary(kind) or (pa.types.is_fixed_size_list(kind) and kind.list_size > LONGEST_VECTOR))


def forget_left_out(run: Run) -> None:
    """Removes the shards with clips that could not be written, so that they are tried again."""
    for name in store.names(run.path("shards"), ".json"):
        saved = store.get_json(run.path("shards", name))
        if name.startswith("shard-") and saved and saved["left_out"]:
            _remove_shard(run, name.removesuffix(".json"))


def _plan(run: Run, wide: pd.DataFrame) -> dict[str, Any]:
    """The plan on disk when it still fits, else a new one that keeps every shard all of whose clips are still selected."""
    options = run.pipeline.config.shards
    embeddings = {step.spec.name for step in run.steps if step.kind == "embed"}  # in the index, not in the shards
    claims = {name: claim for name, claim in run.claims.items() if name not in embeddings}
    made_from = digest([claims, options.model_dump(exclude={"workers", "caption", "suffix"}), SCHEMA_VERSION])
    chosen = wide["clip_id"].tolist()
    old = store.get_json(run.path("shards", "plan.json")) or {"made_from": None, "shards": {}}
    keep: dict[str, list[str]] = {}
    if old["made_from"] == made_from:
        keep = {name: ids for name, ids in old["shards"].items() if set(ids) <= set(chosen)}
        if keep == old["shards"] and sum(map(len, keep.values())) == len(chosen):
            return dict(old)
    gone = {
        name.rsplit(".", 1)[0]
        for name in [*store.names(run.path("shards"), ".json"), *store.names(run.path("shards"), ".parquet")]
    }
    for name in sorted(gone - set(keep) - {"plan", "index"}):
        _remove_shard(run, name)
    there = {clip_id for ids in keep.values() for clip_id in ids}
    new = wide[~wide["clip_id"].isin(there)]
    number = max((int(name.removeprefix("shard-")) + 1 for name in keep), default=0)
    plan: dict[str, Any] = {"made_from": made_from, "shards": dict(keep)}
    for ids in _fill(new, _bytes_per_second(run), options.target_mb * 2**20):
        plan["shards"][f"shard-{number:05d}"] = ids
        number += 1
    store.remove(run.path("shards", "index.json"))
    store.put_json(run.path("shards", "plan.json"), plan)
    return plan


def _bytes_per_second(run: Run) -> Mapping[str, float]:
    sources = run.sources().drop_duplicates("source_id")
    rates = (sources["bytes"] / sources["duration_s"]).fillna(250_000.0)
    return dict(zip(sources["source_id"], rates, strict=True))


def _fill(wide: pd.DataFrame, rates: Mapping[str, float], target_bytes: float) -> Iterator[list[str]]:
    """Clips in order, cut into runs of about `target_bytes` by the bitrate of their sources."""
    shard: list[str] = []
    size = 0.0
    for clip_id, source_id, duration_s in zip(wide["clip_id"], wide["source_id"], wide["duration_s"], strict=True):
        estimate = rates.get(source_id, 0.0) * duration_s
        if shard and size + estimate > target_bytes:
            yield shard
            shard, size = [], 0.0
        shard.append(clip_id)
        size += estimate
    if shard:
        yield shard


def _receipt_path(run: Run, name: str) -> str:
    return run.path("shards", f"{name}.json")


def _remove_shard(run: Run, name: str) -> None:
    store.remove(run.path("shards", "index.json"))
    store.remove(run.path("shards", f"{name}.json"))
    store.remove(run.path("shards", f"{name}.parquet"))


def _captions(run: Run) -> dict[str, Any]:
    """How training makes its captions of the columns: the mix, and facts to add where rules hold (train_hooks/captions.py)."""
    options = run.pipeline.config.shards
    wide = run.wide(columns={column for rules in options.suffix.values() for column in rules})
    suffix = [
        {"add": text, "when": {column: resolve(wide, rule, column) for column, rule in rules.items()}}
        for text, rules in options.suffix.items()
    ]
    return {"mix": dict(options.caption), "suffix": suffix}


def _write_index(run: Run, plan: Mapping[str, Any], captions: Mapping[str, Any]) -> None:
    receipts = [store.get_json(_receipt_path(run, name)) for name in plan["shards"]]
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    listed = [{key: receipt[key] for key in ("file", "clips", "seconds", "bytes", "sha256")} for receipt in receipts]
    store.put_json(
        run.path("shards", "index.json"),
        {
            "schema_version": SCHEMA_VERSION,
            "clips": sum(receipt["clips"] for receipt in receipts),
            "seconds": sum(receipt["seconds"] for receipt in receipts),
            "bytes": sum(receipt["bytes"] for receipt in receipts),
            "shards": [shard for shard in listed if shard["clips"]],
            "left_out": [item for receipt in receipts for item in receipt["left_out"]],
            "columns": {field.name: str(field.type) for field in schema(run)},
            "captions": dict(captions),
            "config": dict(run.pipeline.resolved),
            "claims": run.claims,
            "versions": versions,
            "plan": digest(plan),
        },
    )


@dataclass
class ShardJob:
    """Units `{"shard": name, "rows": [...]}` become one shard each: every source in it is decoded once, in order."""

    root: str
    schema: pa.Schema
    options: ClipOptions
    digest: str
    memory_mb: int

    def setup(self) -> None:
        """Begins the sandbox."""
        self._sandbox = Sandbox(self.memory_mb)

    def close(self) -> None:
        """Ends the sandbox."""
        self._sandbox.close()

    def work(self, unit: dict[str, Any]) -> dict[str, Any]:
        """Writes the shard, then its receipt."""
        written: list[dict[str, Any]] = []
        left_out: list[dict[str, Any]] = []
        for _, group in groupby(unit["rows"], key=lambda row: row["source_id"]):
            rows = list(group)
            made = self._cut(rows)
            for row in rows:
                clip = made[row["clip_id"]]
                if isinstance(clip, Cut):
                    facts: dict[str, Any] = {
                        "fps": clip.fps,
                        "n_frames": clip.n_frames,
                        "width_px": clip.width_px,
                        "height_px": clip.height_px,
                    }
                    facts |= _crop(row, clip)
                    facts |= {
                        "start_s": clip.start_s,
                        "end_s": clip.end_s,
                        "duration_s": clip.duration_s,
                        "mode": clip.mode,
                    }
                    written.append({**row, **facts, "mp4": clip.mp4})
                else:
                    left_out.append(
                        {"clip_id": row["clip_id"], "seconds": row["end_s"] - row["start_s"], "error": clip.error}
                    )
        receipt: dict[str, Any] = {
            "file": f"{unit['shard']}.parquet",
            "clips": len(written),
            "bytes": 0,
            "sha256": None,
            "left_out": left_out,
        }
        receipt["seconds"] = sum(row["duration_s"] for row in written)
        if written:
            data = encode(pa.Table.from_pylist(written, schema=self.schema), ROW_GROUP_ROWS)
            store.put(store.join(self.root, receipt["file"]), data)
            receipt |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        store.put_json(store.join(self.root, f"{unit['shard']}.json"), receipt)
        return {"rows": len(unit["rows"]), "errors": len(left_out)}

    def _cut(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Cut | CutError]:
        uri, source_id = rows[0]["uri"], rows[0]["source_id"]
        spans = [Span(row["clip_id"], row["start_s"], row["end_s"]) for row in rows]
        try:
            now = identify(uri, self.digest)["source_id"]
            if now != source_id:
                raise ValueError(f"{uri} has changed since it was scanned (its content was {source_id}, now {now})")
            wall_s = WALL_FLOOR_S + WALL_FACTOR * (spans[-1].end_s - spans[0].start_s)
            made = self._sandbox.call(cut_all, uri, spans, self.options, wall_s=wall_s)
        except SandboxError as error:
            return {span.clip_id: CutError(span.clip_id, str(error)) for span in spans}
        except (OSError, ValueError) as error:
            return {span.clip_id: CutError(span.clip_id, one_sentence(error)) for span in spans}
        return {item.clip_id: item for item in made}


def _crop(row: Mapping[str, Any], clip: Cut) -> dict[str, int]:
    """The box without black bars in the pixels of the stored mp4."""
    found = Box(*(row[name] for name in CROP))
    seen_px, stored_px = (row["width_px"], row["height_px"]), (clip.width_px, clip.height_px)
    return dict(zip(CROP, common_box([found], seen_px, stored_px), strict=True))


def cut_all(uri: str, spans: Sequence[Span], options: ClipOptions) -> list[Cut | CutError]:
    """All clips of one source; the function that runs in the sandbox."""
    return list(cut(uri, spans, options))
