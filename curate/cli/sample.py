"""`rushes sample`: videos from a model that `rushes train` trained."""

from pathlib import Path
from typing import Annotated

import typer

from curate.cli.common import console
from curate.cli.train import trainer
from curate.errors import UsageError


def command(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="The folder of a finished training (`rushes train --out`).")
    ],
    out: Annotated[Path, typer.Option("--out", help="Output file: .mp4, .gif, or .png (a sheet of frames).")] = Path(
        "sample.mp4"
    ),
    prompt: Annotated[str, typer.Option("--prompt", help="Text prompt.")] = "",
    image: Annotated[
        Path | None, typer.Option("--image", help="Image-to-video: the picture for the first frame.")
    ] = None,
    video: Annotated[
        Path | None,
        typer.Option(
            "--video", help="Video-to-video: resample this video at the model's size (ZeroScope XL over 576w)."
        ),
    ] = None,
    strength: Annotated[
        float, typer.Option("--strength", min=0, max=1, help="With --video: share of the noise to start from, 0 to 1.")
    ] = 0.7,
    frames: Annotated[
        int | None, typer.Option("--frames", min=1, help="Number of frames. Default: the recipe's.")
    ] = None,
    width: Annotated[int | None, typer.Option("--width", min=1, help="Width in pixels. Default: the recipe's.")] = None,
    height: Annotated[
        int | None, typer.Option("--height", min=1, help="Height in pixels. Default: the recipe's.")
    ] = None,
    fps: Annotated[float | None, typer.Option("--fps", help="Frames per second. Default: the recipe's.")] = None,
    motion: Annotated[int, typer.Option("--motion", min=0, max=255, help="SVD: motion bucket, 0 to 255.")] = 127,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Sampling steps. Default: the recipe's.")] = None,
    guidance: Annotated[
        float | None, typer.Option("--guidance", help="Guidance scale at the last frame. Default: the recipe's.")
    ] = None,
    sampler: Annotated[
        str | None, typer.Option("--sampler", help="ddim, dpm++ or euler. Default: the recipe's.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Random seed; the same seed gives the same video.")] = 0,
) -> None:
    """Generate one video with a finished training."""
    if not folder.is_dir():
        raise UsageError(f"there is no folder '{folder}'; give the --out of a finished `rushes train`")
    overrides = {
        "frames": frames, "width_px": width, "height_px": height, "fps": fps, "sample_steps": steps, "guidance": guidance,
        "sampler": sampler,
    }  # fmt: skip
    changes = {key: value for key, value in overrides.items() if value is not None}
    with trainer("sampling"):
        from train_hooks.sample import sample_to

        sample_to(folder, out, changes, prompt, seed, motion, image, video, strength)
    console().print(f"sample: {out}", highlight=False, soft_wrap=True)
