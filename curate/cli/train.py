"""`rushes train`: finetunes a video model on the shards of a run."""

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table as Grid

from curate.cli.common import check_shards, console, fail, warn
from curate.errors import UsageError

if TYPE_CHECKING:
    from curate.config.config import TrainConfig
    from curate.dataset.run import Run

NEEDED = ("torch", "diffusers", "accelerate", "transformers")
"""Packages that training needs. A run with `train:` checks them at its start, not at its end."""


def shards_of(folder: str) -> str:
    """The folder itself, or the newest shards of a run. Warns about an older version of a run's shards.

    Raises UsageError when a local path is neither.
    """
    check_shards(folder)
    from curate.dataset.run import Run
    from curate.run.data import PIPELINE
    from curate.tables import store

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
        typer.Option(
            "--shards", metavar="RUN|SHARDS", help="A run (its newest shards), or a folder or URL with shards."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Output folder.")] = None,
    recipe: Annotated[str, typer.Option("--recipe", help="Name of a recipe, or a YAML file.")] = "tiny",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override one value of the recipe; repeatable."),
    ] = None,
    explained: Annotated[
        str | None,
        typer.Option("--explain", metavar="RECIPE", help="Print every value of a recipe with its source, and exit."),
    ] = None,
    pickled: Annotated[
        bool,
        typer.Option("--pickle", help="VideoCrafter and LaVie: write their .ckpt or .pt, too, beside the safetensors."),
    ] = False,
    planned: Annotated[
        bool, typer.Option("--plan", help="Print clips, steps, memory and time of every bucket, and exit.")
    ] = False,
    latents: Annotated[
        str | None,
        typer.Option(
            "--latents",
            metavar="DIR|off",
            help="Latents from `rushes latents`; they must match the recipe. Default: those beside the shards, if they match.",
        ),
    ] = None,
    clips: Annotated[
        Path | None,
        typer.Option("--clips", metavar="FILE", help="Train only on the clip ids in this text file, one per line."),
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Delete the contents of --out and start from the beginning.")
    ] = False,
    allow_changes: Annotated[
        bool,
        typer.Option(
            "--allow-changes", help="Resume the training in --out although recipe, shards or captions have changed."
        ),
    ] = False,
    workers: Annotated[
        int,
        typer.Option(
            "--workers",
            min=0,
            help="Number of workers on a Ray cluster; all must see --out. 0: train in this process.",
        ),
    ] = 0,
    gpus_per_worker: Annotated[
        float, typer.Option("--gpus-per-worker", min=0, help="With --workers: GPUs per worker.")
    ] = 1,
) -> None:
    """Inflate an image model into a video model, train it on the clips, and write a diffusers folder and a sample video.

    The same command with the same --out resumes from the last checkpoint.
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
            raise UsageError("give the clips with --shards, such as  --shards runs/demo")
        if planned:
            from train_hooks.plan import plan

            plan(recipe, shards_of(shards), overrides, say, latents, clips)
            return
        if out is None:
            raise UsageError("give an output folder with --out, such as  --out runs/demo/train/tiny")
        options = {
            "pickled": pickled,
            "latents": latents,
            "clips": clips,
            "restart": restart,
            "allow_changes": allow_changes,
        }
        from curate.config.config import TrainConfig

        config = TrainConfig(recipe=recipe, workers=workers, gpus_per_worker=gpus_per_worker)
        finetune(config, shards_of(shards), out, overrides, **options)


def finetune(config: "TrainConfig", shards: str, out: Path, overrides: dict[str, str], **options: Any) -> None:
    """Trains in this process or on the Ray cluster, and prints the results. Call it inside `trainer()`."""
    if config.workers:
        from curate.cluster import runner
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
        if os.environ.get("RANK", "0") != "0":  # torchrun: only rank 0 prints
            return
    say(f"loss: first {result.first_loss:.4f}, last {result.last_loss:.4f}")
    say(
        f"model: {result.out}\nsample: {result.sample}\nloss of every clip: {result.out / 'clip_losses.parquet'} (filters.TrainLoss)"
    )


def finetune_run(run: "Run") -> bool:
    """Runs the training of the pipeline file's `train:` on the run's shards. Returns False when there is no `train:`."""
    from curate.tables import store

    config = run.pipeline.config.train
    if config is None:
        return False
    recipe = _recipe_of(run, config)
    home = Path(store.local_path_of(run.root)) if store.is_local(run.root) else Path.cwd()
    out = home / (config.out or f"train/{Path(recipe).stem}")
    with trainer():
        finetune(config.model_copy(update={"recipe": recipe}), run.shards_root(), out, _values(config))
    return True


def check_finetune(run: "Run") -> None:
    """Checks `train:` of the pipeline file before anything is run. Raises UsageError when the training could not start."""
    from curate.tables import store

    config = run.pipeline.config.train
    if config is None:
        return
    if not store.is_local(run.root) and config.out is None:
        raise UsageError("train: the run directory is on object storage; set an output folder with  train.out")
    lacking = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if lacking:
        raise UsageError(f"train: training needs the package '{lacking[0]}':  pip install 'rushes[train]'")
    with trainer():
        from train_hooks.recipe_files import load_recipe

        load_recipe(_recipe_of(run, config), _values(config))


def _recipe_of(run: "Run", config: "TrainConfig") -> str:
    """A recipe's name, or the path of its file, which is relative to the pipeline file."""
    return str(run.pipeline.directory / config.recipe) if config.recipe.endswith((".yaml", ".yml")) else config.recipe


def _values(config: "TrainConfig") -> dict[str, str]:
    return {key: "" if value is None else str(value) for key, value in config.set.items()}


def say(line: str) -> None:
    """Prints a line as it is."""
    console().print(line, highlight=False, soft_wrap=True)


@contextmanager
def trainer(what: str = "training") -> Iterator[None]:
    """Turns errors of train_hooks into one sentence and an exit code."""
    from train_hooks.errors import StoppedBySignal, TrainHooksError

    try:
        yield
    except ModuleNotFoundError as error:
        raise UsageError(f"{what} needs the package '{error.name}':  pip install 'rushes[train]'") from error
    except StoppedBySignal as error:
        fail(str(error), 128 + error.signal)
    except TrainHooksError as error:
        fail(str(error), error.exit_code)
