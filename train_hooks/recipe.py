"""A recipe: every number of a finetuning run, and which of them go together.

What each value is and where it comes from stands in `recipes/*.yaml`; how these are read, in `recipe_files.py`. Units are in the names.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from train_hooks.errors import RecipeError
from train_hooks.size import Size

VAE_FACTOR = 8
"""How many times smaller a latent frame is than the frame, per side, in every VAE of Stable Diffusion."""

Architecture = Literal["unet3d", "spatiotemporal", "videocrafter", "lavie"]
Precision = Literal["fp32", "bf16", "fp16"]
Prediction = Literal["epsilon", "v_prediction", "sample", "edm"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The keys of a recipe; `recipes/*.yaml` says what each value is and where it comes from.

    Raises RecipeError when values do not fit together.
    """

    name: str = ""
    stage: str = ""
    stages: tuple[Mapping[str, Any], ...] = ()
    # what a training sample is
    frames: int
    fps: float
    width_px: int
    height_px: int
    windows_per_clip: int
    buckets: tuple[str, ...]
    tagged_frames: bool
    images_per_video: int
    still_frame: Literal["first", "middle", "last"]
    image_folder: str
    image_loss_weight: float
    image_rank_share: float
    # the base, and what is made of it
    base: str
    family: Literal["sd1", "sd2"]
    architecture: Architecture
    temporal_convs: bool
    frame_positions: Literal["none", "shaw", "rotary"]
    fps_condition: bool
    image_condition: Literal["none", "concatenate", "attention"]
    # what of it is trained
    trainable: Literal["all", "temporal", "spatial", "attention", "lora"]
    lora_layers: Literal["all", "temporal", "spatial"]
    lora_rank: int
    inherited_grad_scale: float
    checkpointing: Literal["none", "blocks", "selective"]
    fast: bool
    compile: bool
    precision: Precision
    bf16_weights: bool
    # the objective
    prediction: Prediction
    schedule: Literal["scaled_linear", "linear", "squaredcos_cap_v2"]
    beta_start: float
    beta_end: float
    zero_terminal_snr: bool
    min_snr_gamma: float
    offset_noise: float
    signal_scale: float
    timestep_power: float
    stratified_timesteps: bool
    sigma_log_mean: float
    sigma_log_std: float
    caption_dropout: float
    image_noise_log_mean: float
    image_noise_log_std: float
    image_dropout: float
    sample_posterior: bool
    # the loop
    steps: int
    batch: int
    micro_batch: int
    lr: float
    lr_warmup_steps: int
    lr_decay: Literal["cosine", "constant"]
    weight_decay: float
    grad_clip: float
    ema_decay: float
    overfit: int
    log_every: int
    heldout_share: float
    heldout_every: int
    checkpoint_every: int
    checkpoint_keep: int
    max_broken_share: float
    seed: int
    threads: int
    workers: int
    # the sample at the end
    sampler: Literal["ddim", "dpm++", "euler"]
    sample_steps: int
    guidance: float
    first_frame_guidance: float
    sample_every: int
    sample_prompts: tuple[str, ...]
    clip_weights: str
    fvd_weights: str
    # the base that is built where `base` is empty: Stable Diffusion's architecture, small and random
    vae_channels: tuple[int, ...] = ()
    latent_channels: int = 4
    vae_fit_steps: int = 0
    vae_fit_batch: int = 1
    vae_fit_lr: float = 1e-4
    unet_channels: tuple[int, ...] = ()
    unet_layers_per_block: int = 1
    head_dim: int = 1
    text_width: int = 1
    text_layers: int = 1

    def __post_init__(self) -> None:
        for key, value in asdict(self).items():
            if key in ("stages", *_ANY_SIGN) or isinstance(value, bool):
                continue
            numbers = [v for v in (value if isinstance(value, tuple) else (value,)) if isinstance(v, int | float)]
            if key in _MAY_BE_ZERO:
                if any(not v >= 0 for v in numbers):
                    raise RecipeError(f"{key} must be 0 or more, got {value}")
            elif any(not v > 0 for v in numbers):
                raise RecipeError(f"{key} must be above 0, got {value}")
        for key in (
            "caption_dropout",
            "image_dropout",
            "heldout_share",
            "image_rank_share",
            "ema_decay",
            "max_broken_share",
        ):
            if getattr(self, key) >= 1:
                raise RecipeError(f"{key} must be below 1, got {getattr(self, key)}")
        self._check_fit()
        if not self.base:
            self._check_tiny()

    def _check_fit(self) -> None:
        for text in self.buckets:
            try:
                Size.named(text)
            except ValueError as error:
                raise RecipeError(f"buckets: {error}") from None
        if self.bf16_weights and self.precision != "bf16":
            raise RecipeError(f"bf16_weights goes with precision 'bf16', got '{self.precision}'")
        if self.image_folder and not self.images_per_video:
            raise RecipeError("image_folder needs images_per_video above 0")
        edm, spatiotemporal = self.prediction == "edm", self.architecture == "spatiotemporal"
        if edm and self.sampler != "euler":
            raise RecipeError(f"prediction 'edm' is sampled with 'euler', got '{self.sampler}'")
        if self.zero_terminal_snr and self.prediction in ("epsilon", "edm"):
            told = "nothing can be learned of noise where there is no signal (Lin et al. 2023); use 'v_prediction'"
            raise RecipeError(f"zero_terminal_snr does not go with prediction '{self.prediction}': {told}")
        if self.min_snr_gamma and edm:
            raise RecipeError("min_snr_gamma does not go with prediction 'edm', whose weights are its own")
        if self.signal_scale != 1 and self.sampler != "ddim":
            raise RecipeError(f"signal_scale is undone by 'ddim' alone, got sampler '{self.sampler}'")
        if self.image_condition == "concatenate" and not spatiotemporal:
            raise RecipeError("image_condition 'concatenate' needs architecture 'spatiotemporal'")
        if self.image_condition == "attention" and self.architecture != "videocrafter":
            raise RecipeError("image_condition 'attention' needs architecture 'videocrafter'")
        if self.images_per_video and self.image_rank_share:
            raise RecipeError("images_per_video and image_rank_share are two ways to the same; set one of them to 0")
        if (self.architecture == "lavie") != (self.frame_positions == "rotary"):
            raise RecipeError("frame_positions 'rotary' belongs to architecture 'lavie', and no other goes with it")
        if self.fps_condition and self.architecture == "lavie":
            raise RecipeError("LaVie has no fps_condition")
        if self.architecture == "lavie" and self.temporal_convs:
            raise RecipeError("LaVie has no temporal_convs: its 3D convolutions are 2D ones on each frame")

    def _check_tiny(self) -> None:
        if not self.vae_channels or not self.unet_channels:
            raise RecipeError("base is empty: give a diffusers folder or a hub id,  --set base=PATH")
        # TextToVideoSDPipeline asks for multiples of 8; every level of the UNet but the last halves the latents.
        step_px = max(8, self.latent_factor * 2 ** (len(self.unet_channels) - 1))
        for size in self.sizes:
            for key, value in zip(("width_px", "height_px"), size, strict=False):
                if value % step_px:
                    raise RecipeError(f"{key} must be a multiple of {step_px} for this VAE and UNet, got {value}")
        spatiotemporal = self.architecture == "spatiotemporal"
        for key, groups in (("vae_channels", 8), ("unet_channels", 32 if spatiotemporal else 8)):
            if any(c % groups for c in getattr(self, key)):
                told = f"the number of norm groups, got {list(getattr(self, key))}"
                raise RecipeError(f"{key} must be multiples of {groups}, {told}")
        if any(c % self.head_dim for c in (*self.unet_channels, self.text_width)):
            raise RecipeError(f"unet_channels and text_width must be multiples of head_dim, {self.head_dim}")

    @property
    def sizes(self) -> tuple[Size, ...]:
        """The sizes of the buckets, the recipe's own first."""
        own = Size(self.width_px, self.height_px, self.frames)
        return tuple(dict.fromkeys([own, *map(Size.named, self.buckets)]))

    @property
    def latent_factor(self) -> int:
        """How many times smaller a latent frame is than the frame, per side."""
        return VAE_FACTOR if self.base else int(2 ** (len(self.vae_channels) - 1))

    def shown(self) -> "Recipe":
        """The stage as which a finished model is measured and sampled: the last of those with most frames."""
        plan = self.plan()
        return max(reversed(plan), key=lambda stage: stage.frames)

    def plan(self) -> list["Recipe"]:
        """A recipe for each stage, in order, without stages; where `steps` was set to another sum, theirs are scaled to it.

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


_MAY_BE_ZERO = {
    "caption_dropout", "heldout_share", "lr_warmup_steps", "weight_decay", "vae_fit_steps", "seed", "guidance", "images_per_video",
    "image_loss_weight", "image_rank_share", "image_dropout", "min_snr_gamma", "offset_noise", "ema_decay", "lora_rank",
    "first_frame_guidance", "overfit", "micro_batch", "heldout_every", "max_broken_share", "workers", "sample_every",
}  # fmt: skip
_ANY_SIGN = {"sigma_log_mean", "image_noise_log_mean"}
