"""The stages of a pipeline with their tables, in the order in which they run, and the claims that their tables must carry."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from curate import stage, store, weights
from curate.config import Pipeline
from curate.errors import ConfigError, nearest
from curate.stage import StageSpec
from curate.table import Table, digest

DIRECTORIES = {"measure": "measures", "caption": "captions", "embed": "embeddings"}
CLIP_FACTS = (
    *("clip_id", "source_id", "uri", "start_s", "end_s", "duration_s", "fps", "n_frames", "width_px", "height_px"),
    *("start_kind", "start_confidence", "start_detector", "end_kind", "end_confidence", "end_detector"),
    *("first_hash", "last_hash", "crop_x_px", "crop_y_px", "crop_width_px", "crop_height_px"),
)
"""Columns of the wide view before any measure."""
LIMITS = {"workers", "timeout_floor_s", "timeout_factor", "memory_mb"}
"""Options of the scan that change how long it may take, not what comes out."""


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


def steps(pipeline: Pipeline, root: str) -> list[Step]:
    """Builds and checks every stage. Raises ConfigError for a stage, an option or a column that is not there, or made twice."""
    made: list[Step] = []
    owner = dict.fromkeys(CLIP_FACTS, "clips")
    specs = [("measure", spec) for spec in pipeline.measure] + [("caption", spec) for spec in pipeline.caption]
    if pipeline.embed is not None:
        specs.append(("embed", pipeline.embed))
    for kind, spec in specs:
        built = stage.build(spec)
        names = stage.column_names(built, spec, kind)
        made_from = ["clips"]
        for wanted, required in stage.wanted_columns(built).items():
            if wanted in owner:
                made_from.append(owner[wanted])
            elif required:
                told = f"{spec.use} reads the column '{wanted}', which no earlier stage makes"
                raise ConfigError(f"{spec.where}: {told}{nearest(wanted, owner)}")
        for name in names.values():
            if name in owner:
                told = f"{spec.use} makes the column '{name}', which {owner[name]} makes already"
                raise ConfigError(f"{spec.where}: {told}")
            owner[name] = spec.name
        if kind == "caption" and "caption" in names:
            owner.setdefault("caption", spec.name)
        table = Table(store.join(root, DIRECTORIES[kind], spec.name), stage.table_schema(built, names))
        made.append(Step(kind, spec, built, names, table, tuple(dict.fromkeys(made_from))))
    for rule in pipeline.config.keep:
        if rule not in owner:
            raise ConfigError(f"keep: there is no column '{rule}'{nearest(rule, owner)}")
    return made


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
    """The options of a stage, with the identity of its weights in place of their address."""
    values = stage.options(built)
    if isinstance(address := values.get("weights"), str):
        values["weights"] = weights.identity(address)
    return values


def _claim(made_by: str, version: int, options: Mapping[str, Any], made_from: Mapping[str, str]) -> dict[str, Any]:
    return {"made_by": made_by, "version": version, "options": dict(options), "made_from": dict(made_from)}
