"""Recipes as YAML: `recipes/NAME.yaml`, checked before anything starts.

Every key without a default must be in the file or in the one it `extends`; unknown keys are errors; `key=value` overrides are parsed by the type
of the key. A key under `stages` applies to that stage only. The comment beside a value is its source; `explain` returns both.
"""

import difflib
import re
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml
from pydantic import TypeAdapter, ValidationError

from train_hooks.errors import RecipeError
from train_hooks.recipe import Recipe, out_of_range

RECIPES = Path(__file__).parent / "recipes"
_KINDS = {
    key: kind
    for key, kind in typing.get_type_hints(Recipe, include_extras=True).items()
    if key not in ("name", "stage", "stages")
}
_TYPES = {key: kind for key, kind in typing.get_type_hints(Recipe).items() if key in _KINDS}
_ADAPTERS: dict[str, TypeAdapter[Any]] = {}
_NEEDED = [f.name for f in fields(Recipe) if f.default is MISSING]
_ALIASES = {
    "lr": ("learning_rate", "learningrate", "alpha"),
    "batch": ("batch_size", "train_batch_size", "bs"),
    "steps": (
        "num_steps",
        "n_steps",
        "max_steps",
        "train_steps",
        "max_train_steps",
        "iterations",
        "epochs",
        "num_epochs",
    ),
    "micro_batch": ("micro_batch_size", "gradient_accumulation", "gradient_accumulation_steps", "grad_accum"),
    "frames": ("num_frames", "n_frames", "clip_length"),
    "fps": ("frame_rate", "framerate"),
    "width_px": ("width", "resolution", "size"),
    "height_px": ("height",),
    "base": ("model", "base_model", "pretrained", "pretrained_model", "pretrained_model_name_or_path"),
    "lr_warmup_steps": ("warmup", "warmup_steps", "lr_warmup"),
    "lr_decay": ("scheduler", "lr_scheduler", "lr_schedule"),
    "grad_clip": ("max_grad_norm", "gradient_clip", "clip_grad", "gradient_clipping"),
    "ema_decay": ("ema", "use_ema"),
    "workers": ("num_workers", "dataloader_num_workers"),
    "threads": ("num_threads",),
    "precision": ("dtype", "mixed_precision", "amp"),
    "checkpointing": ("gradient_checkpointing", "activation_checkpointing"),
    "checkpoint_every": ("save_every", "save_steps", "checkpointing_steps", "checkpoint_steps"),
    "log_every": ("logging_steps", "log_steps", "log_interval"),
    "lora_rank": ("rank", "r"),
    "prediction": ("prediction_type", "objective"),
    "min_snr_gamma": ("snr_gamma",),
    "offset_noise": ("noise_offset",),
    "guidance": ("guidance_scale", "cfg", "cfg_scale"),
    "sample_steps": ("num_inference_steps", "inference_steps", "sampling_steps"),
    "seed": ("random_seed", "random_state"),
    "heldout_share": ("val_split", "validation_split"),
    "heldout_every": ("eval_every", "validation_steps", "eval_steps"),
}
"""Names that other trainers use for a key; an unknown key is looked up here before the nearest spelling is searched."""


class Explained(NamedTuple):
    """A value of a recipe and where it comes from."""

    key: str
    value: str
    source: str


def known_recipes() -> list[str]:
    """Names of the recipes that ship with the package."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def load_recipe(name: str, overrides: Mapping[str, str] | None = None) -> Recipe:
    """Reads a recipe by its name, or from a YAML file, and applies `key=value` overrides to every stage.

    Raises RecipeError for an unknown recipe, an unknown or missing key, or a value that does not parse.
    """
    values: dict[str, Any] = {}
    stages: list[dict[str, Any]] = []
    for path in _chain(name):
        given = _read(path)
        source = f"recipe {path.stem}"
        own = given.pop("stages", None) or []
        stages = [_stage(f"{source}, stage {i + 1}", stage) for i, stage in enumerate(own)] or stages
        values |= _parsed(source, {key: raw for key, raw in given.items() if key != "extends"})
    missing = sorted(key for key in _NEEDED if key not in values)
    if missing:
        raise RecipeError(f"recipe {name}: missing {', '.join(missing)}")
    whole = sum(stage["steps"] for stage in stages)
    if stages and whole != values["steps"]:
        raise RecipeError(
            f"recipe {name}: its stages have {whole} steps, and steps is {values['steps']}; make them equal"
        )
    changed = _parsed("--set", dict(overrides or {}))
    stages = [
        {key: value for key, value in s.items() if key in ("steps", "stage") or key not in changed} for s in stages
    ]
    recipe = Recipe(name=Path(name).stem, stages=tuple(stages), **{**values, **changed})
    recipe.plan()
    return recipe


def check_value(key: str, value: Any) -> None:
    """Raises RecipeError when a value is not of the type of its key."""
    _parse("recipe", key, value)


def whole_name(recipe: str) -> str:
    """The recipe's name, or the absolute path of its file, for a process with another working directory."""
    return str(Path(recipe).absolute()) if recipe.endswith((".yaml", ".yml")) else recipe


def explain(name: str) -> list[Explained]:
    """Every value of a recipe with its source: the comment beside it. Raises RecipeError as `load_recipe` does."""
    load_recipe(name)
    rows: dict[str, Explained] = {}
    for path in _chain(name):
        found = _commented(path.read_text(encoding="utf-8"))
        if any(row.key.startswith("stage ") for row in found):
            rows = {key: row for key, row in rows.items() if not key.startswith("stage ")}
        rows |= {row.key: row for row in found}
    return list(rows.values())


def _commented(text: str) -> list[Explained]:
    """The values of a recipe's text with their comments; a comment may continue on further lines, indented by 8 or more."""
    rows: list[Explained] = []
    stage = 0
    for line in text.splitlines():
        stage += line.lstrip().startswith("- ")
        found = re.match(r"(\s*(?:- )?)(\w+):\s*([^#]*?)\s*(?:#\s*(.*))?$", line)
        more = re.match(r"\s{8,}#\s*(.*)$", line)
        if found and found[2] not in ("stages", "extends"):
            where = f"stage {stage}: " if found[1] else ""
            rows.append(Explained(where + found[2], found[3].strip("'\""), found[4] or ""))
        elif more and rows:
            rows[-1] = rows[-1]._replace(source=f"{rows[-1].source} {more[1]}")
    return rows


def _chain(name: str) -> list[Path]:
    """The files of a recipe, the one that all others extend first."""
    paths: list[Path] = []
    while name:
        path = Path(name) if name.endswith((".yaml", ".yml")) else RECIPES / f"{name}.yaml"
        if not path.is_file() or path in paths:
            raise RecipeError(f"there is no recipe '{name}'; the known ones are: {', '.join(known_recipes())}")
        paths.insert(0, path)
        name = str(_read(path).get("extends") or "")
    return paths


def _read(path: Path) -> dict[str, Any]:
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(given, dict):
        raise RecipeError(f"{path} is not a recipe: expected lines of `key: value`")
    return given


def _parsed(source: str, pairs: Any) -> dict[str, Any]:
    if not isinstance(pairs, Mapping):
        raise RecipeError(f"{source}: expected `key: value`, got {pairs!r}")
    for key in pairs:
        if key not in _TYPES:
            raise RecipeError(f"{source}: unknown key '{key}'{_nearest(str(key))}")
    return {key: _parse(source, key, raw) for key, raw in pairs.items()}


def _stage(source: str, pairs: Any) -> dict[str, Any]:
    """A stage: its name, and the keys that it sets."""
    if not isinstance(pairs, Mapping) or "steps" not in pairs:
        raise RecipeError(f"{source}: expected `key: value`, steps among them, got {pairs!r}")
    return {"stage": str(pairs.get("stage", "")), **_parsed(source, {k: v for k, v in pairs.items() if k != "stage"})}


def _parse(source: str, key: str, raw: Any) -> Any:
    """A YAML value, or the text after `=`, as the type of its key."""
    adapter = _ADAPTERS.get(key) or _ADAPTERS.setdefault(key, TypeAdapter(_KINDS[key]))
    wrong = RecipeError(f"{source}: {key} must be {_described(_TYPES[key])}, got {raw!r}")
    try:
        value = adapter.validate_python(raw)
    except ValidationError as error:
        limit = out_of_range(error)
        raise (RecipeError(f"{source}: {key} {limit}, got {raw}") if limit else wrong) from None
    except TypeError:
        raise wrong from None
    if value == () and _TYPES[key] == tuple[int, ...]:
        raise wrong
    return value


def _described(kind: Any) -> str:
    if typing.get_origin(kind) is tuple:
        whole = typing.get_args(kind)[0] is int
        return "a list of whole numbers such as 32,64" if whole else "a list of texts such as [one, two]"
    if typing.get_origin(kind) is Literal:
        return "one of " + ", ".join(typing.get_args(kind))
    return {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}[kind]


def _nearest(wrong: str) -> str:
    plain = wrong.lower().replace("-", "_")
    for key, names in _ALIASES.items():
        if plain in names:
            return f"; did you mean '{key}'?"
    found = difflib.get_close_matches(wrong, _TYPES, n=1, cutoff=0.6)
    return f"; did you mean '{found[0]}'?" if found else f"; the keys are: {', '.join(sorted(_TYPES))}"
