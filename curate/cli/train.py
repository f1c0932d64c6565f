"""`rushes train`: finetunes a video model on the shards of a run."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table as Grid

from curate import runner, store
from curate.cli.common import Stopped, console, fail, warn
from curate.errors import UsageError
from curate.run import PIPELINE, Run


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
    try:
        from train_hooks.errors import RecipeError, TrainError
        from train_hooks.recipe_files import explain

        if explained is None:
            from train_hooks.plan import plan
            from train_hooks.train import TrainingStopped, train
    except ModuleNotFoundError as error:
        raise UsageError(f"training needs the package '{error.name}':  pip install 'rushes[train]'") from error
    screen = console()

    def say(line: str) -> None:
        screen.print(line, highlight=False, soft_wrap=True)

    try:
        if explained is not None:
            grid = Grid("key", "value", "source", title=f"recipe {explained}")
            for row in explain(explained):
                grid.add_row(row.key, row.value, row.source)
            screen.print(grid)
            return
        if shards is None:
            raise UsageError("give the clips with --shards")
        if planned:
            plan(recipe, shards_of(shards), overrides, say, latents)
            return
        if out is None:
            raise UsageError("give a folder for the model with --out")
        options: dict[str, Any] = {
            "pickled": pickled, "latents": latents, "restart": restart, "allow_changes": allow_changes,
        }  # fmt: skip
        if workers:
            from train_hooks.ray_train import train_on_ray

            try:
                runner.start()
                result = train_on_ray(
                    recipe, shards_of(shards), out, overrides, workers, gpus_per_worker, say, **options
                )
            finally:
                runner.stop()
        else:
            result = train(recipe, shards_of(shards), out, overrides, say, **options)
    except Stopped as stopped:
        fail(f"stopped; what {out} holds is kept, and the same command goes on from there", stopped.exit_code)
    except RecipeError as error:
        fail(str(error), 2)
    except TrainError as error:
        fail(str(error), 128 + error.signal if explained is None and isinstance(error, TrainingStopped) else 1)
    say(f"loss: first {result.first_loss:.4f}, last {result.last_loss:.4f}")
    say(f"model: {result.out}\nsample: {result.sample}")
