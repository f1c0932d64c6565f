"""CaptionCheck: is each caption a caption at all, and is it on the right clip?

`caption_rank_<name>`: of `others` other clips, the share whose frames fit the caption better than its own clip's, [0, 1]; 0 is
best, captions dealt out at random have 0.5 on average. Fit is the cosine of embeddings: CLIP's where its `weights` are given
(the vector `openclip` that `filters.OpenClip` stored, of three frames together), else those of the label space (`filters.Conse` against
`annotate.MiniLM`), which is weaker. The other clips are the next ones on a ring of all clips in
the order of a hash of their ids, so they depend on which clips there are and not on their order.

`caption_flags`: what is wrong, as words `captioner:flag` with spaces between; empty where nothing is, so `keep: caption_flags:
{is: ""}` drops what is flagged. The flags of `annotate/models/caption_flags.py`, and

| flag | the caption |
|---|---|
| `truncated` | was cut at the limit of tokens (`finish_reason_<name>` is `length`) |
| `common` | stands word for word on more than one in twenty clips, and on five at least |
| `mismatched` | has a rank above `worst_rank` |

A pipeline once attached captions to wrong clips for four months of releases; a rank near 0.5 on average is how that looks.

Ours: 31 others, `worst_rank`, the bounds of `common`. On coco_mini (51 photographs, 5 captions each) the rank by ConSE tells a
right caption from the next photograph's with an AUC of 0.93; 3 % of right captions have a rank above 0.5, 45 % of wrong ones.

Reads columns alone, of all clips at once: some 10 KB of memory a clip, and all captions are embedded anew when a clip is added.

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
    """Share of the next `others` rows whose frames fit a text better than its own row's, ties counted half.

    Args:
        texts_ND: a vector per clip, of length 1; NaN where it has no caption.
        frames_ND: a vector per clip, of length 1; NaN where it has none.
        others: how many other clips, at most N - 1.

    Returns:
        Shape (N,), in [0, 1]; NaN where there is nothing to compare.
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
    """Share of other clips that each caption fits better than its own, and what is wrong with the caption in words.

    Attributes:
        captions: Names of the captioners to check; left empty, all of the run.
        others: How many other clips each caption is held against.
        worst_rank: A rank above this is flagged, [0, 1].
        language: The language that captions should be in; `null` takes any.
        prompts: Prompts that a caption must not repeat, besides the presets of `annotate.Vlm`.
        seed: Of the ring.
        model: The open_clip configuration that `OpenClip` used.
        weights: The weights that `OpenClip` used; left out, ConSE is used.
        text_weights: Folder with the sentence model that ConSE's labels were embedded with.
        precision: `auto` is bf16 on a GPU that has it, else fp16; fp32 on the CPU.
        device: `auto` is the GPU where there is one.
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
        """A rank for each captioner, and the flags of all."""
        return {**{f"caption_rank_{name}": pa.float32() for name in self.captions}, "caption_flags": pa.string()}

    @property
    def vector(self) -> str:
        """The column that holds what the frames look like."""
        return "conse" if self.weights is None else "openclip"

    @property
    def reads(self) -> tuple[str, ...]:
        """The captions, why they ended, and the vector of the frames."""
        return (*(f"caption_{n}" for n in self.captions), *(f"finish_reason_{n}?" for n in self.captions), self.vector)

    def setup(self) -> None:
        """Load the model for texts from its folder; nothing is fetched."""
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
        told: list[list[str]] = [[] for _ in clips]
        prompts = [*self.prompts, *(preset.prompt for preset in PRESETS.values())]
        for name in self.captions:
            texts = [text if isinstance(text := clip.columns.get(f"caption_{name}"), str) else None for clip in clips]
            ranked = self._ranks(clips, texts)
            often = Counter(texts)
            common = max(COMMON_SHARE * len(clips), COMMON_LEAST)
            for i, (clip, text) in enumerate(zip(clips, texts, strict=True)):
                rank = float(ranked[i]) if np.isfinite(ranked[i]) else None
                rows[i][f"caption_rank_{name}"] = rank
                if text is None:
                    continue
                found = flags(text, prompts, self.language)
                found += ["truncated"] if clip.columns.get(f"finish_reason_{name}") == "length" else []
                found += ["common"] if text and often[text] >= common else []
                found += ["mismatched"] if rank is not None and rank > self.worst_rank else []
                told[i] += [f"{name}:{flag}" for flag in found]
        return [{**row, "caption_flags": " ".join(flagged)} for row, flagged in zip(rows, told, strict=True)]

    def _ranks(self, clips: list[Clip], texts: list[str | None]) -> NDArray[np.float32]:
        """Ranks of the captions, NaN where there is nothing to compare. A caption on many clips is embedded once."""
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
