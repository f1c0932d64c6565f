"""The stages of a pipeline with their tables, in the order in which they run, and the claims that their tables must carry."""

import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import pyarrow as pa

from curate.config.config import Pipeline
from curate.errors import ConfigError, nearest
from curate.stages import stage, weights
from curate.stages.stage import StageSpec
from curate.tables import store
from curate.tables.table import Table, digest
from curate.video.limits import Limits

DIRECTORIES = {"measure": "measures", "caption": "captions", "review": "measures", "embed": "embeddings"}
"""Kinds of steps in the order in which they run, and where their tables lie. A review is a measure that reads captions."""
CLIP_FACTS = (
    *("clip_id", "source_id", "uri", "start_s", "end_s", "duration_s", "fps", "n_frames", "width_px", "height_px"),
    *("start_kind", "start_confidence", "start_detector", "end_kind", "end_confidence", "end_detector"),
    *("first_hash", "last_hash", "crop_x_px", "crop_y_px", "crop_width_px", "crop_height_px"),
)
"""Columns of the wide view before any measure."""
SOURCE_FACTS = ("uri", "manifest")
"""What a stage may read of a clip's source: its path, and the manifest's other columns as JSON (null without a manifest)."""
LIMITS = {"workers", "timeout_floor_s", "timeout_factor", "memory_mb", *Limits.__dataclass_fields__}
"""Options of the scan that say how long it may take and what it refuses, not what comes out."""


@dataclass(frozen=True)
class Step:
    """One stage of the pipeline with its table and the tables it is made from."""

    kind: str
    spec: StageSpec
    stage: Any
    names: Mapping[str, str]
    table: Table
    reads: Mapping[str, tuple[str, str]]
    """Columns that the stage reads: the name it knows to the table and the column there."""
    level: int
    """Among the steps of its kind, how many stand before it in a chain of readers: those of one level may run at once."""

    @property
    def columns(self) -> list[str]:
        """The table's columns besides clip_id and error."""
        return list(self.names.values())

    @property
    def made_from(self) -> tuple[str, ...]:
        """The tables that this one is made from."""
        return tuple(dict.fromkeys(["clips", *(table for table, _ in self.reads.values())]))

    @property
    def whole(self) -> bool:
        """Whether the stage looks at all clips of the run at once."""
        return bool(getattr(self.stage, "whole", False))


def steps(pipeline: Pipeline, root: str) -> list[Step]:
    """Builds and checks every stage. Raises ConfigError for a stage, an option or a column that is not there, or made twice."""
    owner = dict.fromkeys(CLIP_FACTS, ("clips", "")) | dict.fromkeys(SOURCE_FACTS, ("sources", ""))
    levels: dict[str, int] = {}
    made: list[Step] = []
    for kind, given, built in _in_order(pipeline):
        spec = stage.sized(given, built)
        names = stage.column_names(built, spec, kind)
        reads: dict[str, tuple[str, str]] = {}
        for wanted, required in stage.wanted_columns(built).items():
            if wanted in owner:
                made_by, column = owner[wanted]
                reads[wanted] = (made_by, column or wanted)
            elif required:
                told = f"{spec.use} reads the column '{wanted}', which no earlier stage makes"
                raise ConfigError(f"{spec.where}: {told}{nearest(wanted, owner)}")
        read = set(reads.values())
        _same_model(
            spec, built, [step for step in made if any((step.spec.name, name) in read for name in _vectors(step))]
        )
        for name in names.values():
            if name in owner:
                told = f"{spec.use} makes the column '{name}', which {owner[name][0]} makes already"
                raise ConfigError(f"{spec.where}: {told}")
            owner[name] = (spec.name, name)
        if kind == "caption" and "caption" in names:
            owner.setdefault("caption", (spec.name, names["caption"]))
        same_kind = {step.spec.name for step in made if step.kind == kind}
        level = max((levels[by] + 1 for by, _ in reads.values() if by in same_kind), default=0)
        levels[spec.name] = level
        table = Table(store.join(root, DIRECTORIES[kind], spec.name), stage.table_schema(built, names))
        made.append(Step(kind, spec, built, names, table, reads, level))
    asked = {"keep": set(pipeline.config.keep)}
    asked |= {f"shards: suffix '{text}'": set(rules) for text, rules in pipeline.config.shards.suffix.items()}
    for key, columns in asked.items():
        for column in sorted(columns - owner.keys()):
            raise ConfigError(f"{key}: there is no column '{column}'{_writer_of(column) or nearest(column, owner)}")
    captioners = [step.spec.name for step in made if step.kind == "caption" and "caption" in step.names]
    for name in pipeline.config.shards.caption:
        if name not in captioners:
            raise ConfigError(f"shards: caption: there is no captioner '{name}'{nearest(name, captioners)}")
    return made


def _writer_of(column: str) -> str:
    """`; filters.Aesthetic writes it: ...` for a column of one of our filters that the pipeline does not use, else nothing."""
    package = importlib.import_module("filters")
    for name in getattr(package, "__all__", ()):
        columns = getattr(getattr(package, name), "columns", None)
        if isinstance(columns, Mapping) and column in columns:
            return f"; filters.{name} writes it: add `- use: filters.{name}` under measure:"
    return ""


def _vectors(step: Step) -> list[str]:
    """The step's columns that hold vectors of one length: embeddings."""
    return [field.name for field in step.table.schema if pa.types.is_fixed_size_list(field.type)]


def _same_model(spec: StageSpec, built: Any, read: Sequence[Step]) -> None:
    """A stage with a model that reads the vectors of another stage's must have the same: nothing else would notice."""
    own = stage.options(built)
    for step in read:
        theirs = stage.options(step.stage)
        for name in ("model", "weights"):
            if {"model", "weights"} <= own.keys() & theirs.keys() and own[name] != theirs[name]:
                told = f"{spec.use} has {name} {own[name]}, and reads the vectors of {step.spec.use}, which has"
                raise ConfigError(f"{spec.where}: {told} {theirs[name]}: they must be the same")


def _in_order(pipeline: Pipeline) -> list[tuple[str, StageSpec, Any]]:
    """(kind, spec, stage) of every stage, in the order in which they run: a measure that reads captions comes after them."""
    captions: list[tuple[StageSpec, Any]] = []
    captioners: tuple[str, ...] = ()
    later: set[str] = set()
    for given in pipeline.caption:
        spec, built = _for_captioners(given, captioners)
        columns = stage.column_names(built, spec, "caption")
        captions.append((spec, built))
        captioners += (spec.name,) if "caption" in columns else ()
        later |= {"caption", *columns.values()}
    measures, reviews = [], []
    for spec in pipeline.measure:
        spec, built = _for_captioners(spec, captioners)
        if later & stage.wanted_columns(built).keys():
            reviews.append(("review", spec, built))
            later |= set(built.columns)
        else:
            measures.append(("measure", spec, built))
    embeds = [] if pipeline.embed is None else [("embed", pipeline.embed, stage.build(pipeline.embed))]
    return [*measures, *(("caption", spec, built) for spec, built in captions), *reviews, *embeds]


def _for_captioners(spec: StageSpec, captioners: tuple[str, ...]) -> tuple[StageSpec, Any]:
    """A stage with an option `captions` that is not set looks at all captioners of the run; a captioner, at those before it."""
    built = stage.build(spec)
    if getattr(built, "captions", None) != () or "captions" not in stage.options(built):
        return spec, built
    if not captioners:
        raise ConfigError(f"{spec.where}: {spec.use} reads captions, and no captioner comes before it")
    spec = replace(spec, options={**spec.options, "captions": captioners})
    return spec, stage.build(spec)


def claims(pipeline: Pipeline, made: Sequence[Step]) -> dict[str, dict[str, Any]]:
    """What each table must have been made by, for this configuration: stage, version, options, weights, upstream claims."""
    scan = pipeline.config.scan.model_dump(exclude={"cuts", *LIMITS})
    detector = stage.build(pipeline.cuts)
    cuts = {"use": pipeline.cuts.use, "version": getattr(detector, "version", 1), **_options(detector)}
    found = {"sources": _claim("curate.sources", 1, {"digest": pipeline.config.digest}, {})}
    found["clips"] = _claim("curate.scan", 2, {**scan, "cuts": cuts}, {"sources": digest(found["sources"])})
    for step in made:
        made_from = {name: digest(found[name]) for name in step.made_from}
        found[step.spec.name] = _claim(
            step.spec.use, getattr(step.stage, "version", 1), _options(step.stage), made_from
        )
    return found


def _options(built: Any) -> dict[str, Any]:
    """The options of a stage that its values depend on, with the identity of its weights in place of their address."""
    values = {name: v for name, v in stage.options(built).items() if name not in getattr(built, "patience", ())}
    return values | {name: weights.identity(address) for name, address in stage.weights_of(built).items()}


def _claim(made_by: str, version: int, options: Mapping[str, Any], made_from: Mapping[str, str]) -> dict[str, Any]:
    claim = {"made_by": made_by, "version": version, "options": dict(options), "made_from": dict(made_from)}
    return cast(dict[str, Any], json.loads(json.dumps(claim, default=str)))  # as it is read back: a tuple is a list
