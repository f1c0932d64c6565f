"""Vlm: a caption by a vision-language model that sees several frames of the clip.

Any image-text-to-text model of transformers with a chat template: Qwen2.5-VL and Qwen3-VL, SmolVLM2, LLaVA-OneVision,
InternVL and others. The frames are thumbnails, sampled in time; a model with a processor for videos gets them as a video
with their times, others as pictures in a row (`show`). What is asked is a preset or a prompt of yours.

A clip whose frames do not fit the model's context is shown fewer (the column `frames` says how many); a batch that does
not fit the GPU is halved and the size kept. The code of a checkpoint is never run (`trust_remote_code`).

Source: SVD captions with a video captioner (arXiv 2311.15127, 3.1), CogVideoX with dense ones (arXiv 2408.06072); frames with
prompts of their own (`tag_frames`) are ZeroScope's data format. The default model is ours: the smallest Qwen3-VL
(Apache-2.0), which takes videos with times. No trained VLM could be had where this was tested: small randomly
initialised Qwen2.5-VL and LLaVA-OneVision checkpoints were, through the same code.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import pyarrow as pa

from annotate import frames as sampling
from annotate.caption import COLUMNS, TAGGED_FRAMES, Answer, tagged
from annotate.generate import TOO_LARGE, Decoding, Halving, Precision, where, write
from annotate.prompts import Preset, PresetName, fill, placeholders, question
from annotate.vlm_inputs import Ask, fitted, takes_ragged
from curate.clip import Clip


@dataclass
class Vlm:
    """A caption by a vision-language model that sees several frames of the clip.

    Attributes:
        weights: Folder with the model, its processor and tokenizer.
        preset: What is asked: `video` (what happens), `dense` (in detail, a frame every 2 s), `camera` or `tags`.
        prompt: What is asked instead; `{motion}` stands for the clip's value in that column.
        frames: How many frames are shown, evenly spread; left out, what the preset says.
        every_s: A frame every so many seconds instead.
        show: Frames as one `video`, as `images` in a row, or (`auto`) as a video where the model has a processor for it.
        max_tokens: How long the answer may be; left out, what the preset says.
        temperature: 0 always takes the likeliest token; above, tokens are drawn.
        top_p: Draws among the likeliest tokens that hold this share of probability, (0, 1].
        seed: Of the draws.
        tag_frames: How many frames, evenly spread, get a prompt of their own in `tagged_frames` (ZeroScope: 3).
        max_context: Tokens of prompt and answer together; left out, what the model says.
        precision: `auto` is bf16 on a GPU that has it, else fp16; fp32 on the CPU.
        device: `auto` is the GPU where there is one.
    """

    weights: str = "hub:Qwen/Qwen3-VL-2B-Instruct"
    preset: PresetName = "video"
    prompt: str | None = None
    frames: int | None = None
    every_s: float | None = None
    show: Literal["auto", "video", "images"] = "auto"
    max_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    tag_frames: int = 0
    max_context: int | None = None
    precision: Precision = "auto"
    device: str = "auto"

    _net: Any = field(default=None, init=False, repr=False, compare=False)
    _processor: Any = field(default=None, init=False, repr=False, compare=False)
    _halving: Halving = field(default_factory=Halving, init=False, repr=False, compare=False)
    _ragged: bool | None = field(default=None, init=False, repr=False, compare=False)
    """Whether a pass may hold clips with different numbers of frames; None: not tried yet."""

    version: ClassVar[int] = 1
    batch_size: ClassVar[int] = 16

    def __post_init__(self) -> None:
        """Check the options."""
        for name in ("frames", "max_context"):
            if (value := getattr(self, name)) is not None and not value > 0:
                raise ValueError(f"{name} of Vlm is {value}; it must be above 0")
        if self.tag_frames < 0:
            raise ValueError(f"tag_frames of Vlm is {self.tag_frames}; it must be 0 or more")
        self.decoding  # noqa: B018  checks its values

    @property
    def question(self) -> Preset:
        """What is asked, of which frames."""
        return question(self.preset, self.prompt, self.frames, self.every_s, self.max_tokens)

    @property
    def decoding(self) -> Decoding:
        """How tokens are chosen."""
        return Decoding(self.question.max_tokens, self.temperature, self.top_p, self.seed)

    @property
    def columns(self) -> dict[str, pa.DataType]:
        """What every captioner has, and the tagged frames where they are asked for."""
        return {**COLUMNS, **({"tagged_frames": TAGGED_FRAMES} if self.tag_frames else {})}

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns that the prompt names."""
        return placeholders(self.question.prompt)

    @property
    def as_video(self) -> bool:
        """Whether frames go in as a video (after `setup`)."""
        return self.show == "video" or (self.show == "auto" and hasattr(self._processor, "video_processor"))

    def setup(self) -> None:
        """Load model, processor and tokenizer from their folder; nothing is fetched."""
        from transformers import AutoModelForImageTextToText, AutoProcessor
        from transformers.utils import logging

        logging.disable_progress_bar()
        logging.set_verbosity_error()  # of processors' plans for later versions
        device, dtype = where(self.device, self.precision)
        self._processor = AutoProcessor.from_pretrained(self.weights, local_files_only=True, trust_remote_code=False)
        self._processor.tokenizer.padding_side = "left"
        net = AutoModelForImageTextToText.from_pretrained(
            self.weights, local_files_only=True, dtype=dtype, trust_remote_code=False
        )
        self._net = net.to(device).eval()

    def __call__(self, clips: list[Clip]) -> list[dict[str, Any]]:
        """One row per clip: `clip_id` and what `annotate.caption` lists; an `error` where a clip alone is too large.

        Raises:
            RuntimeError: called before `setup`.
        """
        if self._net is None:
            raise RuntimeError("call setup() before Vlm is called")
        asks = [self._ask(clip) for clip in clips]
        tags = [ask for clip in clips for ask in self._tags(clip)]
        found = {**self._answers(asks), **self._answers(tags)}
        return [self._row(clip, found) for clip in clips]

    def _ask(self, clip: Clip) -> Ask:
        asked = self.question
        indices = sampling.chosen(clip.jpeg_times_s, asked.frames, asked.every_s)
        return Ask(clip.clip_id, fill(asked.prompt, clip.columns), clip, indices)

    def _tags(self, clip: Clip) -> list[Ask]:
        prompt = fill(self.question.prompt, clip.columns)
        indices = sampling.spread(len(clip.jpegs), self.tag_frames)
        return [Ask(f"{clip.clip_id} {i}", prompt, clip, [i]) for i in indices]

    def _answers(self, asks: Sequence[Ask]) -> dict[str, Answer | None]:
        answers = self._halving.run(asks, self._pass)
        return {ask.key: answer for ask, answer in zip(asks, answers, strict=True)}

    def _row(self, clip: Clip, found: Mapping[str, Answer | None]) -> dict[str, Any]:
        answer = found[clip.clip_id]
        said = [(ask.indices[0], found[ask.key]) for ask in self._tags(clip)]
        if answer is None or any(tag is None for _, tag in said):
            return {"clip_id": clip.clip_id, "error": TOO_LARGE}
        tags = {"tagged_frames": [tagged(clip, i, tag.text) for i, tag in said if tag]} if self.tag_frames else {}
        return answer.row(clip.clip_id, **tags)

    def _pass(self, asks: Sequence[Ask]) -> list[Answer]:
        """Answers of one pass through the model, or of one for each number of frames where it takes only equal ones."""
        counts = sorted({len(ask.indices) for ask in asks})
        if len(counts) > 1 and self._ragged is None:
            self._ragged = takes_ragged(self._processor, asks, self.as_video)
        if len(counts) == 1 or self._ragged:
            return self._write(asks)
        answers: dict[str, Answer] = {}
        for count in counts:
            some = [ask for ask in asks if len(ask.indices) == count]
            answers.update(zip((ask.key for ask in some), self._write(some), strict=True))
        return [answers[ask.key] for ask in asks]

    def _write(self, asks: Sequence[Ask]) -> list[Answer]:
        began = time.perf_counter()
        text = self._net.config.get_text_config()
        context = self.max_context or getattr(text, "max_position_embeddings", None) or 2**31
        inputs, asks = fitted(self._processor, asks, self.as_video, context - self.decoding.max_tokens)
        inputs = {name: value.to(self._net.device) if hasattr(value, "to") else value for name, value in inputs.items()}
        for name in ("pixel_values", "pixel_values_videos"):
            if name in inputs:
                inputs[name] = inputs[name].to(self._net.dtype)
        tokenizer = self._processor.tokenizer
        made = write(self._net, inputs, [ask.key for ask in asks], self.decoding, tokenizer.pad_token_id)
        texts = tokenizer.batch_decode([row.tokens for row in made], skip_special_tokens=True)
        seconds = (time.perf_counter() - began) / len(asks)
        return [
            Answer(text, row.prompt_tokens, len(row.tokens), row.finish_reason, len(ask.indices), seconds)
            for ask, row, text in zip(asks, made, texts, strict=True)
        ]
