"""Kept clips of one source as mp4 bytes, all of them in one pass over the file.

`exact` decodes and encodes again, so a clip holds the frames of its span and no other; `copy` keeps the source's own packets between the
keyframes inside the span. What is told and given back stands in `curate/clip_records.py`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import av

from curate.clip_records import ClipOptions, Cut, CutError, Span
from curate.clips_copy import copy
from curate.clips_exact import exact
from curate.errors import ConfigError
from curate.video import VideoError

__all__ = ["ClipOptions", "Cut", "CutError", "Span", "cut"]


def cut(
    uri: str,
    spans: Sequence[Span],
    options: ClipOptions | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Iterator[Cut | CutError]:
    """Cuts all spans out of one source and yields one result for each, by start time. Spans may touch or overlap.

    In memory are the clips being written, not the source. A span that fails costs itself alone; a source that cannot
    be opened fails them all, each with its own CutError.

    Raises ConfigError when this build of FFmpeg has no such encoder.
    """
    options = options or ClipOptions()
    if options.mode == "exact" and options.codec not in av.codecs_available:
        raise ConfigError(f"no encoder called '{options.codec}' in this build of FFmpeg; the default is 'libx264'")
    ordered = sorted(spans, key=lambda span: (span.start_s, span.end_s))
    finished: dict[int, Cut | CutError] = {}
    n_given = 0
    results = (exact if options.mode == "exact" else copy)(uri, ordered, options, storage_options)
    try:
        for index, result in results:
            finished[index] = result
            while n_given in finished:
                yield finished.pop(n_given)
                n_given += 1
    except VideoError as error:
        for index in range(n_given, len(ordered)):
            yield finished.get(index) or CutError(ordered[index].clip_id, str(error))
