"""The stage contract: a dataclass whose fields are the options, whose `columns` are the schema, and which maps clips to rows.

    @dataclass
    class Motion:
        fps: float = 2.0                                        # options: typed, validated, documented
        columns: ClassVar = {"motion": pa.float32()}            # what each row holds besides clip_id
        version: ClassVar[int] = 1                              # raised when the values change
        reads: ClassVar = ("caption", "motion?")                # columns of earlier tables wanted in clip.columns; `?`: if there
        weights: str = "pip:package==1.0:path"                  # optional: an address, replaced by a local path before setup()
        captions: tuple[str, ...] = ()                          # optional: names of captioners; left empty, all of the run
        whole: ClassVar[bool] = False                           # optional: called once with every clip of the run, without thumbnails
        batch_size: ClassVar[int] = 16                          # optional: clips per call where the pipeline does not say
        workers: ClassVar[int] = 1                              # optional: workers where the pipeline does not say, not as many as fit
        patience: ClassVar = ("timeout_s",)                     # optional: options that change no value; a table is not remade for them
        searched: ClassVar[str] = "openclip"                    # optional: the vector column that `rushes search` compares pictures by, with
        def embed_images(self, frames) -> (N, D): ...           #   the vectors of other pictures
        def embed_texts(self, texts) -> (N, D): ...             #   and of words (`embed:` stages have only this)
        def embed_queries(self, texts) -> (N, D): ...           # optional: as embed_texts, for `rushes search`, called without setup()
        def check(self) -> None: ...                            # optional: once before the run, not on a worker; a ValueError stops it
        def setup(self) -> None: ...                            # heavy imports and weights, once per worker
        def __call__(self, clips: list[Clip]) -> list[dict]: ...

`columns` and `reads` may be properties where they depend on an option. Any option whose name ends in `weights` holds an address. Stages are
found by dotted name, without a registry, and results are keyed by clip id, never by position. A row may be `{"clip_id": ..., "error": "one
sentence"}`: that clip failed. (A stage that raises instead is called again, one clip at a time.)
"""

import dataclasses
import importlib
import importlib.util
import inspect
import math
import re
import typing
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
from pydantic import TypeAdapter, ValidationError

from curate.clip import Clip
from curate.errors import ConfigError, RunError, RushesError, UsageError, nearest
from curate.stages import weights

PACKAGES = ("annotate", "curate", "filters")
"""Our packages that hold stages."""
BATCH_SIZE = 16
"""Clips per call of a stage that does not say. Ours."""


class Stage(Protocol):
    """What the engine asks of a filter or an annotator."""

    columns: typing.ClassVar[Mapping[str, pa.DataType]]

    def setup(self) -> None:
        """Heavy imports and weights, once per worker."""

    def __call__(self, clips: list[Clip]) -> list[dict[str, Any]]:
        """One row per clip, keyed by `clip_id`."""


@dataclass(frozen=True)
class StageSpec:
    """A stage as `pipeline.yaml` names it: class and options, and what the runner needs to know (the keys beside `use:`)."""

    use: str
    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    workers: int | tuple[int, int] | None = None
    """At most so many; or from the first to the second; None: as many as fit."""
    batch_size: int | None = None
    """Clips per call; None: what the stage says, or 16 (see `sized`)."""
    cpus: float = 1.0
    gpus: float = 0.0
    memory_gb: float | None = None
    where: str = ""
    """`pipeline.yaml:12`, for messages."""
    wheres: Mapping[str, str] = field(default_factory=dict)
    """The same for each option."""

    @property
    def resources(self) -> tuple[Any, ...]:
        """Stages with equal resources share one pass over the thumbnails."""
        return (self.workers, self.batch_size, self.cpus, self.gpus, self.memory_gb)


def load_class(use: str, where: str = "") -> type:
    """The class behind a dotted name. Raises ConfigError naming the nearest right one."""
    prefix = f"{where}: " if where else ""
    module_name, _, class_name = use.rpartition(".")
    if not module_name or not all(part.isidentifier() for part in use.split(".")):
        raise ConfigError(f"{prefix}use: '{use}' is not a dotted name such as filters.Motion")
    _check_not_hidden(use, prefix)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise ConfigError(f"{prefix}use: '{use}': there is no module '{module_name}' on the path") from error
        raise ConfigError(f"{prefix}use: '{use}' needs the package '{error.name}', which is not installed") from error
    found = getattr(module, class_name, None)
    if not inspect.isclass(found):
        classes = [name for name, value in vars(module).items() if inspect.isclass(value) and not name.startswith("_")]
        raise ConfigError(
            f"{prefix}there is no stage '{use}'{nearest(use, [f'{module_name}.{name}' for name in classes])}"
        )
    return found


def _check_not_hidden(use: str, prefix: str) -> None:
    """Raises ConfigError when Python finds another module in place of one of our packages, for instance a user's own `filters/`."""
    package = use.partition(".")[0]
    if package not in PACKAGES:
        return
    ours = Path(__file__).resolve().parents[2] / package / "__init__.py"
    found = importlib.util.find_spec(package)
    file = None if found is None else found.origin or next(iter(found.submodule_search_locations or ()), None)
    if file is not None and Path(file).resolve() != ours:
        raise ConfigError(
            f"{prefix}use: '{use}': Python imports '{package}' from {file}, which hides the package of that name in rushes ({ours}); "
            f"rename yours, or start rushes elsewhere and take its folder off PYTHONPATH"
        )


def sized(spec: StageSpec, built: Any) -> StageSpec:
    """The spec with the batch size and the workers that the pipeline, the stage or the default gives."""
    return dataclasses.replace(
        spec,
        batch_size=spec.batch_size or int(getattr(built, "batch_size", BATCH_SIZE)),
        workers=spec.workers or getattr(built, "workers", None),
    )


def options_of(cls: type) -> dict[str, Any]:
    """The options of a stage class: name to type."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls) if f.init}


def options(stage: Any) -> dict[str, Any]:
    """The values of a stage's options."""
    return {name: getattr(stage, name) for name in options_of(type(stage))}


def weights_of(stage: Any) -> dict[str, str]:
    """The addresses of a stage's weights, by option."""
    found = {name: value for name, value in options(stage).items() if name.endswith("weights")}
    return {name: value for name, value in found.items() if isinstance(value, str)}


def build(spec: StageSpec) -> Any:
    """Builds the stage with validated options; heavy things wait for `setup`. Raises ConfigError naming line, key and nearest right key."""
    cls = load_class(spec.use, spec.where)
    prefix = f"{spec.where}: " if spec.where else ""
    if not dataclasses.is_dataclass(cls) or not isinstance(getattr(cls, "columns", None), Mapping | property):
        raise ConfigError(
            f"{prefix}{spec.use} is not a stage: a stage is a dataclass with `columns`, `setup` and `__call__`"
        )
    known = options_of(cls)
    values: dict[str, Any] = {}
    for name, value in spec.options.items():
        at = f"{spec.wheres[name]}: " if name in spec.wheres else prefix
        if name not in known:
            keys = [*known, "use", "name", "workers", "batch_size", "cpus", "gpus", "memory_gb"]
            raise ConfigError(f"{at}{spec.use} has no option '{name}'{nearest(name, keys)}")
        try:
            values[name] = TypeAdapter(known[name]).validate_python(value)
        except ValidationError as error:
            raise ConfigError(f"{at}{spec.use}: {name}: {error.errors()[0]['msg']} (got {value!r})") from error
    missing = [f.name for f in dataclasses.fields(cls) if f.init and _required(f) and f.name not in values]
    if missing:
        raise ConfigError(f"{prefix}{spec.use} needs the option {' and '.join(repr(name) for name in missing)}")
    try:
        return cls(**values)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{prefix}{spec.use}: {error}") from error


def _required(option: dataclasses.Field[Any]) -> bool:
    return option.default is dataclasses.MISSING and option.default_factory is dataclasses.MISSING


def located(spec: StageSpec) -> tuple[Any, dict[str, str]]:
    """The stage with the local paths of its weights, not set up, and these paths by option. Raises WeightsError for missing weights."""
    stage = build(spec)
    found = {name: str(weights.locate(address)) for name, address in weights_of(stage).items()}
    return (dataclasses.replace(stage, **found) if found else stage), found


def ready(spec: StageSpec) -> Any:
    """A stage ready to be called: built, its weights located on this machine, set up.

    Raises:
        UsageError: A package is missing.
        RunError: Its `setup` raised; the sentence names the stage and its weights.
    """
    stage, found = located(spec)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "IProgress not found")  # tqdm's, in a notebook without widgets
            stage.setup()
    except ModuleNotFoundError as error:
        raise UsageError(f"{spec.use} needs the package '{error.name}':  pip install 'rushes[models]'") from error
    except RushesError:
        raise
    except Exception as error:
        of = f" with {', '.join(f'{name} {address}' for name, address in found.items())}" if found else ""
        raise RunError(f"{spec.name} ({spec.use}) cannot start{of}: {one_sentence(error)}") from error
    return stage


OF_CAPTIONER = ("caption", "prompt_tokens", "output_tokens", "finish_reason", "frames", "seconds", "tagged_frames")
"""Columns that every captioner may have: in its table they carry its name."""


def column_names(stage: Any, spec: StageSpec, kind: str) -> dict[str, str]:
    """Names in the stage's rows to names in the table: a captioner's `caption` becomes `caption_<name>`, see OF_CAPTIONER."""
    own = OF_CAPTIONER if kind == "caption" else ()
    return {name: f"{name}_{spec.name}" if name in own else name for name in stage.columns}


def table_schema(stage: Any, names: Mapping[str, str]) -> pa.Schema:
    """The Arrow schema of a stage's table: clip_id, the declared columns, error."""
    declared = [pa.field(names[name], kind) for name, kind in stage.columns.items()]
    return pa.schema([pa.field("clip_id", pa.string()), *declared, pa.field("error", pa.string())])


def wanted_columns(stage: Any) -> dict[str, bool]:
    """The columns a stage reads from earlier tables, each with whether it must be there."""
    return {name.rstrip("?"): not name.endswith("?") for name in getattr(stage, "reads", ())}


def apply_whole(stage: Any, clips: Sequence[Clip], names: Mapping[str, str]) -> list[dict[str, Any]]:
    """One row for every clip from a stage that looks at all of them at once, so that none can be left out when it raises."""
    return _checked(stage(list(clips)), clips, names) if clips else []


def apply(stage: Any, clips: Sequence[Clip], names: Mapping[str, str]) -> list[dict[str, Any]]:
    """One row for every clip, failed or not. A batch that raises is tried one clip at a time, so a bad clip costs only itself."""
    try:
        return _checked(stage(list(clips)), clips, names)
    except Exception as error:
        if len(clips) == 1:
            return [failed(clips[0].clip_id, error, names.values())]
        return [row for clip in clips for row in apply(stage, [clip], names)]


def failed(clip_id: str, error: BaseException | str, columns: Iterable[str]) -> dict[str, Any]:
    """The row of a clip on which a stage failed: null columns and one sentence."""
    sentence = error if isinstance(error, str) else one_sentence(error)
    return {"clip_id": clip_id, **dict.fromkeys(columns), "error": sentence}


def one_sentence(error: BaseException) -> str:
    """An exception as one line: our own errors speak for themselves, others are preceded by their type."""
    text = re.sub(r"\s+", " ", str(error)).strip()[:500]
    kind = type(error).__name__
    return text if isinstance(error, ValueError) and text else f"{kind}: {text}".rstrip(": ")


def _checked(rows: list[dict[str, Any]], clips: Sequence[Clip], names: Mapping[str, str]) -> list[dict[str, Any]]:
    by_id = {row["clip_id"]: row for row in rows}
    asked = {clip.clip_id for clip in clips}
    if set(by_id) != asked or len(rows) != len(asked):
        raise RuntimeError(
            f"the stage was asked for {len(asked)} clips and answered with {len(rows)} rows for {len(set(by_id) & asked)} of them"
        )
    checked = []
    for clip in clips:
        row = by_id[clip.clip_id]
        if row.get("error") is not None:
            checked.append(failed(clip.clip_id, str(row["error"]), names.values()))
            continue
        values = {new: row[old] for old, new in names.items()}
        bad = [name for name, value in values.items() if isinstance(value, float) and not math.isfinite(value)]
        checked.append(
            failed(clip.clip_id, f"{bad[0]} is not a finite number", values)
            if bad
            else {"clip_id": clip.clip_id, **values, "error": None}
        )
    return checked


def table_name(use: str) -> str:
    """The table a stage writes when it gives no `name:`: its class name in snake case (filters.TextArea -> text_area)."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", use.rpartition(".")[2]).lower()
