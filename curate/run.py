"""A run directory, opened: its tables, the wide view over them, what is kept, and the account of every second. Reads only.

runs/demo/
    pipeline.json           the pipeline file as it was resolved
    sources/ clips/ measures/<name>/ captions/<name>/ embeddings/<name>/        tables (curate/table.py)
    shards/ index.lance/ report/                                                what is made from them
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from curate import config, scan, sources, stage, store, weights
from curate.config import Pipeline
from curate.errors import ConfigError, UsageError, nearest
from curate.ledger import Ledger, balance
from curate.select import Selection, select
from curate.stage import StageSpec
from curate.table import Table, digest
from curate.yaml_lines import Document

PIPELINE = "pipeline.json"
DIRECTORIES = {"measure": "measures", "caption": "captions", "embed": "embeddings"}
CLIP_FACTS = [
    "clip_id",
    "source_id",
    "uri",
    "start_s",
    "end_s",
    "duration_s",
    "fps",
    "n_frames",
    "width_px",
    "height_px",
    "start_kind",
    "end_kind",
]
"""Columns of the wide view before any measure."""
SPAN_COLUMNS = [name for name in scan.SCHEMA.names if name not in ("thumbs", "thumb_times_s")]
ROW_GROUP_ROWS = 16
"""Of tables and shards that carry pictures or video, so that a random read fetches little."""


@dataclass(frozen=True)
class Step:
    """One stage of the pipeline with its table and the tables it is made from."""

    kind: str
    spec: StageSpec
    stage: Any
    names: Mapping[str, str]
    table: Table
    made_from: tuple[str, ...]

    @property
    def columns(self) -> list[str]:
        """The table's columns besides clip_id and error."""
        return list(self.names.values())


class Run:
    """An opened run. `Run.open(path)` for a directory that exists; `Run(root, pipeline)` for one about to be made."""

    def __init__(self, root: str, pipeline: Pipeline) -> None:
        self.root = store.normalise(root)
        self.pipeline = pipeline
        self.sources_table = Table(self.path("sources"), sources.SCHEMA, key=("uri",))
        self.clips_table = Table(self.path("clips"), scan.SCHEMA, row_group_rows=ROW_GROUP_ROWS)

    @classmethod
    def open(cls, root: str | Path, overrides: tuple[str, ...] = ()) -> "Run":
        """Opens a run directory. Raises UsageError when it is none."""
        where = store.join(store.normalise(str(root)), PIPELINE)
        saved = store.get_json(where)
        if saved is None:
            raise UsageError(f"'{root}' is not a run directory (it has no {PIPELINE}); `rushes run` makes one")
        data = dict(saved["pipeline"])
        for override in overrides:
            config.override(data, override)
        return cls(
            str(root),
            config.validate(data, Document(PIPELINE, data, {}), Path(saved["directory"]), Path(saved["home"])),
        )

    def path(self, *names: str) -> str:
        """A path inside the run directory."""
        return store.join(self.root, *names)

    # -- steps and claims

    @cached_property
    def steps(self) -> list[Step]:
        """Every stage in the order in which it runs, built and checked. Raises ConfigError for a stage, option or column that is not there."""
        steps: list[Step] = []
        owner = dict.fromkeys(CLIP_FACTS, "clips")
        specs = [("measure", s) for s in self.pipeline.measure] + [("caption", s) for s in self.pipeline.caption]
        if self.pipeline.embed is not None:
            specs.append(("embed", self.pipeline.embed))
        for kind, spec in specs:
            built = stage.build(spec)
            names = stage.column_names(built, spec, kind)
            made_from = ["clips"]
            for wanted, required in stage.wanted_columns(built).items():
                if wanted in owner:
                    made_from.append(owner[wanted])
                elif required:
                    raise ConfigError(
                        f"{spec.where}: {spec.use} reads the column '{wanted}', which no earlier stage makes{nearest(wanted, owner)}"
                    )
            for name in names.values():
                if name in owner:
                    raise ConfigError(
                        f"{spec.where}: {spec.use} makes the column '{name}', which {owner[name]} makes already"
                    )
                owner[name] = spec.name
            if kind == "caption" and "caption" in names:
                owner.setdefault("caption", spec.name)
            table = Table(self.path(DIRECTORIES[kind], spec.name), stage.table_schema(built, names))
            steps.append(Step(kind, spec, built, names, table, tuple(dict.fromkeys(made_from))))
        for rule in self.pipeline.config.keep:
            if rule not in owner:
                raise ConfigError(f"keep: there is no column '{rule}'{nearest(rule, owner)}")
        return steps

    def tables(self) -> dict[str, Table]:
        """All tables by name, in the order in which they are made."""
        return {
            "sources": self.sources_table,
            "clips": self.clips_table,
            **{step.spec.name: step.table for step in self.steps},
        }

    def made_from(self) -> dict[str, tuple[str, ...]]:
        """Each table with the tables it is made from."""
        return {"sources": (), "clips": ("sources",), **{step.spec.name: step.made_from for step in self.steps}}

    @cached_property
    def claims(self) -> dict[str, dict[str, Any]]:
        """What each table must have been made by, for this configuration."""
        scan_options = self.pipeline.config.scan.model_dump(
            exclude={"workers", "timeout_floor_s", "timeout_factor", "memory_mb", "cuts"}
        )
        cuts = stage.build(self.pipeline.cuts)
        claims: dict[str, dict[str, Any]] = {
            "sources": {
                "made_by": "curate.sources",
                "version": 1,
                "options": {"digest": self.pipeline.config.digest},
                "made_from": {},
            }
        }
        options = {**scan_options, "cuts": {"use": self.pipeline.cuts.use, **stage.options(cuts)}}
        claims["clips"] = {
            "made_by": "curate.scan",
            "version": 1,
            "options": options,
            "made_from": {"sources": digest(claims["sources"])},
        }
        for step in self.steps:
            values = stage.options(step.stage)
            if isinstance(address := values.get("weights"), str):
                values["weights"] = weights.identity(address)
            claims[step.spec.name] = {
                "made_by": step.spec.use,
                "version": getattr(step.stage, "version", 1),
                "options": values,
                "made_from": {name: digest(claims[name]) for name in step.made_from},
            }
        return claims

    # -- views

    def sources(self) -> pd.DataFrame:
        """One row per file, with `duplicate_of`."""
        return sources.with_duplicates(self.sources_table.read())

    def spans(self) -> pd.DataFrame:
        """All rows of the clips table without thumbnails: clips, spans left out (`skip`), spans that failed (`error`)."""
        frame: pd.DataFrame = self.clips_table.read(SPAN_COLUMNS).to_pandas()
        return frame

    def wide(self, kinds: tuple[str, ...] = ("measure", "caption")) -> pd.DataFrame:
        """One row per clip: where it lies, every measure and caption made so far, and the first error met on it."""
        spans = self.spans()
        clips = (
            spans[spans["skip"].isna() & spans["error"].isna()]
            .drop(columns=["window", "skip", "error"])
            .reset_index(drop=True)
        )
        paths = self.sources_table.read(["uri", "source_id", "error"]).to_pandas()
        paths = (
            paths[paths["error"].isna()].sort_values("uri").drop_duplicates("source_id").set_index("source_id")["uri"]
        )
        clips["uri"] = clips["source_id"].map(paths)
        clips["duration_s"] = clips["end_s"] - clips["start_s"]
        clips = clips[CLIP_FACTS]
        errors = pd.Series(None, index=clips.index, dtype=object)
        for step in (s for s in self.steps if s.kind in kinds):
            rows = step.table.read().to_pandas().set_index("clip_id").reindex(clips["clip_id"])
            for name in step.columns:
                clips[name] = rows[name].to_numpy() if rows[name].dtype == object else rows[name].array
            said = rows["error"].reset_index(drop=True)
            errors = errors.where(errors.notna() | said.isna(), step.spec.name + ": " + said.astype(str))
            if step.kind == "caption" and "caption" in step.names and "caption" not in clips:
                clips["caption"] = clips[step.names["caption"]]
        clips["error"] = errors.astype("string")
        return clips

    def selection(self, kinds: tuple[str, ...] = ("measure", "caption")) -> Selection:
        """What `keep:` keeps. With `kinds=("measure",)` the rules on captions wait: that is what gets captioned."""
        wide = self.wide(kinds)
        keep = {
            name: rule
            for name, rule in self.pipeline.config.keep.items()
            if name in wide.columns or kinds != ("measure",)
        }
        return select(wide, keep)

    def ledger(self) -> Ledger:
        """The account of every input second. Raises RunError when the spans of a source do not meet."""
        unwritten = (self.index() or {}).get("left_out", [])
        return balance(self.sources(), self.spans(), self.selection(), sum(item["seconds"] for item in unwritten))

    def index(self) -> dict[str, Any] | None:
        """The shards' `index.json`, or None when they are not finished."""
        found: dict[str, Any] | None = store.get_json(self.path("shards", "index.json"))
        return found

    def errors(self) -> Iterator[dict[str, Any]]:
        """Everything that failed: a file, a span, a stage on a clip, a clip that could not be written; one dict each, with a sentence."""
        for row in self.sources_table.read(["uri", "source_id", "error"]).to_pylist():
            if row["error"]:
                yield {
                    "table": "sources",
                    "uri": row["uri"],
                    "source_id": row["source_id"],
                    "clip_id": None,
                    "error": row["error"],
                }
        wide = self.wide()
        uris = dict(zip(wide["clip_id"], wide["uri"], strict=True))
        paths = {row["source_id"]: row["uri"] for row in sources.primary(self.sources())}
        for row in self.clips_table.read(["source_id", "start_s", "end_s", "error"]).to_pylist():
            if row["error"]:
                span = {"start_s": row["start_s"], "end_s": row["end_s"]}
                where = {
                    "table": "clips",
                    "uri": paths.get(row["source_id"]),
                    "source_id": row["source_id"],
                    "clip_id": None,
                }
                yield {**where, **span, "error": row["error"]}
        for step in self.steps:
            for row in step.table.read(["error"]).to_pylist():
                if row["error"]:
                    yield {
                        "table": step.spec.name,
                        "uri": uris.get(row["clip_id"]),
                        "clip_id": row["clip_id"],
                        "error": row["error"],
                    }
        for item in (self.index() or {}).get("left_out", []):
            yield {
                "table": "shards",
                "uri": uris.get(item["clip_id"]),
                "clip_id": item["clip_id"],
                "error": item["error"],
            }

    def status(self) -> dict[str, Any]:
        """Counts of everything, for people and scripts."""
        listed, spans, wide, selection = self.sources(), self.spans(), self.wide(), self.selection()
        scan_failed = set(spans.loc[spans["error"].notna(), "source_id"])
        failed = listed["error"].notna() | listed["source_id"].isin(scan_failed)
        index = self.index()
        left_out = {item["clip_id"] for item in (index or {}).get("left_out", [])}
        clip_failed = int(wide["error"].notna().sum()) + len(left_out)
        ledger = self.ledger() if not self.pending_windows() else None
        seconds = (
            {key.removesuffix("_s"): value for key, value in ledger.as_dict().items() if key.endswith("_s")}
            if ledger
            else None
        )
        return {
            "run": self.root,
            "sources": {
                "total": len(listed),
                "ok": int((~failed).sum()),
                "failed": int(failed.sum()),
                "duplicates": int(listed["duplicate_of"].notna().sum()),
            },
            "clips": {
                "total": len(wide),
                "ok": len(wide) - clip_failed,
                "failed": clip_failed,
                "kept": len(selection.clip_ids) - len(left_out),
                "dropped": len(wide) - int(wide["error"].notna().sum()) - len(selection.clip_ids),
            },
            "seconds": seconds,
            "shards": {
                "files": len(index["shards"]) if index else 0,
                "clips": index["clips"] if index else 0,
                "bytes": index["bytes"] if index else 0,
            },
            "tables": {name: _rows(table) for name, table in self.tables().items()},
            "finished": index is not None,
        }

    def pending_windows(self) -> list[dict[str, Any]]:
        """The windows of readable sources that are not scanned yet, each with what a worker must know of its source."""
        done = set(
            zip(
                *(
                    self.clips_table.read(["source_id", "window"]).column(c).to_pylist()
                    for c in ("source_id", "window")
                ),
                strict=True,
            )
        )
        pending = []
        for source in sources.primary(self.sources()):
            last = scan.n_windows(source["duration_s"], self.pipeline.config.scan.window_s) - 1
            facts = {
                "uri": source["uri"],
                "source_id": source["source_id"],
                "duration_s": source["duration_s"],
                "last_window": last,
            }
            pending += [
                {**facts, "window": window} for window in range(last + 1) if (source["source_id"], window) not in done
            ]
        return pending


def _rows(table: Table) -> dict[str, int]:
    errors = table.read(["error"]).column("error")
    return {"rows": len(errors), "errors": len(errors) - errors.null_count}


def arrow_types(run: Run) -> dict[str, pa.DataType]:
    """The type of every column of the wide view."""
    types = {field.name: field.type for field in scan.SCHEMA} | {
        "uri": pa.string(),
        "duration_s": pa.float64(),
        "caption": pa.string(),
    }
    for step in run.steps:
        types |= {name: step.table.schema.field(name).type for name in step.columns}
    return types
