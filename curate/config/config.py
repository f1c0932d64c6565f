"""`pipeline.yaml` as validated objects.

Every error names the file, the line, the key and the nearest right key; nothing runs before all is right.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from curate.cluster.pool import Workers
from curate.config.buckets import aspect_of
from curate.config.lines import MAX_CHARACTERS, Document, parse
from curate.errors import ConfigError, UsageError, nearest
from curate.stages import stage as stages
from curate.stages.stage import StageSpec
from curate.video.limits import Limits

PERCENTILE = re.compile(r"p(100|\d{1,2}(\.\d+)?)")


def _bound(value: Any) -> float | str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str) and PERCENTILE.fullmatch(value):
        return value
    raise ValueError("expected a number, or a percentile of this run such as p25")


Bound = Annotated[float | str, BeforeValidator(_bound)]
Scalar = str | bool | int | float


class Strict(BaseModel):
    """Unknown keys are errors, and a validated object does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ScanConfig(Strict):
    """How sources are split into clips, and the thumbnails that every later stage reads."""

    cuts: dict[str, Any] = {"use": "curate.cuts.Cascade"}
    """The cut detector: `use:` and its options."""
    min_clip_s: float = Field(2.0, ge=0)
    """Shorter spans between two cuts are left out and counted as too short. 2 s is the minimum of cosmos-curate (field.md)."""
    max_clip_s: float = Field(10.0, gt=0)
    """Longer shots are divided, see `long_shots`. Ours; NeMo Curator's TransNetV2 default is 10 s too."""
    long_shots: Literal["even", "stride"] = "even"
    """How a shot longer than `max_clip_s` is divided: into even parts, or every `max_clip_s` with a shorter rest."""
    align: Literal["exact", "keyframe"] = "exact"
    """`exact` clips begin and end at the boundary; `keyframe` shrinks them inward to keyframes, as SVD does, so that they can be copied
    without encoding again and without crossing a cut (`shards.mode: copy`). What is cut off counts as unaligned."""
    thumb_fps: float = Field(2.0, gt=0, le=30)
    """Thumbnails per second of clip. SVD measured motion at 2 fps."""
    thumb_short_side_px: int = Field(360, ge=16, le=2160)
    """Thumbnails are never larger than the source."""
    thumb_quality: int = Field(90, ge=1, le=100)
    """JPEG quality. Ours: text detection and flow change by less than their own noise."""
    window_s: float = Field(300.0, ge=1)
    """Sources longer than this are scanned in windows that start at keyframes."""
    timeout_floor_s: float = Field(60.0, gt=0)
    timeout_factor: float = Field(8.0, gt=0)
    """A window may take `timeout_floor_s + timeout_factor * its seconds` of wall time before its decoder is killed. Ours."""
    memory_mb: int = Field(4096, ge=256)
    """Resident memory at which a decoder is killed. Ours."""
    workers: Workers = None
    """`4`, or `[1, 8]` to begin with one and grow; as many as fit by default."""
    max_megapixels: float = Field(Limits.max_megapixels, gt=0)
    """A file with larger pictures is refused. Ours; 16K has 133 megapixels."""
    max_hours: float = Field(Limits.max_hours, gt=0)
    """A file whose header promises more is refused. Ours; a week."""
    max_streams: int = Field(Limits.max_streams, ge=1)
    """A file with more streams (pictures, sound, subtitles, attachments) is refused. Ours."""
    max_metadata_mb: float = Field(Limits.max_metadata_mb, gt=0)
    """A file with more text about it is refused. Ours."""

    @property
    def of_a_file(self) -> Limits:
        """What a file may ask of the scan."""
        return Limits(**{name: getattr(self, name) for name in Limits.__dataclass_fields__})

    @model_validator(mode="after")
    def _lengths(self) -> "ScanConfig":
        if self.max_clip_s < self.min_clip_s * 2:
            raise ValueError("max_clip_s must be at least twice min_clip_s, or a long shot could not be divided")
        if self.min_clip_s * self.thumb_fps < 1.5:
            raise ValueError("min_clip_s must be at least 1.5 / thumb_fps, or a clip could be without a thumbnail")
        if self.window_s < self.max_clip_s:
            raise ValueError("window_s must be at least max_clip_s")
        return self


class Rule(Strict):
    """One line of `keep:`. Bounds are inclusive; `p25` is the 25th percentile of this run's values."""

    above: Bound | None = None
    below: Bound | None = None
    is_: Scalar | list[Scalar] | None = Field(None, alias="is")

    @model_validator(mode="after")
    def _something(self) -> "Rule":
        if self.above is None and self.below is None and self.is_ is None:
            raise ValueError("a rule needs 'above', 'below' or 'is'")
        return self


class BucketsConfig(Strict):
    """Which clips fit into one batch (curate/config/buckets.py). All three lists are ours; every trainer has its own."""

    aspects: list[str] = ["21:9", "16:9", "3:2", "4:3", "1:1", "3:4", "2:3", "9:16"]
    short_sides_px: list[Annotated[int, Field(ge=16)]] = [64, 144, 240, 360, 480, 720, 1080, 2160]
    frames: list[Annotated[int, Field(ge=1)]] | Annotated[str, Field(pattern=r"^[1-9]\d*n\+\d+$")] = [
        1, 9, 17, 25, 33, 49, 65, 81, 97, 121, 161, 193, 241,
    ]  # fmt: skip
    """A list, or `4n+1` for any such number. The list is 8n+1, and so 4n+1: video VAEs that squeeze time by 8 (LTX-Video) or 4 (Wan, CogVideoX)
    take such numbers of frames."""

    @model_validator(mode="after")
    def _some(self) -> "BucketsConfig":
        if not self.aspects or not self.short_sides_px or not self.frames:
            raise ValueError("aspects, short_sides_px and frames must not be empty")
        for text in self.aspects:
            aspect_of(text)
        return self


class ShardsConfig(Strict):
    """How kept clips are written."""

    mode: Literal["exact", "copy", "auto"] = "exact"
    """`exact` encodes again, to the very frame; `copy` keeps the source's packets from the first keyframe inside the clip on (SVD); `auto`
    copies the clips that lose no more than `tolerance_s` by it and encodes the others."""
    tolerance_s: float = Field(0.1, ge=0)
    """In `auto`: seconds that a copied clip may lose at either end. Ours."""
    audio: bool = False
    """Puts the source's sound beside the pictures."""
    crop: bool = False
    """Cuts off the black bars that the scan found."""
    short_side_px: int | None = Field(None, ge=16)
    fps: float | None = Field(None, gt=0)
    crf: int = Field(18, ge=0, le=51)
    gop: int = Field(32, ge=1)
    """Largest distance between keyframes of encoded clips, in frames: what a loader decodes to get at a frame. Ours."""
    target_mb: float = Field(256.0, gt=0)
    """Aimed-at size of one shard, estimated from the length and size of the clips."""
    buckets: BucketsConfig = BucketsConfig()
    caption: dict[str, Annotated[float, Field(gt=0)]] = {}
    """The mix for training: captioner to share, as in `{coca: 0.5, vlm: 0.25, summary: 0.25}` (SVD). Empty: the first captioner alone."""
    suffix: dict[str, dict[str, Rule]] = {}
    """Measured facts in the training caption: text to rules as under `keep`, all of which must hold, as in
    `{", with watermark": {watermark: {above: 0.5}}}`. Like the mix it is applied when training reads the shards."""
    workers: Workers = None
    """`4`, or `[1, 8]` to begin with one and grow; as many as fit by default."""


class TrainConfig(Strict):
    """A finetuning at the end of a run, as `rushes train` does it (docs/training.md)."""

    recipe: str = "tiny"
    """A recipe's name, or a YAML file."""
    out: str | None = None
    """The folder of the training; `train/RECIPE` in the run directory by default."""
    set: dict[str, Any] = {}
    """Values of the recipe."""
    workers: int = Field(0, ge=0)
    """Ranks on the Ray cluster; 0 trains in the process that runs the pipeline. With more than one node, the run directory must be shared."""
    gpus_per_worker: float = Field(1.0, ge=0)
    max_failures: int = Field(3, ge=0)
    """How often workers may die before the training is given up. Ours."""


class SourcesConfig(Strict):
    """Where raw footage is looked for. A text or a list alone stands for `{from: ...}`."""

    from_: list[str] = Field(min_length=1, alias="from")
    """Globs, directories, files or manifests."""
    root: str | None = None
    """A directory or an address outside of which no source may lie, whoever names it (curate/scan/uri_policy.py)."""
    allow: list[str] = []
    """What a manifest may name besides the usual: protocols (`file`, `sftp`, `zip`), hosts (`10.0.0.5`), or `credentials` in addresses."""

    @model_validator(mode="before")
    @classmethod
    def _one(cls, data: Any) -> Any:
        if isinstance(data, str):
            return {"from": [data]}
        if isinstance(data, list):
            return {"from": data}
        if isinstance(data, dict) and isinstance(data.get("from"), str):
            return {**data, "from": [data["from"]]}
        return data


class Config(Strict):
    """The whole pipeline file."""

    run: str = "runs/demo"
    sources: SourcesConfig
    digest: Literal["sampled", "full"] = "sampled"
    scan: ScanConfig = ScanConfig()
    measure: list[dict[str, Any]] = []
    caption: list[dict[str, Any]] = []
    embed: dict[str, Any] | None = None
    keep: dict[str, Rule] = {}
    shards: ShardsConfig = ShardsConfig()
    train: TrainConfig | None = None
    """A finetuning on the shards; without it a run ends with them."""
    max_error_share: float = Field(0.5, ge=0, le=1)
    """When more than this share of a table of at least 20 rows fails, the run stops: that is a broken stage, not bad data."""


def _gpus(given: float) -> float:
    if given > 1 and given != int(given):
        raise ValueError("must be a part of one GPU, as 0.25, or a whole number of them")
    return given


RUNNER_KEYS: dict[str, Any] = {
    "name": Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")],
    "workers": Workers,
    "batch_size": Annotated[int, Field(ge=1)],
    "cpus": Annotated[float, Field(ge=0)],
    "gpus": Annotated[float, Field(ge=0), AfterValidator(_gpus)],
    "memory_gb": Annotated[float, Field(gt=0)] | None,
}


@dataclass(frozen=True)
class Pipeline:
    """A validated pipeline file: the configuration, its stages, and the text it came from."""

    config: Config
    cuts: StageSpec
    measure: tuple[StageSpec, ...]
    caption: tuple[StageSpec, ...]
    embed: StageSpec | None
    directory: Path
    """Where the file lies: stages of one's own are imported from here."""
    home: Path
    """Where relative `sources` start: the same directory, except in a submitted job or when typed on the command line."""
    resolved: Mapping[str, Any]
    """The file with overrides and variables applied, as it goes into index.json."""


def load(
    path: Path, overrides: Sequence[str] = (), replace: Mapping[str, Any] | None = None, home: Path | None = None
) -> Pipeline:
    """Reads and validates a pipeline file.

    Args:
        path: the YAML file.
        overrides: `key.path=value` each; a list of stages is addressed by position or stage name (`measure.motion.fps=4`).
        replace: top-level keys set by the command line (`sources`, `run`).
        home: where relative `sources` start; the file's directory by default.

    Raises ConfigError (file, line, key, nearest right key) and UsageError when there is no such file.
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
        # What is typed replaces where footage is looked for, not the rules on what may be found there.
        data[key] = {**given, "from": value} if key == "sources" and isinstance(given, dict) else value
    directory = path.absolute().parent
    return validate(data, document, directory, home or directory)


def validate(data: dict[str, Any], document: Document, directory: Path, home: Path) -> Pipeline:
    """Checks plain values against the models and the stage classes."""
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
            told = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise ConfigError(f"{document.where((*path, key))}: {key}: {told} (got {item[key]!r})") from error
    options = {key: value for key, value in item.items() if key != "use" and key not in RUNNER_KEYS}
    name = runner.pop("name", None) or stages.table_name(item["use"])
    if name in taken:
        raise ConfigError(f"{where}: two tables are called '{name}'; give this stage another `name:`")
    taken.add(name)
    return StageSpec(
        item["use"], name, options, where=where, wheres={key: document.where((*path, key)) for key in options}, **runner
    )


def _keys(loc: Sequence[str | int]) -> tuple[str | int, ...]:
    """What of a place that pydantic names is keys of the file, and not the types that it tried there."""
    return tuple(
        part
        for part in loc
        if isinstance(part, int) or not re.match(r"^(float|int|str|bool|list|constrained|function)", part)
    )


def _sentence(error: ValidationError, document: Document) -> str:
    """The first of pydantic's errors as one sentence."""
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
    """Applies one `key.path=value` to plain values, in place of what was there. Raises UsageError when the path leads nowhere."""
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
    """`part` itself in a mapping; in a list of stages the position of the stage of that name or number."""
    if not isinstance(here, list):
        return part
    names = [item.get("name") or stages.table_name(str(item.get("use"))) for item in here if isinstance(item, dict)]
    if part in names:
        return names.index(part)
    if part.isdigit() and int(part) < len(here):
        return int(part)
    raise UsageError(f"--set {setting}: there is no stage '{part}'{nearest(part, names)}")
