"""VllmBatch: a caption by vLLM's offline engine on the worker's own GPU, many clips at a time with continuous batching.

Ray Data's `ray.data.llm` runs the same engine inside its actors. Here the engine runs in our own actor, because `ray.data.llm`
sends rows through Ray's object store (thumbnails included) and does not know our tables, errors and resumption.
If a vLLM server is already running, use `annotate.OpenAIServer`. Request a GPU: `{use: annotate.VllmBatch, gpus: 1}`.

It needs a GPU and the package vllm (`pip install vllm`). vllm brings its own torch and is therefore in none of our extras.
Not tested with the real package: the tests use a stand-in for `vllm.LLM.chat` as documented for vLLM 0.10.
"""

import importlib.util
import time
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pyarrow as pa

from annotate.models.caption import COLUMNS, Answer
from annotate.models.frame_question import FrameQuestion, chat_messages
from annotate.models.frames import fewer
from annotate.models.prompts import PresetName
from curate.clip import Clip


@dataclass
class VllmBatch(FrameQuestion):
    """A caption by vLLM's offline engine on a GPU of the worker.

    Attributes:
        weights: Folder with the model, its processor and tokenizer.
        preset: Prompt and sampling: `video` (what happens), `dense` (in detail, a frame every 2 s), `camera` or `tags`.
        prompt: A prompt in place of the preset's; `{motion}` is replaced by the clip's value in that column.
        frames: Number of frames, evenly spread; by default the preset's.
        every_s: One frame every so many seconds instead.
        max_tokens: Maximum length of the answer; by default the preset's.
        temperature: 0 always takes the likeliest token; above 0 tokens are sampled.
        top_p: Samples among the likeliest tokens that hold this share of probability, (0, 1].
        seed: Seed of the sampling; each clip gets its own, derived from it.
        most_frames: Maximum frames of one prompt, for which the engine reserves memory; more are thinned out evenly.
        engine: Further arguments of `vllm.LLM`, such as `{max_model_len: 8192, gpu_memory_utilization: 0.85}`.
    """

    weights: str = "hub:Qwen/Qwen3-VL-2B-Instruct"
    preset: PresetName = "video"
    prompt: str | None = None
    frames: int | None = None
    every_s: float | None = None
    max_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    most_frames: int = 16
    engine: dict[str, Any] = field(default_factory=dict)

    _llm: Any = field(default=None, init=False, repr=False, compare=False)

    columns: ClassVar[dict[str, pa.DataType]] = COLUMNS
    version: ClassVar[int] = 1
    batch_size: ClassVar[int] = 256

    def __post_init__(self) -> None:
        """Check the options."""
        self.decoding  # noqa: B018  checks its values
        if self.most_frames < 1:
            raise ValueError(f"most_frames of VllmBatch is {self.most_frames}; it must be at least 1")

    def check(self) -> None:
        """Raises ValueError if vllm is not installed."""
        if importlib.util.find_spec("vllm") is None:
            raise ValueError(
                "the package vllm is not installed; run pip install vllm on a machine with a GPU, or use annotate.OpenAIServer"
            )

    def setup(self) -> None:
        """Start the engine with the model from its folder; nothing is downloaded."""
        from vllm import LLM

        self._llm = LLM(model=self.weights, limit_mm_per_prompt={"image": self.most_frames}, **self.engine)

    def __call__(self, clips: list[Clip]) -> list[dict[str, Any]]:
        """One row per clip: `clip_id` and the columns of a captioner.

        Raises:
            RuntimeError: called before `setup`, or the engine returns another number of captions.
        """
        if self._llm is None:
            raise RuntimeError("call setup() before VllmBatch is called")
        from vllm import SamplingParams

        began = time.perf_counter()
        shown = [fewer(self.shown(clip), self.most_frames) for clip in clips]
        conversations = [
            chat_messages(clip, indices, self.prompt_of(clip)) for clip, indices in zip(clips, shown, strict=True)
        ]
        sampling = [
            SamplingParams(
                max_tokens=self.question.max_tokens,
                temperature=self.temperature,
                top_p=self.top_p,
                seed=self.seed_for(clip),
            )
            for clip in clips
        ]
        outputs = self._llm.chat(conversations, sampling, use_tqdm=False)
        if len(outputs) != len(clips):
            raise RuntimeError(f"vLLM returned {len(outputs)} captions for {len(clips)} clips")
        seconds = (time.perf_counter() - began) / len(clips)
        rows = []
        for clip, indices, output in zip(clips, shown, outputs, strict=True):
            best = output.outputs[0]
            tokens = len(output.prompt_token_ids or ()), len(best.token_ids)
            answer = Answer(best.text, *tokens, best.finish_reason or "stop", len(indices), seconds)
            rows.append(answer.row(clip.clip_id))
        return rows
