"""Stages for tests of the engine, good and bad, found by dotted name as a user's own would be."""

from dataclasses import dataclass
from typing import Any, ClassVar

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
