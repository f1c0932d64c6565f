"""The pipeline file: reading, overrides of single values, validation, and errors with the file's line and the nearest valid key."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from curate.config.config import (
    RUNNER_KEYS,
    BucketsConfig,
    Config,
    Pipeline,
    Rule,
    ScanConfig,
    ShardsConfig,
    SourcesConfig,
    TrainConfig,
)
from curate.config.lines import MAX_CHARACTERS, Document, parse
from curate.errors import ConfigError, UsageError, nearest
from curate.stages import stage as stages
from curate.stages.stage import StageSpec


def load(
    path: Path, overrides: Sequence[str] = (), replace: Mapping[str, Any] | None = None, home: Path | None = None
) -> Pipeline:
    """Reads and validates a pipeline file.

    Args:
        path: the YAML file.
        overrides: `key.path=value` each; an element of a list of stages is addressed by its position or name (`measure.motion.fps=4`).
        replace: top-level keys set by the command line (`sources`, `run`).
        home: the base directory of relative `sources`; the file's directory by default.

    Raises ConfigError (file, line, key, nearest valid key), and UsageError when the file does not exist or cannot be read.
    """
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_CHARACTERS + 1)  # /dev/zero has no end
    except FileNotFoundError as error:
        raise UsageError(f"there is no pipeline file '{path}'") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the pipeline file '{path}': {error}") from error
    document = parse(text, path.name)
    if not isinstance(document.data, dict):
        raise ConfigError(
            f"{path.name}:1: a pipeline file is a mapping of keys such as sources, scan, measure and keep"
        )
    data = dict(document.data)
    for setting in overrides:
        override(data, setting)
    for key, value in (replace or {}).items():
        given = data.get(key)
        # `sources` on the command line replaces `from` only; `root` and `allow` stay.
        data[key] = {**given, "from": value} if key == "sources" and isinstance(given, dict) else value
    directory = path.absolute().parent
    return validate(data, document, directory, home or directory)


def validate(data: dict[str, Any], document: Document, directory: Path, home: Path) -> Pipeline:
    """Returns plain values as a validated Pipeline. Raises ConfigError."""
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        raise ConfigError(_sentence(error, document)) from error
    names = {"sources", "clips"}  # the tables that every run has
    cuts = _spec(config.scan.cuts, ("scan", "cuts"), document, set())
    lists = {
        key: tuple(_spec(item, (key, i), document, names) for i, item in enumerate(items))
        for key, items in (("measure", config.measure), ("caption", config.caption))
    }
    embed = _spec(config.embed, ("embed",), document, names) if config.embed is not None else None
    return Pipeline(config, cuts, lists["measure"], lists["caption"], embed, directory, home, data)


def _spec(item: Mapping[str, Any], path: tuple[str | int, ...], document: Document, taken: set[str]) -> StageSpec:
    where = document.where(path)
    if not isinstance(item.get("use"), str):
        raise ConfigError(f"{where}: a stage needs `use:` with a dotted name such as filters.Motion")
    runner: dict[str, Any] = {}
    for key in RUNNER_KEYS.keys() & item.keys():
        try:
            runner[key] = TypeAdapter(RUNNER_KEYS[key]).validate_python(item[key])
        except ValidationError as error:
            reason = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise ConfigError(f"{document.where((*path, key))}: {key}: {reason} (got {item[key]!r})") from error
    options = {key: value for key, value in item.items() if key != "use" and key not in RUNNER_KEYS}
    name = runner.pop("name", None) or stages.table_name(item["use"])
    if name in taken:
        raise ConfigError(f"{where}: two tables are called '{name}'; give this stage another `name:`")
    taken.add(name)
    return StageSpec(
        item["use"], name, options, where=where, wheres={key: document.where((*path, key)) for key in options}, **runner
    )


def _keys(loc: Sequence[str | int]) -> tuple[str | int, ...]:
    """The parts of a pydantic location that are keys of the file; the others name the types that pydantic tried."""
    return tuple(
        part
        for part in loc
        if isinstance(part, int) or not re.match(r"^(float|int|str|bool|list|constrained|function)", part)
    )


def _sentence(error: ValidationError, document: Document) -> str:
    """The first error of pydantic as one sentence."""
    first = error.errors()[0]
    loc = first["loc"]
    is_key = first["type"] in ("extra_forbidden", "missing")
    path = (*_keys(loc[:-1]), loc[-1]) if is_key else _keys(loc)
    dotted = ".".join(str(part) for part in path)
    where = document.where(path)
    if first["type"] == "extra_forbidden":
        value = first["input"]
        if len(path) == 1 and isinstance(value, dict) and value and value.keys() <= {"above", "below", "is"}:
            return f"{where}: unknown key '{dotted}'; did you mean 'keep.{dotted}.{next(iter(value))}'?"
        return f"{where}: unknown key '{dotted}'{nearest(str(path[-1]), _known_keys(path[:-1]))}"
    if first["type"] == "missing":
        return f"{where}: the key '{dotted}' is missing"
    message = first["msg"].removeprefix("Value error, ")
    got = "" if isinstance(first["input"], dict) else f" (got {first['input']!r})"
    return f"{where}: {dotted}: {message}{got}"


def _known_keys(path: tuple[str | int, ...]) -> list[str]:
    models: dict[str, type[BaseModel]] = {
        "scan": ScanConfig,
        "shards": ShardsConfig,
        "train": TrainConfig,
        "keep": Rule,
        "sources": SourcesConfig,
    }
    model = models.get(str(path[0]), Config) if path else Config
    if path[:2] == ("shards", "buckets"):
        model = BucketsConfig
    return [field.alias or name for name, field in model.model_fields.items()]


def override(data: dict[str, Any], setting: str) -> None:
    """Applies one `key.path=value` to plain values, in place. Raises UsageError for a path that does not exist."""
    key, equals, text = setting.partition("=")
    if not equals or not key:
        raise UsageError(f"--set {setting}: expected key.path=value")
    try:
        value = parse(text, f"--set {key}").data
    except ConfigError as error:
        raise UsageError(f"--set {setting}: {error}") from error
    here: Any = data
    *groups, last = key.split(".")
    for part in groups:
        at = _at(here, part, setting)
        inner = here[at] if isinstance(here, list) else here.get(at)
        if inner is not None and not isinstance(inner, list | dict):
            raise UsageError(f"--set {setting}: '{part}' is a value, not a group of keys")
        here[at] = list(inner) if isinstance(inner, list) else dict(inner or {})
        here = here[at]
    here[_at(here, last, setting)] = value


def _at(here: Any, part: str, setting: str) -> Any:
    """The key of `part` in a mapping, or in a list of stages the position of the stage with that name or number."""
    if not isinstance(here, list):
        return part
    names = [item.get("name") or stages.table_name(str(item.get("use"))) for item in here if isinstance(item, dict)]
    if part in names:
        return names.index(part)
    if part.isdigit() and int(part) < len(here):
        return int(part)
    raise UsageError(f"--set {setting}: there is no stage '{part}'{nearest(part, names)}")
