"""`pipeline.yaml` as validated objects.

Every error names the file, the line, the key and the nearest valid key. The whole file is validated before anything runs.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from curate.cluster.pool import Workers
from curate.config.buckets import aspect_of
from curate.stages.stage import StageSpec
from curate.video.limits import Limits

PERCENTILE = re.compile(r"p(100|\d{1,2}(\.\d+)?)")


def _bound(value: Any) -> float | str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str) and PERCENTILE.fullmatch(value):
        return value
    raise ValueError("expected a number, or a percentile of this run such as p25, from p0 to p100")


Bound = Annotated[float | str, BeforeValidator(_bound)]
Scalar = str | bool | int | float


class Strict(BaseModel):
    """A model that rejects unknown keys and is immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ScanConfig(Strict):
    """How sources are split into clips, and the thumbnails that every later stage reads."""

    cuts: dict[str, Any] = {"use": "curate.cuts.Cascade"}
    """The cut detector: `use:` and its options."""
    min_clip_s: float = Field(2.0, ge=0)
    """Shorter spans between two cuts are not clips; the ledger counts them as too short. 2 s is the minimum of cosmos-curate (field.md)."""
    max_clip_s: float = Field(10.0, gt=0)
    """Longer shots are divided as `long_shots` says. Ours; NeMo Curator's TransNetV2 default is 10 s too."""
    long_shots: Literal["even", "stride"] = "even"
    """How a shot longer than `max_clip_s` is divided: into equal parts, or every `max_clip_s` with a shorter remainder."""
    align: Literal["exact", "keyframe"] = "exact"
    """`exact` clips begin and end at the boundary; `keyframe` shrinks them inward to keyframes, as SVD does, so that they can be copied
    without re-encoding and without crossing a cut (`shards.mode: copy`). The ledger counts the removed seconds as unaligned."""
    thumb_fps: float = Field(2.0, gt=0, le=30)
    """Thumbnails per second of clip. SVD measured motion at 2 fps."""
    thumb_short_side_px: int = Field(360, ge=16, le=2160)
    """Thumbnails are never larger than the source."""
    thumb_quality: int = Field(90, ge=1, le=100)
    """JPEG quality. Ours: at 90, text detection and optical flow change by less than their own noise."""
    window_s: float = Field(300.0, ge=1)
    """Sources longer than this are scanned in windows that start at keyframes."""
    timeout_floor_s: float = Field(60.0, gt=0)
    timeout_factor: float = Field(8.0, gt=0)
    """The decoder of a window is killed after `timeout_floor_s + timeout_factor * seconds of the window` of wall time. Ours."""
    memory_mb: int = Field(4096, ge=256)
    """A decoder is killed when its resident memory exceeds this. Ours."""
    workers: Workers = None
    """The number of workers: `4`, or `[1, 8]` to start with one and grow to eight. By default as many as fit."""
    max_megapixels: float = Field(Limits.max_megapixels, gt=0)
    """Files with larger frames are rejected. Ours; 16K has 133 megapixels."""
    max_hours: float = Field(Limits.max_hours, gt=0)
    """Files whose header declares a longer duration are rejected. Ours; a week."""
    max_streams: int = Field(Limits.max_streams, ge=1)
    """Files with more streams (video, audio, subtitles, attachments) are rejected. Ours."""
    max_metadata_mb: float = Field(Limits.max_metadata_mb, gt=0)
    """Files with more metadata are rejected. Ours."""

    @property
    def file_limits(self) -> Limits:
        """The limits that the scan applies to each file."""
        return Limits(**{name: getattr(self, name) for name in Limits.__dataclass_fields__})

    @model_validator(mode="after")
    def _lengths(self) -> "ScanConfig":
        if self.max_clip_s < self.min_clip_s * 2:
            raise ValueError("max_clip_s must be at least twice min_clip_s, or a long shot cannot be divided")
        if self.min_clip_s * self.thumb_fps < 1.5:
            raise ValueError("min_clip_s must be at least 1.5 / thumb_fps, or a clip may have no thumbnail")
        if self.window_s < self.max_clip_s:
            raise ValueError("window_s must be at least max_clip_s")
        return self


class Rule(Strict):
    """One line of `keep:`. Bounds are inclusive; `p25` is the 25th percentile of this run's values."""

    above: Bound | None = None
    below: Bound | None = None
    is_: Scalar | list[Scalar] | None = Field(None, alias="is")

    @model_validator(mode="after")
    def _not_empty(self) -> "Rule":
        if self.above is None and self.below is None and self.is_ is None:
            raise ValueError("a rule needs 'above', 'below' or 'is'")
        return self


class BucketsConfig(Strict):
    """The groups of clips that fit into one batch (curate/config/buckets.py). All three default lists are ours; trainers differ."""

    aspects: list[str] = ["21:9", "16:9", "3:2", "4:3", "1:1", "3:4", "2:3", "9:16"]
    short_sides_px: list[Annotated[int, Field(ge=16)]] = [64, 144, 240, 360, 480, 720, 1080, 2160]
    frames: list[Annotated[int, Field(ge=1)]] | Annotated[str, Field(pattern=r"^[1-9]\d*n\+\d+$")] = [
        1, 9, 17, 25, 33, 49, 65, 81, 97, 121, 161, 193, 241,
    ]  # fmt: skip
    """A list, or `4n+1` for any number of that form. The default values are 8n+1 and therefore 4n+1: video VAEs that
    compress time by 8 (LTX-Video) or 4 (Wan, CogVideoX) need such frame counts."""

    @model_validator(mode="after")
    def _no_empty_list(self) -> "BucketsConfig":
        if not self.aspects or not self.short_sides_px or not self.frames:
            raise ValueError("aspects, short_sides_px and frames must not be empty")
        for text in self.aspects:
            aspect_of(text)
        return self


class ShardsConfig(Strict):
    """How kept clips are written into shards."""

    mode: Literal["exact", "copy", "auto"] = "exact"
    """`exact` re-encodes and is exact to the frame; `copy` copies the source's packets from the first keyframe inside the clip (SVD); `auto`
    copies the clips that lose no more than `tolerance_s` and re-encodes the others."""
    tolerance_s: float = Field(0.1, ge=0)
    """In `auto`, the maximum number of seconds that a copied clip may lose at each end. Ours."""
    audio: bool = False
    """Whether clips keep the source's audio."""
    crop: bool = False
    """Whether the black bars that the scan found are cropped."""
    short_side_px: int | None = Field(None, ge=16)
    fps: float | None = Field(None, gt=0)
    crf: int = Field(18, ge=0, le=51)
    gop: int = Field(32, ge=1)
    """Maximum distance between keyframes of encoded clips, in frames: a loader decodes up to this many frames to read one. Ours."""
    target_mb: float = Field(256.0, gt=0)
    """Target size of one shard, estimated from the duration and frame size of the clips."""
    buckets: BucketsConfig = BucketsConfig()
    caption: dict[str, Annotated[float, Field(gt=0)]] = {}
    """The caption mix for training: captioner to share, as in `{coca: 0.5, vlm: 0.25, summary: 0.25}` (SVD). Empty: only the first captioner."""
    suffix: dict[str, dict[str, Rule]] = {}
    """Texts appended to the training caption of a clip that passes all their rules (as under `keep`), as in
    `{", with watermark": {watermark: {above: 0.5}}}`. Like the mix, they are applied when training reads the shards."""
    workers: Workers = None
    """The number of workers: `4`, or `[1, 8]` to start with one and grow to eight. By default as many as fit."""


class TrainConfig(Strict):
    """A finetuning at the end of a run, as with `rushes train` (docs/training.md)."""

    recipe: str = "tiny"
    """The name of a recipe, or the path of a YAML file."""
    out: str | None = None
    """The output directory of the training; by default `train/RECIPE` in the run directory."""
    set: dict[str, Any] = {}
    """Overrides for values of the recipe."""
    workers: int = Field(0, ge=0)
    """Number of ranks on the Ray cluster; 0 trains in the process of the pipeline. With more than one node, the run directory must be shared."""
    gpus_per_worker: float = Field(1.0, ge=0)
    max_failures: int = Field(3, ge=0)
    """The training fails after more than this many worker failures. Ours."""


class SourcesConfig(Strict):
    """Where raw footage is searched. A string or a list is short for `{from: ...}`."""

    from_: list[str] = Field(min_length=1, alias="from")
    """Globs, directories, files or manifests."""
    root: str | None = None
    """A directory or URI that must contain every source, also those in manifests (curate/scan/uri_policy.py)."""
    allow: list[str] = []
    """Additional permissions for manifests: protocols (`file`, `sftp`, `zip`), hosts (`10.0.0.5`), or `credentials` in URIs."""

    @model_validator(mode="before")
    @classmethod
    def _from_shorthand(cls, data: Any) -> Any:
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
    """A finetuning on the shards; without it a run ends when the shards are written."""
    max_error_share: float = Field(0.5, ge=0, le=1)
    """The run stops when more than this share of the rows of a table (of at least 20) fails: the cause is then a broken stage, not bad data."""


def _gpus(gpus: float) -> float:
    if gpus > 1 and gpus != int(gpus):
        raise ValueError("must be a fraction of one GPU such as 0.25, or a whole number of GPUs")
    return gpus


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
    """A validated pipeline file: the configuration, its stages and its plain values."""

    config: Config
    cuts: StageSpec
    measure: tuple[StageSpec, ...]
    caption: tuple[StageSpec, ...]
    embed: StageSpec | None
    directory: Path
    """The directory of the file; a user's own stages are imported from here."""
    home: Path
    """The base directory of relative `sources`: the same directory, except in a submitted job or for sources on the command line."""
    resolved: Mapping[str, Any]
    """The values after overrides and variables are applied, as stored in index.json."""
