"""Vlm: a caption by a vision-language model that sees several frames of the clip.

It runs any image-text-to-text model of transformers with a chat template: Qwen2.5-VL and Qwen3-VL, SmolVLM2, LLaVA-OneVision,
InternVL and others. The frames are thumbnails, sampled in time. A model with a video processor gets them as a video with
their times, other models as a sequence of images (`show`). The prompt is a preset or your own.

If a clip's frames do not fit the model's context, it is shown fewer (the column `frames` has the number used). If a batch
does not fit the GPU, the batch size is halved and kept. Code in a checkpoint is never run (`trust_remote_code`).

Source: SVD captions with a video captioner (arXiv 2311.15127, 3.1), CogVideoX with dense ones (arXiv 2408.06072); frames with
prompts of their own (`tag_frames`) are ZeroScope's data format. The default model is ours: the smallest Qwen3-VL
(Apache-2.0), which accepts videos with times. Not tested with a trained VLM: the tests run small, randomly initialised
Qwen2.5-VL and LLaVA-OneVision checkpoints through the same code.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import pyarrow as pa

from annotate.models.caption import Answer, columns_with_tags, row_with_tags
from annotate.models.frame_question import FrameQuestion
from annotate.models.frames import spread
from annotate.models.generate import Halving, answers_of, device_and_dtype, write
from annotate.models.prompts import PresetName
from annotate.models.vlm_inputs import Ask, fitted, takes_ragged
from curate.clip import Clip
from filters.models.device import Precision


@dataclass
class Vlm(FrameQuestion):
    """A caption by a vision-language model that sees several frames of the clip.

    Attributes:
        weights: Folder with the model, its processor and tokenizer.
        preset: Prompt and sampling: `video` (what happens), `dense` (in detail, a frame every 2 s), `camera` or `tags`.
        prompt: A prompt in place of the preset's; `{motion}` is replaced by the clip's value in that column.
        frames: Number of frames, evenly spread; by default the preset's.
        every_s: One frame every so many seconds instead.
        show: Frames as one `video`, as a sequence of `images`, or (`auto`) as a video if the model has a video processor.
        max_tokens: Maximum length of the answer; by default the preset's.
        temperature: 0 always takes the likeliest token; above 0 tokens are sampled.
        top_p: Samples among the likeliest tokens that hold this share of probability, (0, 1].
        seed: Seed of the sampling.
        tag_frames: Number of frames, evenly spread, that get a prompt of their own in `tagged_frames` (ZeroScope: 3).
        max_context: Maximum tokens of prompt and answer together; by default the model's.
        precision: `auto` is bf16 on a GPU that supports it, else fp16; fp32 on the CPU.
        device: `auto` is the GPU if there is one.
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
    def columns(self) -> dict[str, pa.DataType]:
        """The columns of a captioner, and `tagged_frames` if frames are tagged."""
        return columns_with_tags(self.tag_frames)

    @property
    def as_video(self) -> bool:
        """Whether frames are passed as a video (known after `setup`)."""
        return self.show == "video" or (self.show == "auto" and hasattr(self._processor, "video_processor"))

    def setup(self) -> None:
        """Load model, processor and tokenizer from their folder; nothing is downloaded."""
        from transformers import AutoModelForImageTextToText, AutoProcessor
        from transformers.utils import logging

        logging.disable_progress_bar()
        logging.set_verbosity_error()  # processors warn about changes of later versions
        device, dtype = device_and_dtype(self.device, self.precision)
        self._processor = AutoProcessor.from_pretrained(self.weights, local_files_only=True, trust_remote_code=False)
        self._processor.tokenizer.padding_side = "left"
        net = AutoModelForImageTextToText.from_pretrained(
            self.weights, local_files_only=True, dtype=dtype, trust_remote_code=False
        )
        self._net = net.to(device).eval()

    def __call__(self, clips: list[Clip]) -> list[dict[str, Any]]:
        """One row per clip: `clip_id` and the columns; `error` if the clip alone does not fit the GPU.

        Raises:
            RuntimeError: called before `setup`.
        """
        if self._net is None:
            raise RuntimeError("call setup() before Vlm is called")
        captions = self._answers([Ask(clip.clip_id, self.prompt_of(clip), clip, self.shown(clip)) for clip in clips])
        tags = self._answers([ask for clip in clips for ask in self._tags(clip)])
        return [
            row_with_tags(
                clip,
                captions[clip.clip_id],
                [(ask.indices[0], tags[ask.key]) for ask in self._tags(clip)] if self.tag_frames else None,
            )
            for clip in clips
        ]

    def _tags(self, clip: Clip) -> list[Ask]:
        """The questions about the single frames that are tagged."""
        indices = spread(len(clip.jpegs), self.tag_frames)
        return [Ask(f"{clip.clip_id} {i}", self.prompt_of(clip), clip, [i]) for i in indices]

    def _answers(self, asks: Sequence[Ask]) -> dict[str, Answer | None]:
        answers = self._halving.run(asks, self._pass)
        return {ask.key: answer for ask, answer in zip(asks, answers, strict=True)}

    def _pass(self, asks: Sequence[Ask]) -> list[Answer]:
        """Answers of one pass through the model, or of one pass per number of frames if the processor needs equal ones."""
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
        written = write(self._net, inputs, [ask.key for ask in asks], self.decoding, tokenizer.pad_token_id)
        return answers_of(written, tokenizer, [len(ask.indices) for ask in asks], began)
