"""Existing: captions that come with the footage, from a file beside it or a column of its manifest.

The first one found is used, in this order:

- the manifest's column (`column`), if the source is listed in a manifest and has a value there;
- `film.json` beside `film.mp4`: `{"caption": "..."}`, or a list of `{"start_s": 0, "end_s": 12.5, "caption": "..."}` (`start`, `end`
  and `text` are accepted too), bare or under `"captions"`;
- `film.txt` beside it: the whole text.

A caption without times belongs to the whole source, and so to each of its clips. A caption with times belongs to a clip only if
at least `min_overlap` of the clip is within them; of several the one with the largest overlap is used. A clip without a caption
has null, which is not an error: training skips the captioner for that clip. A file that cannot be read is an `error` of its clips.

The contents of these files are not part of the table's claim. After changing them, run `rushes run --recompute existing`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import pyarrow as pa

from annotate.models.caption import clean
from curate.clip import Clip

NAMES = {"start_s": ("start_s", "start"), "end_s": ("end_s", "end"), "caption": ("caption", "text")}


@dataclass(frozen=True)
class Span:
    """A caption of a span of a source, or of all of it (0 to infinity)."""

    start_s: float
    end_s: float
    caption: str


def spans_of(found: Any) -> list[Span]:
    """The captions in a parsed JSON file. Raises ValueError if it has another structure."""
    if isinstance(found, dict):
        found = found.get("captions", [found])
    if not isinstance(found, list):
        raise ValueError("expected a caption, or a list of captions with start_s and end_s")
    return [_span(entry) for entry in found]


def _span(entry: Any) -> Span:
    if not isinstance(entry, dict):
        raise ValueError(f"expected an object with a caption, got {entry!r:.60}")
    start_s, end_s, caption = (next((entry[key] for key in keys if key in entry), None) for keys in NAMES.values())
    if not isinstance(caption, str):
        raise ValueError(f"there is no caption in {entry!r:.60}")
    times = (0.0 if start_s is None else start_s, float("inf") if end_s is None else end_s)
    if not all(isinstance(t, int | float) and not isinstance(t, bool) for t in times) or not times[0] < times[1]:
        raise ValueError(f"start_s must be a number below end_s in {entry!r:.60}")
    return Span(float(times[0]), float(times[1]), caption)


def fitting(spans: Sequence[Span], start_s: float, end_s: float, min_overlap: float) -> str | None:
    """The caption whose span covers most of the clip (of equals the shorter span); None if none covers `min_overlap` of it."""
    shares = [(min(end_s, s.end_s) - max(start_s, s.start_s)) / (end_s - start_s) for s in spans]
    best = max(range(len(spans)), key=lambda i: (shares[i], spans[i].start_s - spans[i].end_s), default=None)
    return spans[best].caption if best is not None and shares[best] >= min_overlap else None


@lru_cache(maxsize=1024)
def beside(uri: str, suffixes: tuple[str, ...]) -> tuple[Span, ...]:
    """The captions in the first file beside `uri` with one of these suffixes; empty if there is no such file.

    Raises:
        ValueError: the file cannot be read; the message names it.
    """
    import fsspec

    stem = uri.rsplit(".", 1)[0] if "." in uri.rsplit("/", 1)[-1] else uri
    for suffix in suffixes:
        try:
            with fsspec.open(stem + suffix, "rb") as file:
                text = file.read().decode("utf-8-sig")
            return tuple(spans_of(json.loads(text)) if suffix == ".json" else [Span(0.0, float("inf"), text)])
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise ValueError(f"the captions in {stem + suffix} cannot be read: {error}") from error
    return ()


@dataclass
class Existing:
    """The caption that comes with the footage: from a file beside it (.json, .txt), or a column of its manifest.

    Attributes:
        column: Name of the manifest's column with captions.
        suffixes: Suffixes of the caption files beside a source, in the order of preference.
        min_overlap: Minimum share of a clip that is within the times of a caption, (0, 1]. Ours: half.
    """

    column: str = "caption"
    suffixes: tuple[str, ...] = (".json", ".txt")
    min_overlap: float = 0.5

    columns: ClassVar[dict[str, pa.DataType]] = {"caption": pa.string()}
    version: ClassVar[int] = 1
    batch_size: ClassVar[int] = 256
    reads: ClassVar[tuple[str, ...]] = ("uri", "manifest")

    def __post_init__(self) -> None:
        """Check the options."""
        if not 0 < self.min_overlap <= 1:
            raise ValueError(f"min_overlap of Existing is {self.min_overlap}; it must be above 0 and at most 1")
        if wrong := [suffix for suffix in self.suffixes if suffix not in (".json", ".txt")]:
            raise ValueError(f"suffixes of Existing contains {wrong[0]}; only .json and .txt are supported")

    def setup(self) -> None:
        """Nothing to load."""

    def __call__(self, clips: list[Clip]) -> list[dict[str, Any]]:
        """One row per clip: `clip_id` and `caption`, or `error` if the file beside its source cannot be read."""
        return [self._row(clip) for clip in clips]

    def _row(self, clip: Clip) -> dict[str, Any]:
        listed = json.loads(clip.columns["manifest"] or "{}").get(self.column)
        if isinstance(listed, str) and listed.strip():
            return {"clip_id": clip.clip_id, "caption": clean(listed)}
        try:
            spans = beside(clip.columns["uri"], self.suffixes)
        except ValueError as error:
            return {"clip_id": clip.clip_id, "error": str(error)}
        text = fitting(spans, clip.start_s, clip.end_s, self.min_overlap)
        return {"clip_id": clip.clip_id, "caption": clean(text) if text else None}
