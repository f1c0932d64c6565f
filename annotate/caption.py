"""What a captioner gives for a clip: the words, cleaned, and what it took to write them.

The table of a captioner called `vlm` has the columns `caption_vlm`, `prompt_tokens_vlm`, `output_tokens_vlm`,
`finish_reason_vlm`, `frames_vlm` and `seconds_vlm`: the engine adds the name to those of COLUMNS.

- `finish_reason`: `stop` where the model ended by itself, `length` where the text was cut at the limit of tokens (it is
  truncated), or what a server calls it (`content_filter`).
- `frames`: how many pictures the model was shown; fewer than asked for where more did not fit its context.
- `seconds`: wall time of the pass, shared out evenly among the clips of a batch; of a server's answer, the time until it
  came, attempts that failed included.

An empty caption is an answer, not a failure: `annotate.CaptionCheck` flags it, and training leaves it out.
"""

import re
import unicodedata
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
"""Frames with prompts of their own, as in ZeroScope's data: the number of the frame from the clip's first, and what is seen."""
LONGEST = 10_000
"""Characters kept of one caption. Ours: far more than any prompt asks for, and a model that never stops stays small."""


@dataclass(frozen=True)
class Answer:
    """What a model wrote about one clip, as it came."""

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


def tagged(clip: Clip, thumbnail: int, text: str) -> dict[str, Any]:
    """What a captioner said of one thumbnail, with the frame of the clip that it is."""
    frame = round((clip.jpeg_times_s[thumbnail] - clip.start_s) * clip.fps)
    return {"frame_index": min(max(frame, 0), max(clip.n_frames - 1, 0)), "prompt": clean(text)}


def clean(text: str) -> str:
    """The text on one line: no control characters, spaces single, LONGEST characters at most.

    What is no Unicode (half a surrogate pair) is U+FFFD, the usual replacement character. Zero-width joiners stay: emoji need them.
    """
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    kept = "".join(
        " " if character.isspace() else character
        for character in whole
        if character.isspace() or character == "\u200d" or unicodedata.category(character) not in ("Cc", "Cf", "Co")
    )
    return re.sub(r" +", " ", kept).strip()[:LONGEST].rstrip()
