"""Prompts: the presets, and how values of a clip's columns are inserted.

A prompt may name columns in braces, `The camera: {camera}.`; the stage then reads these columns and inserts each clip's
value (`unknown` if it has none). `{{` and `}}` are literal braces.

The wording of the presets is ours. The content follows the field: `video` describes what SVD's video captioner describes (arXiv
2311.15127, 3.1), `dense` uses one frame every two seconds and a long description, as CogVideoX does (arXiv 2408.06072, 4.2).
"""

import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

PresetName = Literal["video", "dense", "camera", "tags"]


@dataclass(frozen=True)
class Preset:
    """A prompt, its frames (`frames` evenly spread, or one every `every_s` seconds), and the maximum length of the answer."""

    prompt: str
    frames: int | None
    every_s: float | None
    max_tokens: int


PRESETS: dict[str, Preset] = {
    "video": Preset(
        "These pictures are frames of one short video, in order. Describe in one or two plain sentences what is seen and "
        "what happens. Name only what is visible. Do not mention frames, pictures or the video itself.",
        frames=8,
        every_s=None,
        max_tokens=96,
    ),
    "dense": Preset(
        "These pictures are frames of one video, one every two seconds, in order. Describe it in detail in one paragraph: "
        "the people, animals and things and how they look, what each of them does from beginning to end, the place, the "
        "light and colours, and how the camera moves. Name only what is visible. Do not mention frames or pictures.",
        frames=None,
        every_s=2.0,
        max_tokens=320,
    ),
    "camera": Preset(
        "These pictures are frames of one short video, in order. Describe in one sentence only the shot and the camera: "
        "how close it is, from which angle, and whether and how the camera moves.",
        frames=8,
        every_s=None,
        max_tokens=64,
    ),
    "tags": Preset(
        "These pictures are frames of one short video. List up to ten short tags for what is seen: subjects, actions, "
        "place, style. Answer with the tags alone, separated by commas.",
        frames=4,
        every_s=None,
        max_tokens=64,
    ),
}


def question(
    preset: PresetName, prompt: str | None, frames: int | None, every_s: float | None, max_tokens: int | None
) -> Preset:
    """A preset with the options that are set in place of its own values. Raises ValueError if they are out of range or contradict each other."""
    if frames is not None and every_s is not None:
        raise ValueError("frames and every_s both set which frames are shown; remove one of them")
    if every_s is not None and not every_s > 0:
        raise ValueError(f"every_s is {every_s}; it must be above 0")
    base = PRESETS[preset]
    asked = Preset(
        base.prompt if prompt is None else prompt,
        base.frames if frames is None and every_s is None else frames,
        base.every_s if frames is None and every_s is None else every_s,
        base.max_tokens if max_tokens is None else max_tokens,
    )
    placeholders(asked.prompt)
    return asked


def placeholders(prompt: str) -> tuple[str, ...]:
    """The columns that a prompt names, in order, each once. Raises ValueError for unmatched braces or a malformed name."""
    try:
        parsed = list(string.Formatter().parse(prompt))
    except ValueError as error:
        raise ValueError(
            f"the prompt has unmatched braces ({error}); write {{{{ and }}}} for literal braces"
        ) from error
    names = [name for _, name, form, conversion in parsed if name is not None]
    for _, name, form, conversion in parsed:
        if name is not None and (not name.isidentifier() or form or conversion):
            raise ValueError(
                f"the prompt names {{{name}}}, which is not a column name; write {{{{ and }}}} for literal braces"
            )
    return tuple(dict.fromkeys(names))


def fill(prompt: str, columns: Mapping[str, Any]) -> str:
    """The prompt with the clip's values in place of the column names."""
    return prompt.format(**{name: in_words(columns.get(name)) for name in placeholders(prompt)})


def in_words(value: Any) -> str:
    """A column's value as text: numbers to three digits, lists with commas, `unknown` for null or not finite."""
    if value is None or (isinstance(value, float) and not np.isfinite(value)):
        return "unknown"
    if isinstance(value, list | tuple | np.ndarray):
        return ", ".join(in_words(item) for item in value) or "none"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float | np.floating) else str(value)
