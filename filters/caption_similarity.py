"""CaptionSimilarity: how well each caption of a clip fits its first, middle and last thumbnail.

Unit: cosine of the caption's CLIP vector with the frame's, [-1, 1]; higher fits better. Only scores of one
model are comparable: with OpenAI's ViT-L/14 matching captions score 0.2 to 0.3 (common knowledge, not measured here).

Source: CLIP (Radford et al. 2021, arXiv 2103.00020) as SVD uses it (arXiv 2311.15127, 3.1 and Appendix C): first, middle
and last frame, every caption of the clip; the mean over the three is ours. The frames' vectors are those of `OpenClip`,
so only text goes through the model. Its `model` and `weights` must be those of `OpenClip`.

The model reads 77 tokens (about 50 words); the rest of a caption is ignored. A value does not depend on the
batch: the CPU encodes the captions of one clip at a time, a GPU runs passes of one fixed size.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.clip import Clip
from filters.models.device import Precision
from filters.models.openclip import FRAMES, Encoder, load, unit

GPU_TEXTS = 64
SUFFIXES = ("_first", "_middle", "_last", "")


def cosines(text_D: NDArray[np.float32], frames_3D: NDArray[np.float32]) -> list[float]:
    """Cosine of one vector with each of three, all of length 1, clipped to [-1, 1]."""
    return [float(np.clip(np.dot(frame_D, text_D), -1.0, 1.0)) for frame_D in frames_3D]


@dataclass
class CaptionSimilarity:
    """Cosine of every caption with the first, middle and last thumbnail [-1, 1], and the mean of the three.

    If a captioner has no caption for a clip, its columns are null.

    Attributes:
        captions: Names of the captioners to compare; by default all of the run.
        model: The open_clip configuration that `OpenClip` used.
        weights: The weights that `OpenClip` used.
        precision: `auto` is bf16 on a GPU that supports it, else fp16; fp32 on the CPU.
        device: `auto` is the GPU if there is one.
    """

    captions: tuple[str, ...] = ()
    model: str = "ViT-L-14"
    weights: str = "hub:timm/vit_large_patch14_clip_224.openai"
    precision: Precision = "auto"
    device: str = "auto"

    _encoder: Encoder | None = field(default=None, init=False, repr=False, compare=False)

    version: ClassVar[int] = 1

    @property
    def columns(self) -> dict[str, pa.DataType]:
        """Four cosines for each captioner."""
        names = [f"sim_{captioner}{suffix}" for captioner in self.captions for suffix in SUFFIXES]
        return {name: pa.float32() for name in names}

    @property
    def reads(self) -> tuple[str, ...]:
        """The captions, and the CLIP vectors of the frames."""
        return (*(f"caption_{name}" for name in self.captions), *(f"openclip_{name}" for name in FRAMES))

    def setup(self) -> None:
        """Load the model from its folder; nothing is downloaded."""
        self._encoder = load(self.model, self.weights, self.precision, self.device)

    def __call__(self, clips: list[Clip]) -> list[dict[str, Any]]:
        """One row per clip: `clip_id` and four cosines for each captioner.

        Raises:
            RuntimeError: called before `setup`.
            ValueError: a clip has no caption at all, no vectors, or vectors of another model.
        """
        texts_of = [self._texts(clip) for clip in clips]
        vectors = self._vectors(list(texts_of))
        return [self._row(clip, texts, vectors) for clip, texts in zip(clips, texts_of, strict=True)]

    def _texts(self, clip: Clip) -> dict[str, str]:
        captions = {name: clip.columns.get(f"caption_{name}") for name in self.captions}
        texts = {name: text for name, text in captions.items() if isinstance(text, str) and text.strip()}
        if not texts:
            raise ValueError(f"clip {clip.clip_id} has no caption; CaptionSimilarity needs at least one")
        return texts

    def _vectors(self, texts_of: list[dict[str, str]]) -> Iterator[NDArray[np.float32]]:
        """Vectors of length 1 of all texts, in order."""
        if (encoder := self._encoder) is None:
            raise RuntimeError("call setup() before CaptionSimilarity is called")
        if encoder.on_cpu:
            for texts in texts_of:
                yield from unit(encoder.encode_texts(list(texts.values())).numpy())
            return
        flat = [text for texts in texts_of for text in texts.values()]
        parts = []
        for start in range(0, len(flat), GPU_TEXTS):
            some = flat[start : start + GPU_TEXTS]
            parts.append(encoder.encode_texts(some + [""] * (GPU_TEXTS - len(some)))[: len(some)])
        for part in parts:
            yield from unit(part.cpu().numpy())

    def _row(self, clip: Clip, texts: dict[str, str], vectors: Iterator[NDArray[np.float32]]) -> dict[str, Any]:
        frames = [clip.columns.get(f"openclip_{name}") for name in FRAMES]
        row: dict[str, Any] = {"clip_id": clip.clip_id, **dict.fromkeys(self.columns)}
        for captioner in texts:
            text_D = next(vectors)
            if any(frame is None or len(frame) != len(text_D) for frame in frames):
                raise ValueError(
                    f"clip {clip.clip_id} has no openclip vectors of {len(text_D)} numbers; "
                    "CaptionSimilarity needs the model that OpenClip used"
                )
            found = cosines(text_D, np.asarray(frames, dtype=np.float32))
            for suffix, value in zip(SUFFIXES, (*found, float(np.mean(found))), strict=True):
                row[f"sim_{captioner}{suffix}"] = value
        return row
