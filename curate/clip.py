"""The Clip record: everything that a filter or a captioner receives about one clip.

Shapes: T frames, H height and W width in pixels, C = 3 channels in the order red, green, blue. Times are seconds from the first frame of
the source.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


class ThumbnailError(ValueError):
    """A thumbnail of the clip cannot be decoded, or the clip has none; it affects only this clip's row."""


@dataclass(frozen=True)
class Clip:
    """One span of one source with its thumbnails.

    `columns` holds values of earlier stages: the names that the stage lists in `reads`.
    """

    clip_id: str
    source_id: str
    start_s: float
    end_s: float
    fps: float
    n_frames: int
    width_px: int
    height_px: int
    jpegs: tuple[bytes, ...]
    """Thumbnails in time order, JPEG, at `scan.thumb_fps` (2 by default)."""
    jpeg_times_s: tuple[float, ...]
    columns: Mapping[str, Any] = field(default_factory=dict)

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.end_s - self.start_s

    @cached_property
    def times_s(self) -> NDArray[np.float64]:
        """Times of the thumbnails, shape (T,), in seconds from the first frame of the source."""
        return np.asarray(self.jpeg_times_s, dtype=np.float64)

    @cached_property
    def frames_THWC(self) -> NDArray[np.uint8]:  # noqa: N802
        """All thumbnails, decoded once and kept, shape (T, H, W, 3), RGB 0..255.

        Raises ThumbnailError when the clip has no thumbnail or one cannot be decoded.
        """
        if not self.jpegs:
            raise ThumbnailError(f"clip {self.clip_id} has no thumbnail")
        frames_THWC = np.stack([self._frame(i) for i in range(len(self.jpegs))])
        self._decoded.clear()  # they are views of these now
        return frames_THWC

    @property
    def first(self) -> NDArray[np.uint8]:
        """The first thumbnail, (H, W, 3)."""
        return self._frame(0)

    @property
    def middle(self) -> NDArray[np.uint8]:
        """The middle thumbnail, (H, W, 3): index T // 2."""
        return self._frame(len(self.jpegs) // 2)

    @property
    def last(self) -> NDArray[np.uint8]:
        """The last thumbnail, (H, W, 3)."""
        return self._frame(len(self.jpegs) - 1)

    @cached_property
    def _decoded(self) -> dict[int, NDArray[np.uint8]]:
        return {}

    def _frame(self, index: int) -> NDArray[np.uint8]:
        if "frames_THWC" in self.__dict__:
            frame: NDArray[np.uint8] = self.frames_THWC[index]
            return frame
        if index not in self._decoded:
            self._decoded[index] = self._decode(index)
        return self._decoded[index]

    def _decode(self, index: int) -> NDArray[np.uint8]:
        if not 0 <= index < len(self.jpegs):
            raise ThumbnailError(f"clip {self.clip_id} has no thumbnail")
        bgr = cv2.imdecode(np.frombuffer(self.jpegs[index], np.uint8), cv2.IMREAD_COLOR)
        if bgr is None:
            raise ThumbnailError(f"thumbnail {index} of clip {self.clip_id} cannot be decoded")
        return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), dtype=np.uint8)
