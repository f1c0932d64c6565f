"""Buckets: clips that fit into one batch, because they have the same aspect ratio, size and number of frames.

The name of a bucket, such as `16x9-480p-81f`, holds the nearest aspect ratio, the largest short side that does not enlarge the picture, and the
largest number of frames up to the clip's.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

PATTERN = re.compile(r"(\d+)n\+(\d+)")


class Bucket(NamedTuple):
    """The shape of the clips of a bucket: aspect ratio (width, height), short side in pixels, number of frames."""

    aspect: tuple[int, int]
    short_side_px: int
    frames: int

    @property
    def name(self) -> str:
        """The value in the column `bucket`."""
        return f"{self.aspect[0]}x{self.aspect[1]}-{self.short_side_px}p-{self.frames}f"

    @classmethod
    def named(cls, name: str) -> "Bucket":
        """The bucket with this name. Raises ValueError for a malformed name."""
        found = re.fullmatch(r"(\d+)x(\d+)-(\d+)p-(\d+)f", name)
        if found is None:
            raise ValueError(f"'{name}' is not the name of a bucket, such as 16x9-480p-81f")
        width, height, short_side_px, frames = map(int, found.groups())
        return cls((width, height), short_side_px, frames)

    @property
    def size_px(self) -> tuple[int, int]:
        """(width, height) in pixels, both even."""
        short, (width, height) = min(self.aspect), self.aspect
        return tuple(round(side / short * self.short_side_px / 2) * 2 for side in (width, height))  # type: ignore[return-value]


def aspect_of(text: str) -> tuple[int, int]:
    """`16:9` as (16, 9). Raises ValueError."""
    found = re.fullmatch(r"([1-9]\d*):([1-9]\d*)", text)
    if found is None:
        raise ValueError(f"'{text}' is not an aspect ratio such as 16:9")
    return int(found[1]), int(found[2])


def bucket_of(
    width_px: int,
    height_px: int,
    n_frames: int,
    aspects: Sequence[tuple[int, int]],
    short_sides_px: Sequence[int],
    frames: Sequence[int] | str,
) -> Bucket | None:
    """The bucket of a clip.

    Args:
        width_px, height_px, n_frames: Size and length of the stored mp4.
        aspects: The allowed aspect ratios.
        short_sides_px: The allowed short sides.
        frames: The allowed numbers of frames, or `4n+1`: any number of that form.

    Returns None for a clip that is smaller or shorter than all of them.
    """
    ratio = math.log(width_px / height_px)
    aspect = min(aspects, key=lambda a: (abs(math.log(a[0] / a[1]) - ratio), a))
    # Cropping to the aspect ratio keeps one side.
    left = min(width_px, height_px * aspect[0] / aspect[1]), min(height_px, width_px * aspect[1] / aspect[0])
    short_px = max((side for side in short_sides_px if side <= min(left) + 0.5), default=None)
    if isinstance(frames, str):
        step, rest = map(int, PATTERN.fullmatch(frames).groups())  # type: ignore[union-attr]
        count = (n_frames - rest) // step * step + rest if n_frames >= rest else None
    else:
        count = max((n for n in frames if n <= n_frames), default=None)
    return None if short_px is None or not count else Bucket(aspect, short_px, count)


def totals(counts: Iterable[Mapping[str, int]]) -> dict[str, Any]:
    """The number of clips in each bucket over all shards, largest first, with the bucket's shape."""
    found: dict[str, int] = {}
    for of_shard in counts:
        for name, n in of_shard.items():
            found[name] = found.get(name, 0) + n
    return {
        name: {"clips": n, **(Bucket.named(name)._asdict() if name else {})}
        for name, n in sorted(found.items(), key=lambda item: (-item[1], item[0]))
    }
