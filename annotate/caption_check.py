"""CaptionCheck: whether each caption is valid, and whether it belongs to its clip.

`caption_rank_<name>`: share of `others` other clips whose frames fit the caption better than its own clip's frames, [0, 1]; 0 is
best, randomly assigned captions have 0.5 on average. Fit is the cosine of embeddings: CLIP's if its `weights` are set
(the column `openclip` of `filters.OpenClip`, the mean of three frames), else ConSE's (`filters.Conse` against
`annotate.MiniLM`), which separates less well. The other clips are the next ones on a ring of all clips, sorted by a hash of
their ids, so they depend on the set of clips and not on its order.

`caption_flags`: defects, as words `captioner:flag` separated by spaces; empty for a valid caption, so `keep: caption_flags:
{is: ""}` drops flagged clips. The flags are those of `annotate/models/caption_flags.py`, and

| flag | the caption |
|---|---|
| `truncated` | was truncated at the token limit (`finish_reason_<name>` is `length`) |
| `common` | is the same text on more than one in twenty clips, and on at least five |
| `mismatched` | has a rank above `worst_rank` |

A pipeline once attached captions to wrong clips for four months of releases; a mean rank near 0.5 is the symptom.

Ours: 31 others, `worst_rank`, the bounds of `common`. On coco_mini (51 photographs, 5 captions each) the ConSE rank separates a
right caption from the next photograph's with an AUC of 0.93; 3 % of right captions have a rank above 0.5, 45 % of wrong ones.

It reads columns only, of all clips at once: some 10 KB of memory per clip, and all captions are embedded again when a clip is added.

N clips, D numbers of a vector.
"""

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from annotate.minilm import MiniLM
from annotate.models.caption_flags import Language, flags
from annotate.models.prompts import PRESETS
from curate.clip import Clip
from filters.models.device import Precision
from filters.models.openclip import Encoder, load, unit

COMMON_SHARE, COMMON_LEAST = 0.05, 5
TEXTS = 64


def ring(clip_ids: list[str], seed: int) -> list[int]:
    """Positions of the clips in the order of a hash of their ids."""
    return sorted(range(len(clip_ids)), key=lambda i: hashlib.sha256(f"{seed}:{clip_ids[i]}".encode()).digest())


def ranks(texts_ND: NDArray[np.float32], frames_ND: NDArray[np.float32], others: int) -> NDArray[np.float32]:
    """Share of the next `others` rows whose frames fit a text better than its own row's; a tie counts half.

    Args:
        texts_ND: A vector of length 1 per clip; NaN for a clip without a caption.
        frames_ND: A vector of length 1 per clip; NaN for a clip without vectors.
        others: Number of other clips, at most N - 1.

    Returns:
        Shape (N,), in [0, 1]; NaN if a clip has no caption, no vector, or no other clip to compare with.
    """
    n = len(texts_ND)
    own_N = (texts_ND * frames_ND).sum(axis=1)
    better_N, compared_N = np.zeros(n), np.zeros(n)
    for step in range(1, min(others, n - 1) + 1):
        ahead_N = (texts_ND[:-step] * frames_ND[step:]).sum(axis=1)
        around_N = (texts_ND[-step:] * frames_ND[:step]).sum(axis=1)
        other_N = np.concatenate([ahead_N, around_N])
        known_N = np.isfinite(other_N) & np.isfinite(own_N)
        compared_N += known_N
        better_N += known_N * ((other_N > own_N) + 0.5 * (other_N == own_N))
    shares_N = np.divide(better_N, compared_N, out=np.full(n, np.nan), where=compared_N > 0)
    return np.asarray(shares_N, dtype=np.float32)


@dataclass
class CaptionCheck:
    """Share of other clips that each caption fits better than its own clip [0, 1], and the caption's defects as words.

    Attributes:
        captions: Names of the captioners to check; by default all of the run.
        others: Number of other clips that each caption is compared with.
        worst_rank: A rank above this is flagged, [0, 1].
        language: The language that captions should be in; `null` accepts any.
        prompts: Prompts that a caption must not repeat, besides the presets of `annotate.Vlm`.
        seed: Seed of the ring.
        model: The open_clip configuration that `OpenClip` used.
        weights: The weights that `OpenClip` used; by default ConSE is used.
        text_weights: Folder with the sentence model that embedded ConSE's labels.
        precision: `auto` is bf16 on a GPU that supports it, else fp16; fp32 on the CPU.
        device: `auto` is the GPU if there is one.
    """

    captions: tuple[str, ...] = ()
    others: int = 31
    worst_rank: float = 0.5
    language: Language | None = "en"
    prompts: tuple[str, ...] = ()
    seed: int = 0
    model: str = "ViT-L-14"
    weights: str | None = None
    text_weights: str = MiniLM().weights
    precision: Precision = "auto"
    device: str = "auto"

    _encoder: Encoder | None = field(default=None, init=False, repr=False, compare=False)
    _sentences: MiniLM | None = field(default=None, init=False, repr=False, compare=False)

    version: ClassVar[int] = 1
    whole: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the options."""
        if self.others < 1:
            raise ValueError(f"others of CaptionCheck is {self.others}; it must be at least 1")
        if not 0 <= self.worst_rank <= 1:
            raise ValueError(f"worst_rank of CaptionCheck is {self.worst_rank}; it must be from 0 to 1")

    @property
    def columns(self) -> dict[str, pa.DataType]:
        """A rank for each captioner, and the flags of all captioners."""
        return {**{f"caption_rank_{name}": pa.float32() for name in self.captions}, "caption_flags": pa.string()}

    @property
    def vector(self) -> str:
        """The column with the embedding of the frames."""
        return "conse" if self.weights is None else "openclip"

    @property
    def reads(self) -> tuple[str, ...]:
        """The captions, their finish reasons, and the embedding of the frames."""
        return (*(f"caption_{n}" for n in self.captions), *(f"finish_reason_{n}?" for n in self.captions), self.vector)

    def setup(self) -> None:
        """Load the text model from its folder; nothing is downloaded."""
        if self.weights is not None:
            self._encoder = load(self.model, self.weights, self.precision, self.device)
        else:
            self._sentences = MiniLM(weights=self.text_weights)
            self._sentences.setup()

    def __call__(self, clips: list[Clip]) -> list[dict[str, Any]]:
        """One row per clip: `clip_id`, a rank per captioner (null without caption or vectors) and `caption_flags`.

        Raises:
            RuntimeError: called before `setup`.
        """
        clips = [clips[i] for i in ring([clip.clip_id for clip in clips], self.seed)]
        rows: list[dict[str, Any]] = [{"clip_id": clip.clip_id} for clip in clips]
        flagged: list[list[str]] = [[] for _ in clips]
        prompts = [*self.prompts, *(preset.prompt for preset in PRESETS.values())]
        for name in self.captions:
            texts = [text if isinstance(text := clip.columns.get(f"caption_{name}"), str) else None for clip in clips]
            ranked = self._ranks(clips, texts)
            counts = Counter(texts)
            common = max(COMMON_SHARE * len(clips), COMMON_LEAST)
            for i, (clip, text) in enumerate(zip(clips, texts, strict=True)):
                rank = float(ranked[i]) if np.isfinite(ranked[i]) else None
                rows[i][f"caption_rank_{name}"] = rank
                if text is None:
                    continue
                found = flags(text, prompts, self.language)
                found += ["truncated"] if clip.columns.get(f"finish_reason_{name}") == "length" else []
                found += ["common"] if text and counts[text] >= common else []
                found += ["mismatched"] if rank is not None and rank > self.worst_rank else []
                flagged[i] += [f"{name}:{flag}" for flag in found]
        return [{**row, "caption_flags": " ".join(words)} for row, words in zip(rows, flagged, strict=True)]

    def _ranks(self, clips: list[Clip], texts: list[str | None]) -> NDArray[np.float32]:
        """Ranks of the captions, NaN if there is nothing to compare. A text that occurs on many clips is embedded once."""
        frames = [clip.columns.get(self.vector) for clip in clips]
        there = sorted({text for text in texts if text and text.strip()})
        dim = next((len(vector) for vector in frames if vector is not None), None)
        if not there or dim is None:
            return np.full(len(clips), np.nan, dtype=np.float32)
        vectors = dict(zip(there, self._embed(there), strict=True))
        blank = np.full(dim, np.nan, dtype=np.float32)
        texts_ND = np.stack([vectors.get(text or "", blank) for text in texts])
        return ranks(texts_ND, np.stack([blank if vector is None else vector for vector in frames]), self.others)

    def _embed(self, texts: list[str]) -> NDArray[np.float32]:
        if self._sentences is not None:
            return self._sentences.embed_texts(texts)
        if self._encoder is None:
            raise RuntimeError("call setup() before CaptionCheck is called")
        parts = [self._encoder.encode_texts(texts[i : i + TEXTS]).cpu().numpy() for i in range(0, len(texts), TEXTS)]
        return unit(np.concatenate(parts))
