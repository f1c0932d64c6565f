"""`rushes train`: finetunes a video model on the shards of a run."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table as Grid

from curate import store
from curate.cli.common import Stopped, console, fail, warn
from curate.errors import UsageError
from curate.run import PIPELINE, Run


def _shards_of(folder: str) -> str:
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
) -> None:
    """Inflates an image model into a video model, trains it on the clips, and writes a diffusers folder and a sample video."""
    overrides = {}
    for setting in settings or []:
        key, equals, value = setting.partition("=")
        if not equals:
            raise UsageError(f"--set {setting}: expected key=value")
        overrides[key] = value
    try:
        from train_hooks.errors import RecipeError, TrainError
        from train_hooks.recipe_files import explain

        if explained is None:
            from train_hooks.train import train
    except ModuleNotFoundError as error:
        raise UsageError(f"training needs the package '{error.name}':  pip install 'rushes[train]'") from error
    screen = console()
    try:
        if explained is not None:
            grid = Grid("key", "value", "source", title=f"recipe {explained}")
            for row in explain(explained):
                grid.add_row(row.key, row.value, row.source)
            screen.print(grid)
            return
        if shards is None or out is None:
            raise UsageError("give the clips with --shards and a folder for the model with --out")
        result = train(
            recipe,
            _shards_of(shards),
            out,
            overrides,
            say=lambda line: screen.print(line, highlight=False, soft_wrap=True),
            pickled=pickled,
        )
    except Stopped as stopped:
        fail(f"stopped; nothing was written to {out}, and the same command begins anew", stopped.exit_code)
    except RecipeError as error:
        fail(str(error), 2)
    except TrainError as error:
        fail(str(error), 1)
    screen.print(f"loss: first {result.first_loss:.4f}, last {result.last_loss:.4f}", highlight=False)
    screen.print(f"model: {result.out}\nsample: {result.sample}", highlight=False, soft_wrap=True)
