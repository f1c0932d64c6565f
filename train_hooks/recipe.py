"""A recipe: every number of a finetuning run, and the rules that its values must keep together.

The keys are grouped by subject, one class for each; `Recipe` joins them. The meaning and source of every value are in `recipes/*.yaml`;
`recipe_files.py` reads those. Units are in the names.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from train_hooks.errors import RecipeError
from train_hooks.size import Size

VAE_FACTOR = 8
"""Pixels per latent, per side, in every VAE of Stable Diffusion."""

Architecture = Literal["unet3d", "spatiotemporal", "videocrafter", "lavie"]
Precision = Literal["fp32", "bf16", "fp16"]
Prediction = Literal["epsilon", "v_prediction", "sample", "edm"]


# -- types of values, as YAML or as the text of `--set KEY=VALUE`


def _whole(raw: Any) -> int:
    if isinstance(raw, bool | float):
        raise ValueError("not a whole number")
    return int(raw)


def _number(raw: Any) -> float:
    if isinstance(raw, bool):
        raise ValueError("not a number")
    return float(raw)


def _flag(raw: Any) -> bool:
    text = str(raw).lower()
    if text not in ("true", "false"):
        raise ValueError("neither true nor false")
    return text == "true"


def _text(raw: Any) -> str:
    return "" if raw is None else str(raw)


def _list(raw: Any) -> Any:
    """`32,64` or `[32, 64]` as a list."""
    if not isinstance(raw, str):
        return tuple(raw)
    try:
        return tuple(yaml.safe_load(f"[{raw.strip('[]() ')}]"))
    except yaml.YAMLError:
        raise ValueError("not a list") from None


_Whole = Annotated[int, BeforeValidator(_whole)]
_Number = Annotated[float, BeforeValidator(_number)]
Count = Annotated[_Whole, Field(gt=0)]
CountOrZero = Annotated[_Whole, Field(ge=0)]
Positive = Annotated[_Number, Field(gt=0)]
NotNegative = Annotated[_Number, Field(ge=0)]
AnyNumber = _Number
Share = Annotated[_Number, Field(ge=0, lt=1)]
Flag = Annotated[bool, BeforeValidator(_flag)]
Text = Annotated[str, BeforeValidator(_text)]
Texts = Annotated[tuple[Text, ...], BeforeValidator(_list)]
Widths = Annotated[tuple[Count, ...], BeforeValidator(_list)]


_LIMITS = {
    "greater_than": "must be above {gt:g}",
    "greater_than_equal": "must be {ge:g} or more",
    "less_than": "must be below {lt:g}",
}


def out_of_range(error: ValidationError) -> str:
    """The limit that a value breaks, as in `must be above 0`; empty where the value has the wrong type."""
    first = error.errors(include_url=False)[0]
    return _LIMITS[first["type"]].format(**first["ctx"]) if first["type"] in _LIMITS else ""


# -- the keys, by subject


@dataclass(frozen=True, kw_only=True)
class SampleKeys:
    """What a training sample is."""

    frames: Count
    fps: Positive
    width_px: Count
    height_px: Count
    windows_per_clip: Count
    buckets: Texts
    tagged_frames: Flag
    images_per_video: CountOrZero
    still_frame: Literal["first", "middle", "last"]
    image_folder: Text
    image_loss_weight: NotNegative
    image_rank_share: Share


@dataclass(frozen=True, kw_only=True)
class BaseKeys:
    """The base model, and the video model that is built from it."""

    base: Text
    family: Literal["sd1", "sd2"]
    architecture: Architecture
    temporal_convs: Flag
    frame_positions: Literal["none", "shaw", "rotary"]
    fps_condition: Flag
    image_condition: Literal["none", "concatenate", "attention"]


@dataclass(frozen=True, kw_only=True)
class WeightKeys:
    """Which weights are trained, and in which precision."""

    trainable: Literal["all", "temporal", "spatial", "attention", "lora"]
    lora_layers: Literal["all", "temporal", "spatial"]
    lora_rank: CountOrZero
    inherited_grad_scale: Positive
    checkpointing: Literal["none", "blocks", "selective"]
    fast: Flag
    compile: Flag
    precision: Precision
    bf16_weights: Flag


@dataclass(frozen=True, kw_only=True)
class ObjectiveKeys:
    """Noise, prediction target and dropout of conditions."""

    prediction: Prediction
    schedule: Literal["scaled_linear", "linear", "squaredcos_cap_v2"]
    beta_start: Positive
    beta_end: Positive
    zero_terminal_snr: Flag
    min_snr_gamma: NotNegative
    offset_noise: NotNegative
    signal_scale: Positive
    timestep_power: Positive
    stratified_timesteps: Flag
    sigma_log_mean: AnyNumber
    sigma_log_std: Positive
    caption_dropout: Share
    image_noise_log_mean: AnyNumber
    image_noise_log_std: Positive
    image_dropout: Share
    sample_posterior: Flag


@dataclass(frozen=True, kw_only=True)
class LoopKeys:
    """Steps, optimizer, logging, checkpoints and workers."""

    steps: Count
    batch: Count
    micro_batch: CountOrZero
    lr: Positive
    lr_warmup_steps: CountOrZero
    lr_decay: Literal["cosine", "constant"]
    weight_decay: NotNegative
    grad_clip: Positive
    ema_decay: Share
    overfit: CountOrZero
    log_every: Count
    heldout_share: Share
    heldout_every: CountOrZero
    checkpoint_every: Count
    checkpoint_keep: Count
    max_broken_share: Share
    seed: CountOrZero
    threads: Count
    workers: CountOrZero


@dataclass(frozen=True, kw_only=True)
class SamplingKeys:
    """Samples while training and at the end, and the weights that judge them."""

    sampler: Literal["ddim", "dpm++", "euler"]
    sample_steps: Count
    guidance: NotNegative
    first_frame_guidance: NotNegative
    sample_every: CountOrZero
    sample_prompts: Texts
    clip_weights: Text
    fvd_weights: Text


@dataclass(frozen=True, kw_only=True)
class SmallBaseKeys:
    """The small random base of Stable Diffusion's architecture that is built where `base` is empty."""

    vae_channels: Widths = ()
    latent_channels: Count = 4
    vae_fit_steps: CountOrZero = 0
    vae_fit_batch: Count = 1
    vae_fit_lr: Positive = 1e-4
    unet_channels: Widths = ()
    unet_layers_per_block: Count = 1
    head_dim: Count = 1
    text_width: Count = 1
    text_layers: Count = 1


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Recipe(SmallBaseKeys, SamplingKeys, LoopKeys, ObjectiveKeys, WeightKeys, BaseKeys, SampleKeys):
    """All keys of a recipe. Raises RecipeError, one sentence, when a value is out of range or values do not fit together."""

    name: str = ""
    stage: str = ""
    stages: tuple[Mapping[str, Any], ...] = ()

    @model_validator(mode="wrap")
    @classmethod
    def _in_one_sentence(cls, values: Any, validate: Any) -> Any:
        try:
            return validate(values)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(map(str, first["loc"]))
            if first["type"] in ("missing", "unexpected_keyword_argument"):
                raise TypeError(f"recipe key {key}: {first['msg']}") from None
            raise RecipeError(f"{key} {out_of_range(error) or 'is not valid'}, got {first['input']!r}") from None

    def __post_init__(self) -> None:
        for misfit in (*_objective_misfits(self), *_architecture_misfits(self), *_small_base_misfits(self)):
            raise RecipeError(misfit)

    @property
    def sizes(self) -> tuple[Size, ...]:
        """The sizes of the buckets, the recipe's own first."""
        own = Size(self.width_px, self.height_px, self.frames)
        return tuple(dict.fromkeys([own, *map(Size.named, self.buckets)]))

    @property
    def latent_factor(self) -> int:
        """Pixels per latent, per side."""
        return VAE_FACTOR if self.base else int(2 ** (len(self.vae_channels) - 1))

    def shown(self) -> "Recipe":
        """The stage as which a finished model is measured and sampled: the last of the stages with the most frames."""
        plan = self.plan()
        return max(reversed(plan), key=lambda stage: stage.frames)

    def plan(self) -> list["Recipe"]:
        """One recipe per stage, in order, without stages. Where `steps` differs from the stages' sum, their steps are scaled to it.

        Raises RecipeError when there are fewer steps than stages.
        """
        if not self.stages:
            return [self]
        whole = sum(stage["steps"] for stage in self.stages)
        if self.steps < len(self.stages):
            raise RecipeError(f"{self.steps} steps are too few for the {len(self.stages)} stages of {self.name}")
        ends, done = [], 0
        for i, stage in enumerate(self.stages):
            done += stage["steps"]
            ends.append(max(i + 1, min(round(self.steps * done / whole), self.steps - len(self.stages) + i + 1)))
        steps = [end - begin for begin, end in zip([0, *ends], ends, strict=False)]
        parts = [{**stage, "steps": n, "stages": ()} for stage, n in zip(self.stages, steps, strict=True)]
        return [replace(self, **part) for part in parts]


# -- rules between keys: each yields the sentences of the rules that a recipe breaks


def _objective_misfits(recipe: Recipe) -> Iterator[str]:
    for text in recipe.buckets:
        try:
            Size.named(text)
        except ValueError as error:
            yield f"buckets: {error}"
    if recipe.bf16_weights and recipe.precision != "bf16":
        yield f"bf16_weights needs precision 'bf16', got '{recipe.precision}'"
    if recipe.image_folder and not recipe.images_per_video:
        yield "image_folder needs images_per_video above 0"
    if recipe.prediction == "edm" and recipe.sampler != "euler":
        yield f"prediction 'edm' is sampled with 'euler', got '{recipe.sampler}'"
    if recipe.zero_terminal_snr and recipe.prediction in ("epsilon", "edm"):
        why = "at zero SNR the input has no signal to learn from (Lin et al. 2023); use 'v_prediction'"
        yield f"zero_terminal_snr does not go with prediction '{recipe.prediction}': {why}"
    if recipe.min_snr_gamma and recipe.prediction == "edm":
        yield "min_snr_gamma does not go with prediction 'edm', which has loss weights of its own"
    if recipe.signal_scale != 1 and recipe.sampler != "ddim":
        yield f"signal_scale needs sampler 'ddim', the only one that reverses it, got '{recipe.sampler}'"
    if recipe.images_per_video and recipe.image_rank_share:
        yield "images_per_video and image_rank_share both add stills; set one of them to 0"


def _architecture_misfits(recipe: Recipe) -> Iterator[str]:
    lavie = recipe.architecture == "lavie"
    if recipe.image_condition == "concatenate" and recipe.architecture != "spatiotemporal":
        yield "image_condition 'concatenate' needs architecture 'spatiotemporal'"
    if recipe.image_condition == "attention" and recipe.architecture != "videocrafter":
        yield "image_condition 'attention' needs architecture 'videocrafter'"
    if lavie != (recipe.frame_positions == "rotary"):
        yield "frame_positions 'rotary' and architecture 'lavie' need each other"
    if lavie and recipe.fps_condition:
        yield "architecture 'lavie' has no fps_condition; set it to false"
    if lavie and recipe.temporal_convs:
        yield "architecture 'lavie' has no temporal_convs: its 3D convolutions are 2D ones on each frame; set it to false"


def _small_base_misfits(recipe: Recipe) -> Iterator[str]:
    if recipe.base:
        return
    if not recipe.vae_channels or not recipe.unet_channels:
        yield "base is empty: give a diffusers folder or a hub id,  --set base=PATH"
        return
    # TextToVideoSDPipeline needs multiples of 8; every level of the UNet but the last halves the latents.
    step_px = max(8, recipe.latent_factor * 2 ** (len(recipe.unet_channels) - 1))
    for size in recipe.sizes:
        for key, value in zip(("width_px", "height_px"), size, strict=False):
            if value % step_px:
                yield f"{key} must be a multiple of {step_px} for this VAE and UNet, got {value}"
    unet_groups = 32 if recipe.architecture == "spatiotemporal" else 8
    for key, channels, groups in (
        ("vae_channels", recipe.vae_channels, 8),
        ("unet_channels", recipe.unet_channels, unet_groups),
    ):
        if any(c % groups for c in channels):
            yield f"{key} must be multiples of {groups}, the number of norm groups, got {list(channels)}"
    if any(c % recipe.head_dim for c in (*recipe.unet_channels, recipe.text_width)):
        yield f"unet_channels and text_width must be multiples of head_dim, {recipe.head_dim}"
