"""The dataset card: Markdown with Hugging Face's front matter. It lists the sources, the stages with their weights, and the selection."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from curate.dataset import view
from curate.errors import UsageError
from curate.run.data import RunData
from curate.run.shard_index import check_format
from curate.stages import stage
from curate.tables import store

LICENCE = ("license", "licence")
EXAMPLES, SOURCES = 8, 20
SIZES = [
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
]
"""Hugging Face's size categories: (exclusive upper bound of rows, name)."""


def write(run: RunData) -> str:
    """Writes `README.md` beside the newest shards and returns its path. Raises UsageError when the run has no finished shards."""
    index = run.index()
    if index is None:
        raise UsageError(f"{run.root} has no finished shards; finish the run first:  rushes run")
    check_format(index, run.shards_root())
    where = store.join(run.shards_root(), "README.md")
    store.put(where, text(run, index).encode())
    return where


def text(run: RunData, index: Mapping[str, Any]) -> str:
    """The card's Markdown."""
    wide = run.wide()
    left_out = {item["clip_id"] for item in index["left_out"]}
    kept = wide[wide["clip_id"].isin(set(run.selection().clip_ids) - left_out)]
    licences = _licences(run)
    parts = [
        _front(licences, index),
        f"# {run.root.rstrip('/').rsplit('/', 1)[-1]}",
        f"{index['clips']} video clips, {_length(index['seconds'])}, made with rushes: raw footage cut at scene boundaries, measured, captioned "
        "and selected. Every clip's first and last frame were compared with the scan's.",
        "## Size",
        _table(
            ["", "clips", "mean length", "total", "mean frames", "clips per source"],
            [_svd("before", wide), _svd("after", kept)],
        ),
        "(The columns of Stable Video Diffusion's table 1.)",
        "## Sources",
        _sources(run, kept, licences),
        "## Selection",
        _funnel(run),
        "## Measures and captions",
        _stages(run, index),
        "## Distributions of the kept clips",
        _distributions(run, kept),
        "## Buckets",
        _table(["bucket", "clips"], [[name or "none", str(of["clips"])] for name, of in index["buckets"].items()]),
        "## Examples",
        _examples(kept),
        "## How to read it",
        'Parquet with row groups of 16 rows; `mp4` holds the bytes of each clip: `datasets.load_dataset("parquet", data_files="*.parquet")`. '
        f"Version {index['version']}, schema {index['schema_version']}. sha256 of every file, pipeline and packages are in `index.json`."
        + (f" Code: {index['code']}." if index["code"] else ""),
    ]
    return "\n\n".join(parts) + "\n"


def _front(licences: Mapping[str, int], index: Mapping[str, Any]) -> str:
    """Hugging Face's front matter. A single licence is named; several are `other`; without any it is `unknown`."""
    known = [name for name in licences if name]
    size = next((name for below, name in SIZES if index["clips"] < below), "n>10M")
    licence = (
        known[0].lower()
        if len(licences) == 1 and known and re.fullmatch(r"[A-Za-z0-9.-]+", known[0])
        else "other"
        if known
        else "unknown"
    )
    return f"""---
license: {licence}
task_categories:
- text-to-video
tags:
- video
- rushes
size_categories:
- {size}
configs:
- config_name: default
  data_files: "shard-*.parquet"
---"""


def _licences(run: RunData) -> dict[str, int]:
    """The number of sources with each licence in the manifests; '' is no licence."""
    found: dict[str, int] = {}
    for source in run.sources_table.read(["manifest", "error"]).to_pylist():
        if source["error"] is None:
            name = _licence(source["manifest"])
            found[name] = found.get(name, 0) + 1
    return found


def _licence(manifest: str | None) -> str:
    columns = {str(key).lower(): value for key, value in json.loads(manifest or "{}").items()}
    return next((str(columns[key]) for key in LICENCE if columns.get(key)), "")


def _sources(run: RunData, kept: pd.DataFrame, licences: Mapping[str, int]) -> str:
    sources = run.sources()
    good = sources[sources["error"].isna()]
    licence_table = _table(
        ["licence", "sources"], [[name or "not in a manifest", str(n)] for name, n in sorted(licences.items())]
    )
    per = kept.groupby("uri")["duration_s"].agg(["size", "sum"]).sort_values("sum", ascending=False)
    rows = [
        [str(uri).rsplit("/", 1)[-1], str(int(of["size"])), _length(of["sum"])]
        for uri, of in per.head(SOURCES).iterrows()
    ]
    more = f"\n\n... and {len(per) - SOURCES} more" if len(per) > SOURCES else ""
    head = f"{len(sources)} files, {int(sources['error'].notna().sum())} unreadable, {int(good['duplicate_of'].notna().sum())} copies of others."
    return f"{head}\n\n{licence_table}\n\n{_table(['file', 'clips kept', 'length'], rows)}{more}"


def _funnel(run: RunData) -> str:
    frame = view.funnel(run)
    rows = []
    for rule, of in frame.iterrows():
        alone = "" if pd.isna(of["drops_alone_clips"]) else f"{of['drops_alone_clips']:.0f}"
        rows.append([str(rule), alone, f"{of['left_clips']:.0f}", _length(of["left_s"])])
    thresholds = [f"{name} = {value:.4g}" for name, value in frame.attrs["thresholds"].items()]
    limits = f"\n\nIn this run {', '.join(thresholds)}." if thresholds else ""
    return _table(["rule", "drops alone", "clips left", "length left"], rows) + limits


def _stages(run: RunData, index: Mapping[str, Any]) -> str:
    rows = []
    for step in run.steps:
        claim = run.claims[step.spec.name]
        weights = [str(claim["options"].get(name, "")) for name in stage.weights_of(step.stage)]
        short = ", ".join(w[:19] + "..." if w.startswith("sha256:") else w for w in weights)
        columns = ", ".join(f"`{name}`" for name in step.columns)
        rows.append([f"`{step.spec.use}`", f"{claim['version']}", columns, short])
    return _table(["stage", "version", "columns", "weights"], rows)


def _distributions(run: RunData, kept: pd.DataFrame) -> str:
    names = ["duration_s", "fps", "width_px", "height_px"]
    names += [name for step in run.steps if step.kind in ("measure", "review") for name in step.columns]
    rows = []
    for name in names:
        if name not in kept or not pd.api.types.is_numeric_dtype(kept[name]) or pd.api.types.is_bool_dtype(kept[name]):
            continue
        values = kept[name].to_numpy(dtype=float, na_value=np.nan)
        values = values[np.isfinite(values)]
        if len(values):
            low, quarter, middle, three, high = np.percentile(values, [0, 25, 50, 75, 100])
            rows.append([f"`{name}`", *(f"{v:.4g}" for v in (low, quarter, middle, three, high)), str(len(values))])
    return _table(["column", "minimum", "25 %", "median", "75 %", "maximum", "clips"], rows)


def _examples(kept: pd.DataFrame) -> str:
    step = max(1, len(kept) // EXAMPLES)
    rows = []
    for row in kept.iloc[::step].head(EXAMPLES).to_dict("records"):
        place = f"{row['uri'].rsplit('/', 1)[-1]} {row['start_s']:.2f}-{row['end_s']:.2f} s"
        rows.append([f"`{row['clip_id']}`", place, str(row.get("caption") or "")])
    return _table(["clip", "where", "caption"], rows)


def _svd(name: str, clips: pd.DataFrame) -> list[str]:
    """One row of SVD's table 1."""
    if clips.empty:
        return [name, "0", "", "", "", ""]
    per_source = len(clips) / clips["source_id"].nunique()
    mean_s, total_s = clips["duration_s"].mean(), clips["duration_s"].sum()
    return [
        name,
        str(len(clips)),
        f"{mean_s:.2f} s",
        _length(total_s),
        f"{clips['n_frames'].mean():.0f}",
        f"{per_source:.1f}",
    ]


def _length(seconds: float) -> str:
    if seconds < 600:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 36_000 else f"{seconds / 3600:.1f} h"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines
    )
