"""Prompts: the presets, and how a measured fact of the clip gets into one.

A prompt may name columns in braces, `The camera: {camera}.`; the stage then reads them, and each clip's own value is
written in their place (`unknown` where it has none). `{{` and `}}` are plain braces.

The presets' words are ours. What they ask for follows the field: `video` what SVD's video captioner tells (arXiv
2311.15127, 3.1), `dense` one frame every two seconds and a long description as CogVideoX (arXiv 2408.06072, 4.2).
"""

import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

PresetName = Literal["video", "dense", "camera", "tags"]


@dataclass(frozen=True)
class Preset:
    """What is asked, how many pictures go with it (evenly spread, or one every `every_s`), and how long the answer may be."""

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
    """A preset with what was given in its place. Raises ValueError where that makes no sense."""
    if frames is not None and every_s is not None:
        raise ValueError("frames and every_s are two ways to say the same; give one")
    if every_s is not None and not every_s > 0:
        raise ValueError(f"every_s is {every_s}; it must be above 0")
    base = PRESETS[preset]
    made = Preset(
        base.prompt if prompt is None else prompt,
        base.frames if frames is None and every_s is None else frames,
        base.every_s if frames is None and every_s is None else every_s,
        base.max_tokens if max_tokens is None else max_tokens,
    )
    placeholders(made.prompt)
    return made


def placeholders(prompt: str) -> tuple[str, ...]:
    """The columns that a prompt names, in order, each once. Raises ValueError where its braces do not match."""
    try:
        parsed = list(string.Formatter().parse(prompt))
    except ValueError as error:
        raise ValueError(f"the prompt's braces do not match ({error}); write {{{{ and }}}} for plain ones") from error
    names = [name for _, name, form, conversion in parsed if name is not None]
    for _, name, form, conversion in parsed:
        if name is not None and (not name.isidentifier() or form or conversion):
            raise ValueError(
                f"the prompt names {{{name}}}, which is no column name; write {{{{ and }}}} for plain braces"
            )
    return tuple(dict.fromkeys(names))


def fill(prompt: str, columns: Mapping[str, Any]) -> str:
    """The prompt with each clip's values in place of the columns it names."""
    return prompt.format(**{name: said(columns.get(name)) for name in placeholders(prompt)})


def said(value: Any) -> str:
    """A measured value in words: numbers to three digits, lists with commas, `unknown` for none."""
    if value is None or (isinstance(value, float) and not np.isfinite(value)):
        return "unknown"
    if isinstance(value, list | tuple | np.ndarray):
        return ", ".join(said(item) for item in value) or "none"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float | np.floating) else str(value)
