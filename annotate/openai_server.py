"""OpenAIServer: a caption by a model behind an OpenAI-compatible server: vLLM, SGLang, llama.cpp, or a hosted one.

It uses the same prompts as `annotate.Vlm`. The thumbnails are sent unchanged (JPEG in data URLs), in order, before the text. With
`frames: 0` only text is sent, so that a server can merge captions: `prompt: "Merge: {caption_coca} / {caption_vlm}"`.

One call takes many clips and keeps `concurrency` requests in flight until the last of them (`annotate/models/chat_client.py` lists
the faults it tolerates). A clip without an answer after all retries is an `error`; the other clips are not affected. If the frames do
not fit the model's context, their number is halved, down to one (the column `frames` has the number used). Token counts are the
server's. `seconds` is measured from the first attempt to the answer, without pauses.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import pyarrow as pa

from annotate.models.caption import COLUMNS, Answer
from annotate.models.chat_client import ChatClient
from annotate.models.frame_question import FrameQuestion, chat_messages
from annotate.models.frames import fewer
from annotate.models.prompts import PresetName
from curate.clip import Clip

ROUNDS = 32
"""Clips per call, in multiples of `concurrency`: at the end of a call, slots are idle for about half an answer."""


@dataclass
class OpenAIServer(FrameQuestion):
    """A caption by a model behind an OpenAI-compatible server: vLLM, SGLang, llama.cpp, or a hosted one.

    Attributes:
        model: The model's name on the server.
        base_url: The server's address up to and with `/v1`; the default is vLLM's on this machine. Changing it does not
            invalidate captions: the table is identified by the model's name.
        api_key_env: Name of the environment variable that holds the API key; by default no key is sent.
        preset: Prompt and sampling: `video` (what happens), `dense` (in detail, a frame every 2 s), `camera` or `tags`.
        prompt: A prompt in place of the preset's; `{motion}` is replaced by the clip's value in that column.
        frames: Number of frames, evenly spread; by default the preset's; 0 sends none.
        every_s: One frame every so many seconds instead.
        max_tokens: Maximum length of the answer; by default the preset's.
        temperature: 0 always takes the likeliest token; above 0 tokens are sampled.
        top_p: Samples among the likeliest tokens that hold this share of probability, (0, 1].
        seed: Seed of the sampling; each clip's own seed, derived from it, is sent to the server, which may ignore it.
        concurrency: Maximum requests in flight of each worker (one worker, unless the pipeline sets `workers:`).
        timeout_s: Maximum seconds of one attempt.
        retries: Attempts after the first.
        backoff_s: Pause before the second attempt, in seconds; it doubles each time, up to a minute.
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
        self.decoding  # noqa: B018  checks its values
        self.client  # noqa: B018  checks its values

    @property
    def client(self) -> ChatClient:
        """The client of the server, with its limits."""
        return ChatClient(
            self.base_url, self.concurrency, self.timeout_s, self.retries, self.backoff_s, self.api_key_env
        )

    @property
    def batch_size(self) -> int:
        """Clips per call."""
        return ROUNDS * self.concurrency

    def check(self) -> None:
        """Raises ValueError if the server does not answer, refuses the key or does not have the model."""
        self.client.check(self.model)

    def setup(self) -> None:
        """Nothing to load."""

    def __call__(self, clips: list[Clip]) -> list[dict[str, Any]]:
        """One row per clip: `clip_id` and the columns of a captioner, or `error` if the server gave no answer."""
        shown = {clip.clip_id: self.shown(clip) for clip in clips}

        def shorten(clip_id: str) -> bool:
            indices = shown[clip_id]  # the list that `body` reads
            if len(indices) < 2:
                return False
            indices[:] = fewer(indices, len(indices) // 2)
            return True

        bodies = {clip.clip_id: partial(self.body, clip, shown[clip.clip_id]) for clip in clips}
        replies = self.client.ask(bodies, shorten)
        rows = []
        for clip in clips:
            reply = replies[clip.clip_id]
            if isinstance(reply, str):
                rows.append({"clip_id": clip.clip_id, "error": reply})
            else:
                rows.append(Answer(**vars(reply), frames=len(shown[clip.clip_id])).row(clip.clip_id))
        return rows

    def body(self, clip: Clip, indices: list[int]) -> dict[str, Any]:
        """The request for one clip."""
        request: dict[str, Any] = {
            "model": self.model,
            "messages": chat_messages(clip, indices, self.prompt_of(clip)),
            "max_tokens": self.question.max_tokens,
            "temperature": self.temperature,
        }
        if self.temperature:
            request |= {"top_p": self.top_p, "seed": self.seed_for(clip)}
        return {name: value for name, value in (request | self.extra).items() if value is not None}
