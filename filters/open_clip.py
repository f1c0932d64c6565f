"""OpenClip: CLIP vectors of the first, middle and last thumbnail, stored once for all stages that need them.

Unit: vectors of length 1, float32, as many numbers as the model has (768 for ViT-L/14); the cosine of two is [-1, 1],
higher is more similar. `Aesthetic`, `CaptionSimilarity`, `ZeroShot`, `Duplicate`, `annotate.CaptionCheck` and the index read these
columns, so the encoder runs once per frame. ("clip" alone always means a piece of video; the model is "openclip".)

Source: CLIP (Radford et al. 2021, arXiv 2103.00020) through open_clip; first, middle and last frame as in SVD (arXiv
2311.15127, 3.1). The frame is preprocessed as in open_clip's evaluation: bicubic (Pillow's, which averages when it
downscales), centre crop, normalised by mean and deviation.

The configuration beside the weights (`open_clip_config.json`) is used; only for weights without one the configuration called
`model`: OpenAI's weights need QuickGELU, and a model built without it loads them and gives wrong vectors.

A value does not depend on the batch. The CPU encodes one clip at a time. A GPU runs passes of one fixed size, `GPU_FRAMES`, the last
one padded with zeros, so that the same kernels run on every frame. float32 is the CPU's precision; the difference of bf16 and fp16
from it has not been measured.

N frames, H height, W width in pixels, C = 3 channels, D numbers of a vector.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.clip import Clip
from filters.models.device import Precision
from filters.models.openclip import FRAMES, Encoder, distinct_frames, load, unit, vector_type

GPU_FRAMES = 48


@dataclass
class OpenClip:
    """Unit-norm CLIP vectors of the first, middle and last thumbnail, and their mean scaled to length 1; cosines are [-1, 1].

    A clip of one thumbnail has that frame's vector in every column; no frame is encoded twice.

    Attributes:
        model: Name of an open_clip configuration, or a JSON file in that format. It determines the length of the vectors.
        weights: Folder with `open_clip_config.json` and a checkpoint, or a checkpoint (safetensors, PyTorch).
        precision: `auto` is bf16 on a GPU that supports it, else fp16; fp32 on the CPU.
        device: `auto` is the GPU if there is one.
    """

    model: str = "ViT-L-14"
    weights: str = "hub:timm/vit_large_patch14_clip_224.openai"
    precision: Precision = "auto"
    device: str = "auto"

    _encoder: Encoder | None = field(default=None, init=False, repr=False, compare=False)

    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ()
    searched: ClassVar[str] = "openclip"

    @property
    def columns(self) -> dict[str, pa.DataType]:
        """Four vectors of the model's length."""
        return {f"openclip{suffix}": vector_type(self.model) for suffix in ("_first", "_middle", "_last", "")}

    def setup(self) -> None:
        """Load the model from its folder; nothing is downloaded."""
        cv2.setNumThreads(1)
        self._encoder = load(self.model, self.weights, self.precision, self.device)

    def embed_images(self, frames: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Embeddings of pictures, RGB 0..255, each (H, W, 3), for queries; shape (N, D), unit norm."""
        if (encoder := self._encoder) is None:
            raise RuntimeError("call setup() before embed_images()")
        pictures_NHWC = np.stack([encoder.picture(frame) for frame in frames])
        return unit(encoder.encode_images(pictures_NHWC).cpu().numpy())

    def embed_texts(self, texts: list[str]) -> NDArray[np.float32]:
        """Embeddings of texts, for queries; shape (N, D), unit norm."""
        if (encoder := self._encoder) is None:
            raise RuntimeError("call setup() before embed_texts()")
        return unit(encoder.encode_texts(texts).cpu().numpy())

    def __call__(self, clips: list[Clip]) -> list[dict[str, Any]]:
        """One row per clip: `clip_id` and the four vectors.

        Raises:
            RuntimeError: called before `setup`.
            ValueError: the model's output for a clip is not finite.
        """
        if (encoder := self._encoder) is None:
            raise RuntimeError("call setup() before OpenClip is called")
        if not encoder.on_cpu:
            return self._on_gpu(encoder, clips)
        rows = []
        for clip in clips:
            pictures = [encoder.picture(frame) for frame in distinct_frames(clip)]
            rows.append(_row(clip, encoder.encode_images(np.stack(pictures)).numpy()))
        return rows

    def _on_gpu(self, encoder: Encoder, clips: list[Clip]) -> list[dict[str, Any]]:
        """Passes of one fixed size; while one runs, the pictures of the next are preprocessed."""
        frames = [frame for clip in clips for frame in distinct_frames(clip)]
        parts = []
        for start in range(0, len(frames), GPU_FRAMES):
            some = frames[start : start + GPU_FRAMES]
            pictures_NHWC = np.zeros((GPU_FRAMES, encoder.size_px, encoder.size_px, 3), dtype=np.uint8)
            for picture_HWC, frame in zip(pictures_NHWC, some, strict=False):
                picture_HWC[:] = encoder.picture(frame)
            parts.append(encoder.encode_images(pictures_NHWC)[: len(some)])
        vectors = iter([vector for part in parts for vector in part.cpu().numpy()])
        return [_row(clip, np.stack([next(vectors) for _ in range(min(3, len(clip.jpegs)))])) for clip in clips]


def _row(clip: Clip, vectors_ND: NDArray[np.float32]) -> dict[str, Any]:
    """The row from the vectors of a clip's distinct frames."""
    try:
        units_ND = unit(vectors_ND)
        three_3D = units_ND[[0, len(units_ND) // 2, len(units_ND) - 1]]
        mean_D = unit(three_3D.mean(axis=0))
    except ValueError as error:
        raise ValueError(f"clip {clip.clip_id}: {error}") from error
    return {
        "clip_id": clip.clip_id,
        **{f"openclip_{name}": vector for name, vector in zip(FRAMES, three_3D, strict=True)},
        "openclip": mean_D,
    }
