"""The kept clips of one source as mp4 bytes, in one pass over the file.

- `exact` decodes and encodes again, so a clip holds exactly the frames of its span (curate/clips/exact.py).
- `copy` keeps the source's packets, from the first keyframe inside the span (curate/clips/copy.py).
- `auto` copies the clips that lose almost nothing (one pass over the packets) and encodes the rest (one pass over the frames).

Each written clip is checked (curate/clips/check.py). Options, spans and results are in curate/clips/records.py.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import av

from curate.clips.audio import with_sound
from curate.clips.check import Check
from curate.clips.copy import copy
from curate.clips.exact import exact
from curate.clips.records import ClipOptions, Cut, CutError, Span
from curate.errors import ConfigError
from curate.video.open import Reader, VideoError

__all__ = ["ClipOptions", "Cut", "CutError", "Span", "cut"]


def cut(
    uri: str,
    spans: Sequence[Span],
    options: ClipOptions | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Iterator[Cut | CutError]:
    """Cuts all spans out of one source and yields one result for each, by start time. Spans may touch or overlap.

    Memory holds the clips being written, not the source; with sound, or in mode `auto`, it holds all clips of the source. A span that fails
    affects only itself. When the source cannot be opened, each span yields a CutError.

    Raises ConfigError when this build of FFmpeg lacks the encoder.
    """
    options = options or ClipOptions()
    clips = _pictures(uri, spans, options, storage_options)
    return _with_sound(uri, clips, storage_options) if options.audio else clips


def _with_sound(
    uri: str, clips: Iterator[Cut | CutError], storage_options: Mapping[str, Any] | None
) -> Iterator[Cut | CutError]:
    made = list(clips)
    if not any(isinstance(clip, Cut) for clip in made):
        yield from made
        return
    with Reader(uri, storage_options=storage_options) as reader:
        zero_s = reader.zero_s
    yield from with_sound(uri, made, zero_s, storage_options)


def _pictures(
    uri: str, spans: Sequence[Span], options: ClipOptions, storage_options: Mapping[str, Any] | None
) -> Iterator[Cut | CutError]:
    """Yields the clips without sound."""
    if options.mode != "copy" and options.codec not in av.codecs_available:
        raise ConfigError(f"this build of FFmpeg has no encoder '{options.codec}'; the default is 'libx264'")
    ordered = sorted(spans, key=lambda span: (span.start_s, span.end_s))
    copied = _copied(uri, ordered, options, storage_options) if options.mode == "auto" else {}
    rest = [i for i in range(len(ordered)) if i not in copied]
    finished: dict[int, Cut | CutError] = dict(copied)
    n_yielded = 0
    write = copy if options.mode == "copy" else exact
    with Check(uri, storage_options) as check:
        try:
            for number, result in write(uri, [ordered[i] for i in rest], options, storage_options):
                index = rest[number]
                finished[index] = _checked(check, ordered[index], result, options)
                while n_yielded in finished:
                    yield finished.pop(n_yielded)
                    n_yielded += 1
        except VideoError as error:
            for index in range(len(ordered)):
                finished.setdefault(index, CutError(ordered[index].clip_id, str(error)))
        yield from (finished[index] for index in range(n_yielded, len(ordered)))


def _copied(
    uri: str, spans: Sequence[Span], options: ClipOptions, storage_options: Mapping[str, Any] | None
) -> dict[int, Cut | CutError]:
    """The clips that can be copied instead of encoded again, by the index of their span."""
    with Check(uri, storage_options) as check:
        try:
            made = list(copy(uri, list(spans), options, storage_options))
        except VideoError:
            return {}  # `exact` reports the reason
        return {
            index: clip
            for index, clip in made
            if isinstance(clip, Cut) and _is_as_wanted(clip, spans[index], options) and not check(spans[index], clip)
        }


def _is_as_wanted(clip: Cut, span: Span, options: ClipOptions) -> bool:
    """Whether a copied clip is complete within the tolerance and needs no option that requires encoding."""
    lost_s = max(clip.start_s - span.start_s, span.end_s - clip.end_s)
    short_px = min(clip.width_px, clip.height_px)
    whole = span.box is None or (span.box.width, span.box.height) == (clip.width_px, clip.height_px)
    return (
        lost_s <= options.tolerance_s
        and (options.short_side_px or short_px) >= short_px
        and (options.fps is None or abs(options.fps - clip.fps) < 0.01 * options.fps)
        and (whole or not options.crop)
    )


def _checked(check: Check, span: Span, clip: Cut | CutError, options: ClipOptions) -> Cut | CutError:
    if isinstance(clip, CutError):
        return clip
    if clip.mode == "copy" and clip.duration_s < options.least_s:
        left = f"{clip.duration_s:.2f} s of this span can be copied, less than {options.least_s:g} s"
        return CutError(span.clip_id, f"only {left}; mode 'exact' or 'auto' can cut it")
    fault = check(span, clip)
    return CutError(span.clip_id, fault) if fault else clip
