"""VllmBatch: a caption by vLLM's offline engine on this worker's own GPU: many clips at a time, continuously batched.

This is what Ray Data's `ray.data.llm` runs inside its actors too; here the engine sits in our own actor, because the rows of
`ray.data.llm` travel through Ray's object store (thumbnails and all) and know nothing of our tables, errors and resumption.
Where vLLM serves over HTTP already, `annotate.OpenAIServer` does the same. Give it a GPU: `{use: annotate.VllmBatch, gpus: 1}`.

Needs a GPU and the package vllm (`pip install vllm`), which brings a torch of its own and is therefore in none of our extras.
Neither could be had where this was written: it was tested against a stand-in for `vllm.LLM.chat` as documented for vLLM 0.10.
"""

import importlib.util
import time
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pyarrow as pa

from annotate.caption import COLUMNS, Answer
from annotate.frames import chosen, fewer
from annotate.generate import Decoding, seed_of
from annotate.openai_server import message
from annotate.prompts import Preset, PresetName, fill, placeholders, question
from curate.clip import Clip


@dataclass
class VllmBatch:
    """A caption by vLLM's offline engine on a GPU of the worker.

    Attributes:
        weights: Folder with the model, its processor and tokenizer.
        preset: What is asked: `video` (what happens), `dense` (in detail, a frame every 2 s), `camera` or `tags`.
        prompt: What is asked instead; `{motion}` stands for the clip's value in that column.
        frames: How many frames are shown, evenly spread; left out, what the preset says.
        every_s: A frame every so many seconds instead.
        max_tokens: How long the answer may be; left out, what the preset says.
        temperature: 0 always takes the likeliest token; above, tokens are drawn.
        top_p: Draws among the likeliest tokens that hold this share of probability, (0, 1].
        seed: Of the draws; each clip has one of its own.
        most_frames: Pictures that the engine makes room for in one prompt; of more, so many are shown, evenly spread.
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
        Decoding(self.question.max_tokens, self.temperature, self.top_p, self.seed)
        if self.most_frames < 1:
            raise ValueError(f"most_frames of VllmBatch is {self.most_frames}; it must be at least 1")

    @property
    def question(self) -> Preset:
        """What is asked, of which frames."""
        return question(self.preset, self.prompt, self.frames, self.every_s, self.max_tokens)

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns that the prompt names."""
        return placeholders(self.question.prompt)

    def check(self) -> None:
        """Whether vllm is installed. Raises ValueError."""
        if importlib.util.find_spec("vllm") is None:
            raise ValueError(
                "the package vllm is not installed (pip install vllm, on a machine with a GPU); or serve it: annotate.OpenAIServer"
            )

    def setup(self) -> None:
        """Start the engine with the model from its folder; nothing is fetched."""
        from vllm import LLM

        self._llm = LLM(model=self.weights, limit_mm_per_prompt={"image": self.most_frames}, **self.engine)

    def __call__(self, clips: list[Clip]) -> list[dict[str, Any]]:
        """One row per clip: `clip_id` and what `annotate.caption` lists.

        Raises:
            RuntimeError: called before `setup`, or the engine answers for another number of clips.
        """
        if self._llm is None:
            raise RuntimeError("call setup() before VllmBatch is called")
        from vllm import SamplingParams

        asked, began = self.question, time.perf_counter()
        shown = [fewer(chosen(clip.jpeg_times_s, asked.frames, asked.every_s), self.most_frames) for clip in clips]
        talks = [message(clip, i, fill(asked.prompt, clip.columns)) for clip, i in zip(clips, shown, strict=True)]
        how = [
            SamplingParams(
                max_tokens=asked.max_tokens,
                temperature=self.temperature,
                top_p=self.top_p,
                seed=seed_of(self.seed, clip.clip_id) % 2**31,
            )
            for clip in clips
        ]
        outputs = self._llm.chat(talks, how, use_tqdm=False)
        if len(outputs) != len(clips):
            raise RuntimeError(f"vLLM was asked for {len(clips)} captions and gave {len(outputs)}")
        seconds = (time.perf_counter() - began) / len(clips)
        rows = []
        for clip, indices, output in zip(clips, shown, outputs, strict=True):
            best = output.outputs[0]
            tokens = len(output.prompt_token_ids or ()), len(best.token_ids)
            answer = Answer(best.text, *tokens, best.finish_reason or "stop", len(indices), seconds)
            rows.append(answer.row(clip.clip_id))
        return rows
