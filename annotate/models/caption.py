"""A captioner's answer for one clip, and the row it becomes.

The table of a captioner called `vlm` has the columns `caption_vlm`, `prompt_tokens_vlm`, `output_tokens_vlm`,
`finish_reason_vlm`, `frames_vlm` and `seconds_vlm`: the engine appends the name to those of COLUMNS.

- `finish_reason`: `stop` if the model ended the text, `length` if the text was truncated at the token limit, or the
  server's own word (`content_filter`).
- `frames`: number of frames the model saw; fewer than requested if more did not fit its context.
- `seconds`: wall time of the pass divided by the clips of the batch; for a server, the time until the answer came,
  failed attempts included.

An empty caption is a valid answer: `annotate.CaptionCheck` flags it, and training skips it.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from curate.clip import Clip

COLUMNS: dict[str, pa.DataType] = {
    "caption": pa.string(),
    "prompt_tokens": pa.int32(),
    "output_tokens": pa.int32(),
    "finish_reason": pa.string(),
    "frames": pa.int16(),
    "seconds": pa.float32(),
}
TAGGED_FRAMES = pa.list_(pa.struct({"frame_index": pa.int32(), "prompt": pa.string()}))
"""Frames with prompts of their own, as in ZeroScope's data: the frame's number, counted from the clip's first, and its caption."""
MAX_CHARACTERS = 10_000
"""Characters kept of one caption. Ours: far more than any prompt asks for; it bounds the text of a model that never stops."""
TOO_LARGE = "the model ran out of GPU memory on this clip alone"


@dataclass(frozen=True)
class Answer:
    """The text a model wrote about one clip, before cleaning."""

    text: str
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    finish_reason: str = "stop"
    frames: int | None = None
    seconds: float | None = None

    def row(self, clip_id: str, **more: Any) -> dict[str, Any]:
        """The row of the clip, its caption cleaned."""
        return {
            "clip_id": clip_id,
            "caption": clean(self.text),
            "prompt_tokens": self.prompt_tokens,
            "output_tokens": self.output_tokens,
            "finish_reason": self.finish_reason,
            "frames": self.frames,
            "seconds": self.seconds,
            **more,
        }


def columns_with_tags(tag_frames: int) -> dict[str, pa.DataType]:
    """COLUMNS, and `tagged_frames` if frames are tagged."""
    return {**COLUMNS, **({"tagged_frames": TAGGED_FRAMES} if tag_frames else {})}


def row_with_tags(
    clip: Clip, answer: Answer | None, tags: Sequence[tuple[int, Answer | None]] | None
) -> dict[str, Any]:
    """The row of a clip, with its tagged frames.

    Args:
        clip: The clip.
        answer: Its caption; None if the model ran out of memory.
        tags: Thumbnail and caption of each tagged frame, likewise; None if the captioner tags no frames.

    Returns:
        `clip_id` and the columns, or `clip_id` and `error` if the caption or a tag is None.
    """
    captioned = [(thumbnail, tag) for thumbnail, tag in tags or () if tag is not None]
    if answer is None or len(captioned) < len(tags or ()):
        return {"clip_id": clip.clip_id, "error": TOO_LARGE}
    if tags is None:
        return answer.row(clip.clip_id)
    return answer.row(clip.clip_id, tagged_frames=[tagged(clip, thumbnail, tag.text) for thumbnail, tag in captioned])


def tagged(clip: Clip, thumbnail: int, text: str) -> dict[str, Any]:
    """A caption of one thumbnail, with the number of that frame in the clip."""
    frame = round((clip.jpeg_times_s[thumbnail] - clip.start_s) * clip.fps)
    return {"frame_index": min(max(frame, 0), max(clip.n_frames - 1, 0)), "prompt": clean(text)}


def clean(text: str) -> str:
    """The text on one line: no control characters, single spaces, at most MAX_CHARACTERS characters.

    Malformed Unicode (half a surrogate pair) becomes U+FFFD, the usual replacement character. Zero-width joiners stay: emoji need them.
    """
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    kept = "".join(
        " " if character.isspace() else character
        for character in whole
        if character.isspace() or character == "\u200d" or unicodedata.category(character) not in ("Cc", "Cf", "Co")
    )
    return re.sub(r" +", " ", kept).strip()[:MAX_CHARACTERS].rstrip()
