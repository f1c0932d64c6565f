"""OpenAIServer: a caption by a model behind an OpenAI-compatible server: vLLM, SGLang, llama.cpp, or a hosted one.

The same prompts as `annotate.Vlm`; the thumbnails go as they are (JPEG in data addresses), in order, before the words. With
`frames: 0` words go alone, so that a server can merge captions: `prompt: "Merge: {caption_coca} / {caption_vlm}"`.

One call takes many clips and keeps `concurrency` requests in flight until the last of them (`annotate/chat_client.py`, with
the faults it rides out); a clip whose question has no answer in the end is an `error` and the others go on. Where the frames do
not fit the model's context half of them are shown, and so on down to one (the column `frames` says how many). Tokens are the
server's own count, `seconds` run from the first attempt to the answer, pauses left out.
"""

import base64
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import pyarrow as pa

from annotate.caption import COLUMNS, Answer
from annotate.chat_client import ChatClient
from annotate.frames import chosen, fewer
from annotate.generate import Decoding, seed_of
from annotate.prompts import Preset, PresetName, fill, placeholders, question
from curate.clip import Clip

ROUNDS = 32
"""Clips per call, in multiples of the concurrency: at the end of a call, slots stand empty for about half an answer."""


def message(clip: Clip, indices: list[int], prompt: str) -> list[dict[str, Any]]:
    """The conversation of one user's message: thumbnails, then words."""
    urls = [f"data:image/jpeg;base64,{base64.b64encode(clip.jpegs[i]).decode()}" for i in indices]
    pictures = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [{"role": "user", "content": [*pictures, {"type": "text", "text": prompt}]}]


@dataclass
class OpenAIServer:
    """A caption by a model behind an OpenAI-compatible server: vLLM, SGLang, llama.cpp, or a hosted one.

    Attributes:
        model: The model's name as the server knows it.
        base_url: The server's address up to and with `/v1`; the default is vLLM's on this machine. Captions are not written
            again when it changes, for they are told apart by the model's name.
        api_key_env: Name of the environment variable that holds the API key; left out, none is sent.
        preset: What is asked: `video` (what happens), `dense` (in detail, a frame every 2 s), `camera` or `tags`.
        prompt: What is asked instead; `{motion}` stands for the clip's value in that column.
        frames: How many frames are shown, evenly spread; left out, what the preset says; 0 shows none.
        every_s: A frame every so many seconds instead.
        max_tokens: How long the answer may be; left out, what the preset says.
        temperature: 0 always takes the likeliest token; above, tokens are drawn.
        top_p: Draws among the likeliest tokens that hold this share of probability, (0, 1].
        seed: Of the draws; each clip is sent one of its own, for servers that heed it.
        concurrency: Requests in flight at most, of each worker (one, where the pipeline says no `workers:`).
        timeout_s: Seconds that one attempt may take.
        retries: Attempts after the first.
        backoff_s: Pause before the second attempt, in seconds; it doubles each time, to a minute at most.
        extra: Further fields of the request; null removes one (`{max_tokens: null, max_completion_tokens: 96}`).
    """

    model: str
    base_url: str = "http://127.0.0.1:8000/v1"
    api_key_env: str | None = None
    preset: PresetName = "video"
    prompt: str | None = None
    frames: int | None = None
    every_s: float | None = None
    max_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    concurrency: int = 16
    timeout_s: float = 120.0
    retries: int = 6
    backoff_s: float = 0.5
    extra: dict[str, Any] = field(default_factory=dict)

    columns: ClassVar[dict[str, pa.DataType]] = COLUMNS
    version: ClassVar[int] = 1
    workers: ClassVar[int] = 1
    patience: ClassVar[tuple[str, ...]] = (
        "base_url", "api_key_env", "concurrency", "timeout_s", "retries", "backoff_s",
    )  # fmt: skip

    def __post_init__(self) -> None:
        """Check the options."""
        if self.frames is not None and self.frames < 0:
            raise ValueError(f"frames of OpenAIServer is {self.frames}; it must be 0 or more")
        Decoding(self.question.max_tokens, self.temperature, self.top_p, self.seed)
        self.client  # noqa: B018  checks its values

    @property
    def question(self) -> Preset:
        """What is asked, of which frames."""
        return question(self.preset, self.prompt, self.frames, self.every_s, self.max_tokens)

    @property
    def client(self) -> ChatClient:
        """The server, and how patient we are with it."""
        return ChatClient(
            self.base_url, self.concurrency, self.timeout_s, self.retries, self.backoff_s, self.api_key_env
        )

    @property
    def batch_size(self) -> int:
        """Clips per call."""
        return ROUNDS * self.concurrency

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns that the prompt names."""
        return placeholders(self.question.prompt)

    def check(self) -> None:
        """Whether the server answers, lets us in and has the model. Raises ValueError, in one sentence."""
        self.client.check(self.model)

    def setup(self) -> None:
        """Nothing heavy."""

    def __call__(self, clips: list[Clip]) -> list[dict[str, Any]]:
        """One row per clip: `clip_id` and what `annotate.caption` lists, or `error` where the server gave no answer."""
        shown = {clip.clip_id: self.shown(clip) for clip in clips}

        def shorter(clip_id: str) -> bool:
            there = shown[clip_id]  # the list that the body is made from
            if len(there) < 2:
                return False
            there[:] = fewer(there, len(there) // 2)
            return True

        bodies = {clip.clip_id: partial(self.body, clip, shown[clip.clip_id]) for clip in clips}
        replies = self.client.ask(bodies, shorter)
        rows = []
        for clip in clips:
            reply = replies[clip.clip_id]
            if isinstance(reply, str):
                rows.append({"clip_id": clip.clip_id, "error": reply})
            else:
                rows.append(Answer(**vars(reply), frames=len(shown[clip.clip_id])).row(clip.clip_id))
        return rows

    def shown(self, clip: Clip) -> list[int]:
        """Indices of the thumbnails that go along."""
        asked = self.question
        return chosen(clip.jpeg_times_s, asked.frames, asked.every_s)

    def body(self, clip: Clip, indices: list[int]) -> dict[str, Any]:
        """The request for one clip."""
        asked = self.question
        made: dict[str, Any] = {
            "model": self.model,
            "messages": message(clip, indices, fill(asked.prompt, clip.columns)),
            "max_tokens": asked.max_tokens,
            "temperature": self.temperature,
        }
        if self.temperature:
            made |= {"top_p": self.top_p, "seed": seed_of(self.seed, clip.clip_id) % 2**31}
        return {name: value for name, value in (made | self.extra).items() if value is not None}
