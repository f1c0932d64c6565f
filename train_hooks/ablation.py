"""Many small trainings that differ in their clips alone: a job whose units are trainings, each judged and sampled in the same way.

    FOLDER/base/                    where the recipe has no base: one small random one for all, fitted to all clips' frames
    FOLDER/subsets/<name>.txt       the ids of a training's clips
    FOLDER/models/<name>/           the training (`train_hooks/train.py`); its checkpoints go when it is judged
    FOLDER/samples/<name>/00.mp4    of every prompt
    FOLDER/judged/<name>.json       losses and scores; where it is, the training is done

A killed training resumes at its last checkpoint; a judged one is never changed.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from train_hooks.base import hush
from train_hooks.errors import StoppedBySignal, TrainError
from train_hooks.heldout import GRID_LEVELS
from train_hooks.judge import DRAWS, Judge, Prompt, feed_recipe, usable
from train_hooks.out_folder import FOLDER, RECORD
from train_hooks.plan import GIB, fixed_bytes, trials
from train_hooks.prepare import prepare
from train_hooks.recipe import Recipe
from train_hooks.recipe_files import load_recipe
from train_hooks.shard_index import ShardClip, ShardIndex
from train_hooks.stage_feed import build_tiny, feed_of
from train_hooks.tiny_base import name_of_base
from train_hooks.train import train

BASE, SUBSETS, MODELS, SAMPLES, JUDGED = "base", "subsets", "models", "samples", "judged"
OWN = {"heldout_share": "0", "heldout_every": "0", "sample_every": "0"}
"""What every training of an ablation has in common besides its recipe: it trains on all clips it is given, and is judged afterwards."""
BACKWARD = 2.0  # a backward pass takes twice a forward one; what is taken for samples. Usual


@dataclass(frozen=True)
class Cost:
    """What one training takes on this machine, measured on one step of its largest bucket: samples and the judge are passes of the net.

    `sample_s` is one sample's, `judge_clip_s` that of all losses of one clip.
    """

    step_s: float
    steps: int
    sample_s: float
    judge_clip_s: float
    memory_bytes: float
    model_bytes: int
    on_gpu: bool

    @property
    def training_s(self) -> float:
        """Seconds of the steps; what comes before and after them is not in it."""
        return self.step_s * self.steps


@dataclass
class AblationJob:
    """What a worker does: units are `{"name": "motion-25-s0", "seed": 0}`. Picklable.

    Attributes:
        recipe, shards, overrides: as `train`; `shards` and `folder` must be what every worker sees under the same name.
        folder: of the ablation.
        heldout: clip ids to judge on, in groups; no training has them.
        prompts: what is sampled.
        latents: as `train`.
    """

    recipe: str
    shards: str
    folder: str
    overrides: Mapping[str, str]
    heldout: Mapping[str, Sequence[str]]
    prompts: Sequence[Prompt] = field(default_factory=list)
    latents: str | None = None

    def setup(self) -> None:
        """Nothing: a training reads what it needs itself."""

    def work(self, unit: dict[str, Any]) -> dict[str, Any]:
        """Trains, judges and samples. What is wrong with one training is in its receipt, and costs no other."""
        name, folder = unit["name"], Path(self.folder)
        say: Callable[[str], None] = lambda line: _log(name, line)  # noqa: E731
        try:
            whole = load_recipe(self.recipe, {**self.overrides, **OWN, "seed": str(unit["seed"])})
            out = folder / MODELS / name
            _copy_base(whole, folder / BASE, out / FOLDER)
            result = train(
                self.recipe, self.shards, out, {**self.overrides, **OWN, "seed": str(unit["seed"])}, say,
                latents=self.latents if whole.base else "off", clips=folder / SUBSETS / f"{unit['subset']}.txt",
            )  # fmt: skip
            judged = self._judge(out, folder / SAMPLES / name) | {
                "seconds": result.seconds,
                "clips": result.n_clips_used,
            }
        except StoppedBySignal as stopped:
            return {**unit, "stopped": stopped.signal, "reason": str(stopped)}
        except TrainError as error:
            return {**unit, "error": str(error)}
        _put(folder / JUDGED / f"{name}.json", judged)
        shutil.rmtree(out / FOLDER, ignore_errors=True)  # a finished training is not resumed
        return {**unit, "seconds": judged["seconds"]}

    def _judge(self, out: Path, samples: Path) -> dict[str, Any]:
        record = json.loads((out / RECORD).read_text(encoding="utf-8"))
        judge = Judge(out, self.shards, record["motion_quantiles"])
        losses = {group: judge.losses(ids) for group, ids in self.heldout.items() if ids}
        videos = judge.sample(self.prompts, samples)
        real = [clip_id for ids in self.heldout.values() for clip_id in ids]
        return {"losses": losses, "scores": judge.scores(videos, self.prompts, real)}


def clips_of(recipe: Recipe, shards: str) -> tuple[list[ShardClip], dict[str, str], ShardIndex]:
    """The clips that an ablation may draw from, why each of the others cannot be used, and the index of all. Raises TrainError without any."""
    return usable(recipe.shown(), shards)


def make_base(recipe: Recipe, shards: str, folder: Path, say: Callable[[str], None]) -> None:
    """One small random base for all, where the recipe names none: were each VAE fitted to its own clips, losses could not be compared."""
    made = folder / BASE
    if recipe.base or (made / "model_index.json").is_file():
        return
    torch.set_num_threads(recipe.shown().threads)
    hush()
    part = folder / f".{BASE}.part"
    shutil.rmtree(part, ignore_errors=True)
    build_tiny(recipe.shown(), feed_of(feed_recipe(recipe.shown()), shards), part, say)
    part.replace(made)


def cost_of(recipe: Recipe, shards: str) -> Cost:
    """Measures one step, without training. Raises what `train` raises before its first step."""
    quick = replace(recipe, vae_fit_steps=0)
    made = prepare(quick, shards, None, "off" if not recipe.base else None, lambda line: None)
    try:
        step_s = sample_s = judge_clip_s = memory = 0.0
        for stage, feed in zip(made.plan, made.feeds, strict=True):
            trial = trials(made, stage, feed)[0]
            step_s += trial.seconds * -(-stage.batch // trial.micro_batch) * stage.steps / recipe.steps
            memory = max(memory, fixed_bytes(made, stage) + trial.activations_bytes)
            pass_s = trial.seconds / trial.micro_batch / (1 + BACKWARD)
            sample_s = pass_s * 2 * stage.sample_steps  # 2: guidance
            judge_clip_s = pass_s * len(GRID_LEVELS) * DRAWS
        parts = (made.net.unet, made.base.vae, made.base.text_encoder)
        size = sum(p.numel() * 4 for part in parts if part is not None for p in part.parameters())
        on_gpu = made.machine.device.type == "cuda"
        return Cost(step_s, recipe.steps, sample_s, judge_clip_s, memory, size, on_gpu)
    finally:
        made.machine.close()


def _copy_base(recipe: Recipe, base: Path, checkpoints: Path) -> None:
    """Puts the shared base where a training looks for the one that it would make itself."""
    place = checkpoints / name_of_base(recipe.shown())
    if recipe.base or (place / "model_index.json").is_file():
        return
    part = place.with_name(f".{place.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(base, part)
    part.replace(place)


def _log(name: str, line: str) -> None:
    if line.startswith(("step ", "resuming ", "clip ", "memory ")):
        print(f"  {name}: {line}", flush=True)


def _put(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(value), encoding="utf-8")
    part.replace(path)


__all__ = ["GIB", "AblationJob", "Cost", "Prompt", "clips_of", "cost_of", "make_base"]
