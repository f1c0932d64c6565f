"""A recipe: every number of a finetuning run, read from `recipes/NAME.yaml` and checked before anything starts.

All keys must be present in the file, unknown ones are errors, and `key=value` overrides are parsed by the type of the
key. Units are in the names (`_px`, `_s`, `fps`); latents are 2 ** (len(vae_channels) - 1) times smaller than pixels.
"""

import difflib
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from train_hooks.errors import RecipeError

RECIPES = Path(__file__).parent / "recipes"

Prediction = Literal["epsilon", "v_prediction", "sample"]


@dataclass(frozen=True)
class Recipe:
    """The keys of a recipe; `recipes/*.yaml` says what each value is and where it comes from.

    Raises RecipeError when values do not fit together.
    """

    # what a training sample is
    frames: int
    fps: float
    width_px: int
    height_px: int
    windows_per_clip: int
    # the base model
    vae_channels: tuple[int, ...]
    latent_channels: int
    vae_fit_steps: int
    vae_fit_batch: int
    vae_fit_lr: float
    unet_channels: tuple[int, ...]
    unet_layers_per_block: int
    head_dim: int
    text_width: int
    text_layers: int
    # the objective
    prediction: Prediction
    timestep_power: float
    caption_dropout: float
    # the loop
    steps: int
    batch: int
    lr: float
    lr_warmup_steps: int
    weight_decay: float
    grad_clip: float
    log_every: int
    heldout_share: float
    seed: int
    threads: int
    # the sample at the end
    sample_steps: int
    guidance: float
    name: str = ""

    def __post_init__(self) -> None:
        for key, value in asdict(self).items():
            numbers = [v for v in (value if isinstance(value, tuple) else (value,)) if isinstance(v, int | float)]
            if key in _MAY_BE_ZERO:
                if any(not v >= 0 for v in numbers):
                    raise RecipeError(f"{key} must be 0 or more, got {value}")
            elif any(not v > 0 for v in numbers):
                raise RecipeError(f"{key} must be above 0, got {value}")
        for key in ("caption_dropout", "heldout_share"):
            if getattr(self, key) >= 1:
                raise RecipeError(f"{key} must be below 1, got {getattr(self, key)}")
        # TextToVideoSDPipeline asks for multiples of 8; every level of the UNet but the last halves the latents.
        step_px = max(8, self.latent_factor * 2 ** (len(self.unet_channels) - 1))
        for key in ("width_px", "height_px"):
            if getattr(self, key) % step_px:
                raise RecipeError(
                    f"{key} must be a multiple of {step_px} for this VAE and UNet, got {getattr(self, key)}"
                )
        for key in ("vae_channels", "unet_channels"):
            if any(c % 8 for c in getattr(self, key)):
                raise RecipeError(
                    f"{key} must be multiples of 8, the number of norm groups, got {list(getattr(self, key))}"
                )
        if any(c % self.head_dim for c in (*self.unet_channels, self.text_width)):
            raise RecipeError(f"unet_channels and text_width must be multiples of head_dim, {self.head_dim}")

    @property
    def latent_factor(self) -> int:
        """How many times smaller a latent frame is than the frame, per side."""
        return int(2 ** (len(self.vae_channels) - 1))


_MAY_BE_ZERO = {
    "caption_dropout", "heldout_share", "lr_warmup_steps", "weight_decay", "vae_fit_steps", "seed", "guidance",
}  # fmt: skip
_TYPES = {key: kind for key, kind in typing.get_type_hints(Recipe).items() if key != "name"}


def known_recipes() -> list[str]:
    """Names of the recipes that ship with the package."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def load_recipe(name: str, overrides: Mapping[str, str] | None = None) -> Recipe:
    """Reads a recipe by name and applies `key=value` overrides.

    Raises RecipeError for an unknown recipe, an unknown or missing key, or a value that does not parse.
    """
    if name not in known_recipes():
        raise RecipeError(f"there is no recipe '{name}'; the known ones are: {', '.join(known_recipes())}")
    path = RECIPES / f"{name}.yaml"
    given: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    values: dict[str, Any] = {}
    for source, pairs in ((f"recipe {name}", given), ("--set", dict(overrides or {}))):
        for key, raw in pairs.items():
            if key not in _TYPES:
                raise RecipeError(f"{source}: unknown key '{key}'{_nearest(key)}")
            values[key] = _parse(source, key, raw)
    missing = sorted(_TYPES.keys() - values.keys())
    if missing:
        raise RecipeError(f"recipe {name}: missing {', '.join(missing)}")
    return Recipe(name=name, **values)


def _parse(source: str, key: str, raw: Any) -> Any:
    """Turns a YAML value or the text after `=` into the type of the key."""
    kind = _TYPES[key]
    wrong = RecipeError(f"{source}: {key} must be {_described(kind)}, got {raw!r}")
    try:
        if typing.get_origin(kind) is tuple:
            parts = raw.strip("[]() ").split(",") if isinstance(raw, str) else list(raw)
            if not parts:
                raise wrong
            return tuple(int(part) for part in parts)
        if typing.get_origin(kind) is Literal:
            if raw not in typing.get_args(kind):
                raise wrong
            return raw
        if isinstance(raw, bool) or (kind is int and isinstance(raw, float)):
            raise wrong
        number = kind(raw)
    except (TypeError, ValueError):
        raise wrong from None
    return number


def _described(kind: Any) -> str:
    if typing.get_origin(kind) is tuple:
        return "a list of whole numbers such as 32,64"
    if typing.get_origin(kind) is Literal:
        return "one of " + ", ".join(typing.get_args(kind))
    return {int: "a whole number", float: "a number"}[kind]


def _nearest(wrong: str) -> str:
    found = difflib.get_close_matches(wrong, _TYPES, n=1, cutoff=0.6)
    return f"; did you mean '{found[0]}'?" if found else f"; the keys are: {', '.join(sorted(_TYPES))}"
