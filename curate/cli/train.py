"""`rushes train`: finetunes a video model on the shards of a run."""

from pathlib import Path
from typing import Annotated

import typer

from curate.cli.common import console, fail, warn
from curate.errors import UsageError
from curate.run import PIPELINE, Run


def _newest_beside(folder: Path) -> Path | None:
    """The newest version of the shards of a run, where `folder` holds an older one."""
    run = folder.absolute().parent if folder.name == "shards" else folder.absolute().parent.parent
    if not (run / PIPELINE).is_file():
        return None
    newest = Path(Run.open(run).shards_root())
    return newest if newest != folder.absolute() else None


def command(
    shards: Annotated[
        Path, typer.Option("--shards", help="A folder with shards and their index.json, or a run: its newest shards.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Where the diffusers folder goes.")],
    recipe: Annotated[str, typer.Option("--recipe", help="A recipe's name, or a YAML file.")] = "tiny",
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Sets one value of the recipe; repeatable.")
    ] = None,
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
        from train_hooks.train import train
    except ModuleNotFoundError as error:
        raise UsageError(f"training needs the package '{error.name}':  pip install 'rushes[train]'") from error
    screen = console()
    folder = Path(Run.open(shards).shards_root()) if (shards / PIPELINE).is_file() else shards
    if (newer := _newest_beside(folder)) is not None:
        warn(f"warning: {newer} is a newer version of these shards")
    try:
        result = train(
            recipe, folder, out, overrides, say=lambda line: screen.print(line, highlight=False, soft_wrap=True)
        )
    except RecipeError as error:
        fail(str(error), 2)
    except TrainError as error:
        fail(str(error), 1)
    screen.print(f"loss: first {result.first_loss:.4f}, last {result.last_loss:.4f}", highlight=False)
    screen.print(f"model: {result.out}\nsample: {result.sample}", highlight=False, soft_wrap=True)
