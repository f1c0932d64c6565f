"""`rushes sample`: videos from a model that `rushes train` made."""

from pathlib import Path
from typing import Annotated

import typer

from curate.cli.common import console, fail
from curate.errors import UsageError


def command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A finished training.")],
    out: Annotated[Path, typer.Option("--out", help="A .mp4, a .gif, or a .png: a sheet of frames.")] = Path(
        "sample.mp4"
    ),
    prompt: Annotated[str, typer.Option("--prompt", help="What should be seen.")] = "",
    image: Annotated[Path | None, typer.Option("--image", help="Image-to-video: the first frame.")] = None,
    video: Annotated[
        Path | None,
        typer.Option("--video", help="A video to make anew, in this model's size (ZeroScope XL over 576w)."),
    ] = None,
    strength: Annotated[
        float, typer.Option("--strength", help="With --video: how much of it is made anew, 0 to 1.")
    ] = 0.7,
    frames: Annotated[int | None, typer.Option("--frames", help="How many; the recipe's by default.")] = None,
    width: Annotated[int | None, typer.Option("--width", help="In pixels; the recipe's by default.")] = None,
    height: Annotated[int | None, typer.Option("--height", help="In pixels; the recipe's by default.")] = None,
    fps: Annotated[float | None, typer.Option("--fps", help="The recipe's by default.")] = None,
    motion: Annotated[int, typer.Option("--motion", help="SVD: the motion bucket, 0 to 255.")] = 127,
    steps: Annotated[int | None, typer.Option("--steps", help="Of the sampler; the recipe's by default.")] = None,
    guidance: Annotated[
        float | None, typer.Option("--guidance", help="At the last frame; the recipe's by default.")
    ] = None,
    sampler: Annotated[
        str | None, typer.Option("--sampler", help="ddim, dpm++ or euler; the recipe's by default.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="The same seed gives the same video.")] = 0,
) -> None:
    """Samples one video from a finished training."""
    try:
        from train_hooks.errors import RecipeError, TrainError
        from train_hooks.sample import sample_to
    except ModuleNotFoundError as error:
        raise UsageError(f"sampling needs the package '{error.name}':  pip install 'rushes[train]'") from error
    wished = {
        "frames": frames, "width_px": width, "height_px": height, "fps": fps, "sample_steps": steps, "guidance": guidance,
        "sampler": sampler,
    }  # fmt: skip
    changes = {key: value for key, value in wished.items() if value is not None}
    try:
        sample_to(folder, out, changes, prompt, seed, motion, image, video, strength)
    except RecipeError as error:
        fail(str(error), 2)
    except TrainError as error:
        fail(str(error), 1)
    console().print(f"sample: {out}", highlight=False, soft_wrap=True)
