"""A question about some frames of a clip: the options that `Vlm`, `VllmBatch` and `OpenAIServer` share, and what follows from them."""

import base64
from typing import Any

from annotate.models.frames import chosen
from annotate.models.generate import Decoding, seed_of
from annotate.models.prompts import Preset, PresetName, fill, placeholders, question
from curate.clip import Clip


class FrameQuestion:
    """A mixin. The options are fields of each captioner, which also documents them and sets their defaults."""

    preset: PresetName
    prompt: str | None
    frames: int | None
    every_s: float | None
    max_tokens: int | None
    temperature: float
    top_p: float
    seed: int

    @property
    def question(self) -> Preset:
        """The preset with the options that replace parts of it. Raises ValueError for options that contradict each other."""
        return question(self.preset, self.prompt, self.frames, self.every_s, self.max_tokens)

    @property
    def decoding(self) -> Decoding:
        """How tokens are chosen. Raises ValueError for a value out of range."""
        return Decoding(self.question.max_tokens, self.temperature, self.top_p, self.seed)

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns that the prompt names."""
        return placeholders(self.question.prompt)

    def shown(self, clip: Clip) -> list[int]:
        """Indices of the thumbnails that the model sees."""
        return chosen(clip.jpeg_times_s, self.question.frames, self.question.every_s)

    def prompt_of(self, clip: Clip) -> str:
        """The prompt with the clip's values in place of the column names."""
        return fill(self.question.prompt, clip.columns)

    def seed_for(self, clip: Clip) -> int:
        """The clip's own seed, 31 bits, for engines that sample on their side."""
        return seed_of(self.seed, clip.clip_id) % 2**31


def chat_messages(clip: Clip, indices: list[int], prompt: str) -> list[dict[str, Any]]:
    """OpenAI's `messages` with one user message: thumbnails as JPEG data URLs, then the prompt."""
    urls = [f"data:image/jpeg;base64,{base64.b64encode(clip.jpegs[i]).decode()}" for i in indices]
    pictures = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [{"role": "user", "content": [*pictures, {"type": "text", "text": prompt}]}]
