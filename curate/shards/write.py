"""Shards: the kept clips as mp4 bytes with every score and caption, in Parquet files that any loader reads.

    shards/plan.json            the clips of each shard, and versions (curate/shards/plan.py)
    shards/shard-00000.parquet  row groups of at most 16 rows; mp4 uncompressed, other columns zstd
    shards/shard-00000.json     the receipt: counts, sha256, clips that could not be written; written after the shard, so presence means done
    shards/index.json           written last: totals, schema, buckets, resolved configuration, versions and code

In a shard `start_s`, `end_s`, `duration_s`, `fps`, `n_frames`, `width_px`, `height_px` and `crop_*_px` describe the stored mp4.
"""

import importlib.metadata
import math
import subprocess
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.clips.records import ClipOptions
from curate.cluster.pool import Resources
from curate.config import buckets
from curate.errors import plain_name
from curate.progress.progress import Progress
from curate.run.data import RunData, arrow_types, plain_rows
from curate.run.select import Selection, resolve
from curate.run.shard_index import SCHEMA_VERSION, Plan
from curate.shards import plan as shard_plan
from curate.shards.job import ADDED, ShardJob, ShardUnit
from curate.tables import store

EVIDENCE = {f"{end}_{name}" for end in ("start", "end") for name in ("kind", "confidence", "detector")}
"""Columns for choosing clips that readers of shards do not need."""
INTERNAL = {"error", "skip", "window", "first_frame", "thumbs", "thumb_times_s", *EVIDENCE}
LONGEST_VECTOR = 16
"""Longer vectors (embeddings) are only in their tables and in the index."""
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


def write(run: RunData, selection: Selection, progress: Progress) -> bool:
    """Updates the shards to the selection and returns whether anything changed.

    Raises RunError when the shards cannot be written.
    """
    wide = run.wide(columns=set(schema(run).names))
    wide = wide[wide["clip_id"].isin(set(selection.clip_ids))].drop(columns=["error", *EVIDENCE])
    wide = wide.sort_values(["source_id", "start_s"], ignore_index=True)
    plan = shard_plan.bring_up(run, wide)
    root = run.shards_root()
    pending = [name for name in plan.shards if store.get_json(_receipt_path(root, name)) is None]
    before = run.index()
    described = _described(run, selection)
    if before is not None and not pending and before["plan"] == plan.digest:
        progress.seen("shards", before["clips"], before["clips"])
        if all(before.get(key) == value for key, value in described.items()):
            return False
        store.put_json(store.join(root, "index.json"), {**before, **described})
        return True
    store.sweep(root)
    rows = {row["clip_id"]: row for row in plain_rows(wide)}
    written = _written(run, plan, {clip_id for name in pending for clip_id in plan.shards[name]})
    units = [
        ShardUnit(
            name,
            [rows[clip_id] for clip_id in plan.shards[name]],
            {clip_id: written[clip_id] for clip_id in plan.shards[name] if clip_id in written},
        )
        for name in pending
    ]
    options, scan = run.pipeline.config.shards, run.pipeline.config.scan
    wanted = {name: getattr(options, name) for name in shard_plan.PIXELS}
    # A copy shorter than half of the minimum clip length is rejected. Our choice.
    clip_options = ClipOptions(**wanted, least_s=scan.min_clip_s / 2)
    job = ShardJob(scan.memory_mb, root, schema(run), clip_options, options.buckets, run.pipeline.config.digest)
    total = sum(map(len, plan.shards.values()))
    resources, n_pending = Resources(options.workers), sum(len(unit.rows) for unit in units)
    for _ in progress.run("shards", job, units, resources, total, total - n_pending):
        pass
    _write_index(run, plan, described)
    return True


def schema(run: RunData) -> pa.Schema:
    """The columns of a shard: origin of the clip, the stored mp4, captions and measures."""
    types = {name: kind for name, kind in arrow_types(run).items() if name not in INTERNAL}
    embedded = {name for step in run.steps if step.kind == "embed" for name in step.columns}
    fields = [pa.field(name, kind) for name, kind in types.items() if name not in embedded and not _is_for_stages(kind)]
    return pa.schema([*fields, *ADDED])


def _is_for_stages(kind: pa.DataType) -> bool:
    """Whether only stages and the index use a column: packed bytes, long vectors."""
    return bool(pa.types.is_binary(kind) or (pa.types.is_fixed_size_list(kind) and kind.list_size > LONGEST_VECTOR))


def _written(run: RunData, plan: Plan, wanted: Set[str]) -> dict[str, tuple[str, int]]:
    """The wanted clips that the parent version has with the same pixels: id to (file, row)."""
    parent = plan.parent and Plan.of(run.shards_root(plan.parent["version"]))
    if not parent or parent.pixels is None or parent.pixels != plan.pixels:
        return {}
    root = run.shards_root(parent.version)
    found = {}
    for shard in (store.get_json(store.join(root, "index.json")) or {"shards": []})["shards"]:
        path = store.join(root, plain_name(shard["file"]))
        with store.open_arrow(path) as file:
            ids = pq.ParquetFile(file).read(columns=["clip_id"]).column("clip_id").to_pylist()
        found.update({clip_id: (path, row) for row, clip_id in enumerate(ids) if clip_id in wanted})
    return found


def _receipt_path(root: str, name: str) -> str:
    return store.join(root, f"{name}.json")


def _described(run: RunData, selection: Selection) -> dict[str, Any]:
    """The keys of index.json on the selection (counts and drops) and on captions (the mix and the suffixes)."""
    options = run.pipeline.config.shards
    wide = run.wide(columns={column for rules in options.suffix.values() for column in rules})
    suffix = [
        {"add": text, "when": {column: resolve(wide, rule, column) for column, rule in rules.items()}}
        for text, rules in options.suffix.items()
    ]
    funnel = {**vars(selection), "drops": [vars(drop) for drop in selection.drops]}
    kept = len(funnel.pop("clip_ids"))
    del funnel["remarks"]  # for people
    return {
        "captions": {"mix": dict(options.caption), "suffix": suffix},
        "selection": {**funnel, "kept_clips": kept, "thresholds": _plain(selection.thresholds)},
    }


def _plain(thresholds: Mapping[str, Any]) -> dict[str, Any]:
    """Thresholds for JSON: NaN, the percentile of a column without values, becomes null."""
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value for name, value in thresholds.items()
    }


def _write_index(run: RunData, plan: Plan, described: Mapping[str, Any]) -> None:
    root = run.shards_root()
    receipts = [store.get_json(_receipt_path(root, name)) for name in plan.shards]
    listed = [
        {key: receipt[key] for key in ("file", "clips", "seconds", "bytes", "sha256", "buckets")}
        for receipt in receipts
        if receipt["clips"]
    ]
    store.put_json(
        store.join(root, "index.json"),
        {
            "schema_version": SCHEMA_VERSION,
            "version": plan.version,
            "parent": plan.parent,
            "clips": sum(shard["clips"] for shard in listed),
            "seconds": sum(shard["seconds"] for shard in listed),
            "bytes": sum(shard["bytes"] for shard in listed),
            "shards": listed,
            "buckets": buckets.totals(shard["buckets"] for shard in listed),
            "left_out": shard_plan.left_out(root, plan),
            "columns": {field.name: str(field.type) for field in schema(run)},
            **described,
            "config": dict(run.pipeline.resolved),
            "claims": run.claims,
            "versions": _versions(),
            "code": _commit(),
            "plan": plan.digest,
        },
    )


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _commit() -> str | None:
    """The commit of this code, with `-dirty` if files are changed; None outside a checkout."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
