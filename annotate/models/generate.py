"""Text generation with a transformers model, a batch at a time: a row does not depend on the other rows of its batch.

Greedy at temperature 0. Above 0 a token is sampled from softmax(logits / temperature), truncated to the smallest set of tokens
that holds `top_p` of the probability (Holtzman et al. 2020, arXiv 1904.09751). Each sample is a function of (seed, key of
the row, position) alone: Gumbel noise is added to the logits and the maximum is taken, which is the same distribution
(Gumbel 1954). A clip therefore has the same caption in any batch and after any interruption, up to the last bits of
the logits: padding changes them by about 1e-6 in float32 (more in bf16), and of two tokens that close either may win.

Prompts are padded on the left. N rows, L tokens, V tokens of the vocabulary.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from annotate.models.caption import Answer
from filters.models.device import Precision, dtype_of, resolved

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Decoding:
    """How tokens are chosen: at most `max_tokens` of them; `temperature` [0, inf), 0 is greedy; `top_p` (0, 1]."""

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the values."""
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens is {self.max_tokens}; it must be at least 1")
        if not self.temperature >= 0:
            raise ValueError(f"temperature is {self.temperature}; it must be 0 (greedy) or more")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}; it must be above 0 and at most 1")


@dataclass(frozen=True)
class Written:
    """The output of one row: token ids without the end token, and why it ended."""

    tokens: list[int]
    prompt_tokens: int
    finish_reason: Literal["stop", "length"]


def seed_of(seed: int, key: str) -> int:
    """63 bits from a seed and a key, the same on every machine."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:8], "big") >> 1


class SeededChoice:
    """A logits processor: the largest logit of its output is the sampled token."""

    def __init__(self, decoding: Decoding, keys: Sequence[str]) -> None:
        import torch

        self.decoding = decoding
        self.rngs = [torch.Generator().manual_seed(seed_of(decoding.seed, key)) for key in keys]

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Scores (N, V) plus noise, minus infinity outside `top_p`."""
        import torch

        scores_NV = scores.float() / self.decoding.temperature
        if self.decoding.top_p < 1:
            sorted_NV, order_NV = torch.sort(scores_NV, descending=True)
            share_NV = sorted_NV.softmax(-1)
            beyond_NV = share_NV.cumsum(-1) - share_NV >= self.decoding.top_p
            scores_NV = scores_NV.masked_fill(beyond_NV.scatter(1, order_NV, beyond_NV), -torch.inf)
        uniform_NV = torch.stack([torch.rand(scores_NV.shape[1], generator=rng) for rng in self.rngs])
        return scores_NV - torch.log(-torch.log(uniform_NV.clamp(1e-20, 1 - 1e-7))).to(scores_NV.device)


def write(net: Any, inputs: Mapping[str, Any], keys: Sequence[str], decoding: Decoding, pad: int) -> list[Written]:
    """Generates the answers to a batch of prompts.

    Args:
        net: A model with transformers' `generate`.
        inputs: Its processor's output, on its device: `input_ids` and `attention_mask` (N, L) padded on the left, and pixels.
        keys: Keys of the rows, such as clip ids; they determine the samples.
        decoding: How tokens are chosen.
        pad: Id of the padding token.

    Returns:
        One per row, in order.
    """
    import torch

    more = {} if decoding.temperature == 0 else {"logits_processor": [SeededChoice(decoding, keys)]}
    with torch.inference_mode():
        tokens_NL = net.generate(
            **inputs, max_new_tokens=decoding.max_tokens, do_sample=False, num_beams=1, pad_token_id=pad, **more
        )
    ends = ending(net)
    lengths = inputs["attention_mask"].sum(dim=1).tolist()
    rows = tokens_NL[:, inputs["input_ids"].shape[1] :].tolist()
    return [_until(row, length, ends) for row, length in zip(rows, lengths, strict=True)]


def ending(net: Any) -> set[int]:
    """Ids of the tokens that end an answer."""
    found = net.generation_config.eos_token_id
    return set(found) if isinstance(found, Iterable) else {found}


def _until(row: list[int], prompt_tokens: int, ends: set[int]) -> Written:
    for i, token in enumerate(row):
        if token in ends:
            return Written(row[:i], int(prompt_tokens), "stop")
    return Written(row, int(prompt_tokens), "length")


def answers_of(written: Sequence[Written], tokenizer: Any, frames: Sequence[int | None], began: float) -> list[Answer]:
    """The rows of one pass as answers: decoded, with an equal share each of the seconds since `began` (`time.perf_counter`)."""
    texts = tokenizer.batch_decode([row.tokens for row in written], skip_special_tokens=True)
    seconds = (time.perf_counter() - began) / len(written)
    return [
        Answer(text, row.prompt_tokens, len(row.tokens), row.finish_reason, n_frames, seconds)
        for text, row, n_frames in zip(texts, written, frames, strict=True)
    ]


def device_and_dtype(device: str, precision: Precision) -> tuple[str, Any]:
    """The device and torch dtype; `filters.models.device` says what `auto` is."""
    found, precise = resolved(device, precision)
    return found, dtype_of(precise)


class Halving:
    """Runs work in passes that fit the GPU: if a pass runs out of memory, its size is halved and kept for later passes.

    The result of an item that does not fit alone is None.
    """

    def __init__(self) -> None:
        self.most: int | None = None

    def run(self, items: Sequence[Item], work: Callable[[Sequence[Item]], Sequence[Result]]) -> list[Result | None]:
        """Results of all items, in order."""
        import torch

        done: list[Result | None] = []
        while len(done) < len(items):
            some = items[len(done) : len(done) + (self.most or len(items))]
            try:
                done += work(some)
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
                if len(some) == 1:
                    done.append(None)
                else:
                    self.most = len(some) // 2
        return done
