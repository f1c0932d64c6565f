"""Stages for tests, valid and broken, found by dotted name like a user's own."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from curate.clip import Clip


@dataclass
class Brightness:
    """Mean of the middle thumbnail, 0..255."""

    scale: float = 1.0
    columns: ClassVar[dict[str, pa.DataType]] = {"brightness": pa.float32()}

    def setup(self) -> None:
        """Nothing heavy."""

    def __call__(self, clips: list[Clip]) -> list[dict[str, Any]]:
        return [{"clip_id": clip.clip_id, "brightness": self.scale * float(clip.middle.mean())} for clip in clips]


@dataclass
class Fussy(Brightness):
    """Fails on the clips whose id begins with one of `on`, with a reason."""

    on: str = ""
    columns: ClassVar[dict[str, pa.DataType]] = {"fussy": pa.float32()}

    def __call__(self, clips: list[Clip]) -> list[dict[str, Any]]:
        for clip in clips:
            if clip.clip_id[0] in self.on:
                raise ValueError(f"clip {clip.clip_id} is not to my taste")
        return [{"clip_id": clip.clip_id, "fussy": 1.0} for clip in clips]


@dataclass
class NotANumber(Brightness):
    """Answers NaN."""

    columns: ClassVar[dict[str, pa.DataType]] = {"nan": pa.float32()}

    def __call__(self, clips: list[Clip]) -> list[dict[str, Any]]:
        return [{"clip_id": clip.clip_id, "nan": float("nan")} for clip in clips]


@dataclass
class Swapped(Brightness):
    """Answers for one clip too few."""

    columns: ClassVar[dict[str, pa.DataType]] = {"swapped": pa.float32()}

    def __call__(self, clips: list[Clip]) -> list[dict[str, Any]]:
        return [{"clip_id": clip.clip_id, "swapped": 0.0} for clip in clips[1:]]


@dataclass
class NeedsNothingThere:
    """Needs a package that does not exist."""

    columns: ClassVar[dict[str, pa.DataType]] = {"x": pa.float32()}

    def setup(self) -> None:
        import no_such_package_at_all  # noqa: F401

    def __call__(self, clips: list[Clip]) -> list[dict[str, Any]]:
        return []


@dataclass
class Says:
    """A captioner that writes the brightness it was given: a caption on the wrong clip would show."""

    columns: ClassVar[dict[str, pa.DataType]] = {"caption": pa.string()}
    reads: ClassVar[tuple[str, ...]] = ("brightness",)

    def setup(self) -> None:
        """Nothing heavy."""

    def __call__(self, clips: list[Clip]) -> list[dict[str, Any]]:
        return [{"clip_id": clip.clip_id, "caption": f"brightness {clip.columns['brightness']:.3f}"} for clip in clips]


@dataclass
class Vector:
    """A vector that tells the clip it is of."""

    columns: ClassVar[dict[str, pa.DataType]] = {"vector": pa.list_(pa.float32(), 4)}

    def setup(self) -> None:
        """Nothing heavy."""

    def __call__(self, clips: list[Clip]) -> list[dict[str, Any]]:
        return [{"clip_id": clip.clip_id, "vector": vector_of(clip.clip_id)} for clip in clips]


def vector_of(clip_id: str) -> list[float]:
    return [float(int(clip_id[i], 16)) for i in range(4)]


@dataclass
class VectorSum(Vector):
    """Reads vectors, no pictures."""

    columns: ClassVar[dict[str, pa.DataType]] = {"vector_sum": pa.float32()}
    reads: ClassVar[tuple[str, ...]] = ("vector",)

    def __call__(self, clips: list[Clip]) -> list[dict[str, Any]]:
        return [{"clip_id": clip.clip_id, "vector_sum": float(clip.columns["vector"].sum())} for clip in clips]


@dataclass
class Rank(Vector):
    """Looks at all clips at once: the share of them with a smaller sum."""

    columns: ClassVar[dict[str, pa.DataType]] = {"rank": pa.float32()}
    reads: ClassVar[tuple[str, ...]] = ("vector_sum",)
    whole: ClassVar[bool] = True

    def __call__(self, clips: list[Clip]) -> list[dict[str, Any]]:
        sums = [clip.columns["vector_sum"] for clip in clips]
        assert not any(clip.jpegs for clip in clips)
        return [
            {"clip_id": clip.clip_id, "rank": sum(other < own for other in sums) / len(sums)}
            for clip, own in zip(clips, sums, strict=True)
        ]


@dataclass
class Length(Vector):
    """Reads the words of every captioner."""

    captions: tuple[str, ...] = ()

    @property
    def columns(self) -> dict[str, pa.DataType]:  # type: ignore[override]
        return {f"length_{name}": pa.int32() for name in self.captions}

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(f"caption_{name}" for name in self.captions)

    def __call__(self, clips: list[Clip]) -> list[dict[str, Any]]:
        return [
            {"clip_id": clip.clip_id}
            | {f"length_{name}": len(clip.columns[f"caption_{name}"]) for name in self.captions}
            for clip in clips
        ]


@dataclass
class Weighed(Brightness):
    """Has weights, or says where they would be."""

    weights: str = "pip:nosuch==1.0:x.onnx"
    columns: ClassVar[dict[str, pa.DataType]] = {"weighed": pa.float32()}


@dataclass
class Needy(Brightness):
    """Needs a server."""

    server: str = "here"
    timeout_s: float = 1.0
    batch_size: ClassVar[int] = 5
    workers: ClassVar[int] = 1
    patience: ClassVar[tuple[str, ...]] = ("timeout_s",)
    columns: ClassVar[dict[str, pa.DataType]] = {"needy": pa.float32()}

    def check(self) -> None:
        if self.server == "nowhere":
            raise ValueError(f"no server answers at {self.server}")


@dataclass
class Picky(Brightness):
    """Starts with good weights only."""

    weights: str = "dir:bad"
    columns: ClassVar[dict[str, pa.DataType]] = {"picky": pa.float32()}

    def setup(self) -> None:
        if self.weights.endswith("bad"):
            raise OSError("there are no tensors")

    def __call__(self, clips: list[Clip]) -> list[dict[str, Any]]:
        return [{"clip_id": clip.clip_id, "picky": 1.0} for clip in clips]


@dataclass
class Wordy(Says):
    """A captioner that counts tokens."""

    columns: ClassVar[dict[str, pa.DataType]] = {
        "caption": pa.string(),
        "prompt_tokens": pa.int32(),
        "output_tokens": pa.int32(),
    }

    def __call__(self, clips: list[Clip]) -> list[dict[str, Any]]:
        return [{**row, "prompt_tokens": 1000, "output_tokens": 10} for row in super().__call__(clips)]


@dataclass
class Repeats(Says):
    """A captioner that always says the same."""

    text: str = "another"
    reads: ClassVar[tuple[str, ...]] = ()

    def __call__(self, clips: list[Clip]) -> list[dict[str, Any]]:
        return [{"clip_id": clip.clip_id, "caption": f"{self.text} of {clip.clip_id}"} for clip in clips]


NASTY = "<img src=x onerror=alert(1)> \"quoted\" 'single' & 🎬 ‏עברית"
"""A file name and a caption that a page must show and not obey."""


@dataclass
class Nasty(Repeats):
    """A captioner whose words look like markup; every other clip's are longer than 10,000 characters."""

    def __call__(self, clips: list[Clip]) -> list[dict[str, Any]]:
        words = {clip.clip_id: f"{NASTY} {clip.clip_id}" for clip in clips}
        return [{"clip_id": i, "caption": text * (150 if int(i[-1], 16) % 2 else 1)} for i, text in words.items()]


@dataclass
class Seen:
    """Vectors of pictures, by which clips can be searched: their 4 x 4 cells."""

    columns: ClassVar[dict[str, pa.DataType]] = {"seen": pa.list_(pa.float32(), 16)}
    searched: ClassVar[str] = "seen"

    def setup(self) -> None:
        """Nothing heavy."""

    def embed_images(self, frames: list[np.ndarray]) -> np.ndarray:
        cells = [frame[:96, :128].reshape(4, 24, 4, 32, 3).mean(axis=(1, 3, 4)).ravel() for frame in frames]
        centred = np.stack(cells) - 100
        return (centred / np.linalg.norm(centred, axis=1, keepdims=True)).astype(np.float32)

    def embed_texts(self, texts: list[str]) -> np.ndarray:
        return np.stack([np.full(16, len(text), np.float32) for text in texts])

    def __call__(self, clips: list[Clip]) -> list[dict[str, Any]]:
        return [{"clip_id": clip.clip_id, "seen": self.embed_images([clip.first])[0]} for clip in clips]


@dataclass
class CaptionVector:
    """Vectors of captions."""

    columns: ClassVar[dict[str, pa.DataType]] = {"caption_vector": pa.list_(pa.float32(), 4)}
    reads: ClassVar[tuple[str, ...]] = ("caption",)

    def setup(self) -> None:
        """Nothing heavy."""

    def embed_texts(self, texts: list[str]) -> np.ndarray:
        return np.stack([np.array([len(text), 1, 2, 3], np.float32) for text in texts])

    def __call__(self, clips: list[Clip]) -> list[dict[str, Any]]:
        return [
            {"clip_id": c.clip_id, "caption_vector": self.embed_texts([str(c.columns["caption"])])[0]} for c in clips
        ]


@dataclass
class Checked(Length):
    """Ranks every caption, and flags those of the first captioner."""

    @property
    def columns(self) -> dict[str, pa.DataType]:  # type: ignore[override]
        return {f"caption_rank_{name}": pa.float32() for name in self.captions} | {"caption_flags": pa.string()}

    def __call__(self, clips: list[Clip]) -> list[dict[str, Any]]:
        ranks = {f"caption_rank_{name}": 0.25 * i for i, name in enumerate(self.captions)}
        return [{"clip_id": clip.clip_id, **ranks, "caption_flags": f"{self.captions[0]}:common"} for clip in clips]
