"""`rushes train`: finetunes a video model on the shards of a run."""

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table as Grid

from curate.cli.common import console, fail, warn
from curate.cluster import runner
from curate.config.config import TrainConfig
from curate.dataset.run import Run
from curate.errors import UsageError
from curate.run.data import PIPELINE
from curate.tables import store

NEEDED = ("torch", "diffusers", "accelerate", "transformers")
"""Packages without which a run would only find out at its end that it cannot train."""


def shards_of(folder: str) -> str:
    """The folder itself, or the newest shards of a run; a warning where it is an older version of a run's shards."""
    if store.exists(store.join(store.normalise(folder), PIPELINE)):
        return Run.open(folder).shards_root()
    if not store.is_local(folder):
        return folder
    path = Path(store.local_path_of(folder)).absolute()
    run = path.parent if path.name == "shards" else path.parent.parent
    if (run / PIPELINE).is_file() and Path(newest := Run.open(run).shards_root()) != path:
        warn(f"warning: {newest} is a newer version of these shards")
    return folder


def settings_of(settings: list[str] | None) -> dict[str, str]:
    """`--set key=value` as a mapping. Raises UsageError."""
    found = {}
    for setting in settings or []:
        key, equals, value = setting.partition("=")
        if not equals:
            raise UsageError(f"--set {setting}: expected key=value")
        found[key] = value
    return found


def command(
    shards: Annotated[
        str | None,
        typer.Option("--shards", help="A folder or URL with shards and their index.json, or a run: its newest."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Where the finished folder goes.")] = None,
    recipe: Annotated[str, typer.Option("--recipe", help="A recipe's name, or a YAML file.")] = "tiny",
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Sets one value of the recipe; repeatable.")
    ] = None,
    explained: Annotated[
        str | None,
        typer.Option("--explain", metavar="RECIPE", help="Prints a recipe, value by value with its source, and ends."),
    ] = None,
    pickled: Annotated[
        bool, typer.Option("--pickle", help="VideoCrafter and LaVie: their .ckpt or .pt too, beside the safetensors.")
    ] = False,
    planned: Annotated[
        bool, typer.Option("--plan", help="Tells clips, steps, memory and time of every bucket, and ends.")
    ] = False,
    latents: Annotated[
        str | None,
        typer.Option(
            "--latents",
            help="A folder of `rushes latents` that must fit, or `off`. Default: the one beside the shards if it fits.",
        ),
    ] = None,
    clips: Annotated[
        Path | None,
        typer.Option("--clips", help="Trains on the clips alone whose ids stand in this text file, one on each line."),
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Removes what is in --out and begins anew.")] = False,
    allow_changes: Annotated[
        bool,
        typer.Option(
            "--allow-changes", help="Goes on with what is in --out although recipe, shards or captions are others now."
        ),
    ] = False,
    workers: Annotated[
        int,
        typer.Option(
            "--workers",
            min=0,
            help="Trains on so many workers of a Ray cluster; --out must be a folder they all see. 0: here.",
        ),
    ] = 0,
    gpus_per_worker: Annotated[
        float, typer.Option("--gpus-per-worker", min=0, help="With --workers: GPUs of each.")
    ] = 1,
) -> None:
    """Inflates an image model into a video model, trains it on the clips, and writes a diffusers folder and a sample video.

    Started again on the same --out it goes on where it was stopped.
    """
    overrides = settings_of(settings)
    with trainer():
        from train_hooks.recipe_files import explain

        if explained is not None:
            grid = Grid("key", "value", "source", title=f"recipe {explained}")
            for row in explain(explained):
                grid.add_row(row.key, row.value, row.source)
            console().print(grid)
            return
        if shards is None:
            raise UsageError("give the clips with --shards")
        if planned:
            from train_hooks.plan import plan

            plan(recipe, shards_of(shards), overrides, say, latents, clips)
            return
        if out is None:
            raise UsageError("give a folder for the model with --out")
        options = {
            "pickled": pickled,
            "latents": latents,
            "clips": clips,
            "restart": restart,
            "allow_changes": allow_changes,
        }
        told = TrainConfig(recipe=recipe, workers=workers, gpus_per_worker=gpus_per_worker)
        finetune(told, shards_of(shards), out, overrides, **options)


def finetune(config: TrainConfig, shards: str, out: Path, overrides: dict[str, str], **options: Any) -> None:
    """Trains here or on the Ray cluster, and tells what came of it. To be called inside `trainer()`."""
    if config.workers:
        from train_hooks.ray_train import train_on_ray

        try:
            runner.start()
            resources = config.workers, config.gpus_per_worker
            result = train_on_ray(
                config.recipe, shards, out, overrides, *resources, say, config.max_failures, **options
            )
        finally:
            runner.stop()
    else:
        from train_hooks.train import train

        result = train(config.recipe, shards, out, overrides, say, **options)
        if os.environ.get("RANK", "0") != "0":  # torchrun: the first rank tells
            return
    say(f"loss: first {result.first_loss:.4f}, last {result.last_loss:.4f}")
    say(
        f"model: {result.out}\nsample: {result.sample}\nloss of every clip: {result.out / 'clip_losses.parquet'} (filters.TrainLoss)"
    )


def finetune_run(run: Run) -> bool:
    """The finetuning that a pipeline file asks for, on the run's shards; whether it asks for one."""
    config = run.pipeline.config.train
    if config is None:
        return False
    recipe = _recipe_of(run, config)
    home = Path(store.local_path_of(run.root)) if store.is_local(run.root) else Path.cwd()
    out = home / (config.out or f"train/{Path(recipe).stem}")
    with trainer():
        finetune(config.model_copy(update={"recipe": recipe}), run.shards_root(), out, _values(config))
    return True


def check_finetune(run: Run) -> None:
    """Ends with one sentence where the finetuning that a pipeline file asks for could not begin; before anything is run."""
    config = run.pipeline.config.train
    if config is None:
        return
    if not store.is_local(run.root) and config.out is None:
        raise UsageError("train: the run directory is not on a disk; say where the model goes with  train.out")
    lacking = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if lacking:
        raise UsageError(f"train: training needs the package '{lacking[0]}':  pip install 'rushes[train]'")
    with trainer():
        from train_hooks.recipe_files import load_recipe

        load_recipe(_recipe_of(run, config), _values(config))


def _recipe_of(run: Run, config: TrainConfig) -> str:
    """A recipe's name, or its file, which lies where the pipeline file says from its own place."""
    return str(run.pipeline.directory / config.recipe) if config.recipe.endswith((".yaml", ".yml")) else config.recipe


def _values(config: TrainConfig) -> dict[str, str]:
    return {key: "" if value is None else str(value) for key, value in config.set.items()}


def say(line: str) -> None:
    """Prints a line as it is."""
    console().print(line, highlight=False, soft_wrap=True)


@contextmanager
def trainer() -> Iterator[None]:
    """Where training's errors become one sentence and an exit code."""
    try:
        from train_hooks.errors import RecipeError, StoppedBySignal, TrainError
    except ModuleNotFoundError as error:
        raise UsageError(f"training needs the package '{error.name}':  pip install 'rushes[train]'") from error
    try:
        yield
    except ModuleNotFoundError as error:
        raise UsageError(f"training needs the package '{error.name}':  pip install 'rushes[train]'") from error
    except RecipeError as error:
        fail(str(error), 2)
    except StoppedBySignal as error:
        fail(str(error), 128 + error.signal)
    except TrainError as error:
        fail(str(error), 1)
