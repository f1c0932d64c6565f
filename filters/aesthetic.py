"""Aesthetic: predicted human rating of the first, middle and last thumbnail.

Unit: the rating scale of the head's training data, about 1 to 10 for `sac+logos+ava1` (not bounded); higher is
better liked. Most photographs score between 4 and 6. Scores of different heads, or of one head on vectors of another model,
are not comparable.

Source: LAION's heads on CLIP vectors of length 1 (improved-aesthetic-predictor, Apache-2.0; aesthetic-predictor, MIT),
as in SVD (arXiv 2311.15127, Appendix C, first, middle and last frame); the mean of the three is ours. Both published heads
are linear: `sac+logos+ava1` has five layers, 768 to 1024, 128, 64, 16 and 1, without activations between them, which
together are one vector and one bias. They are multiplied once, in float64, and applied in float32.

It reads the vectors of `OpenClip`: no frame is decoded and no model runs.

D numbers of a vector.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.clip import Clip

FRAMES = ("first", "middle", "last")
KNOWN_LAYERS = ((), (0, 2, 4, 6, 7))
"""Layer numbers of the two published heads; other numbers could have an activation between them."""


def read_state(path: Path) -> dict[str, NDArray[np.float32]]:
    """The arrays of a safetensors or PyTorch file, or of the first such file in a folder, safetensors preferred; no code in it is run."""
    if path.is_dir():
        found = sorted(file for kind in ("*.safetensors", "*.pth", "*.pt", "*.bin") for file in path.glob(kind))
        if not found:
            raise ValueError(f"{path} holds no safetensors or PyTorch file; set weights of Aesthetic to a head")
        path = next((file for file in found if file.suffix == ".safetensors"), found[0])
    if path.suffix == ".safetensors":
        from safetensors.numpy import load_file

        return dict(load_file(path))
    import torch

    state = torch.load(path, map_location="cpu", weights_only=True)
    return {name: tensor.float().numpy() for name, tensor in state.items()}


def as_one_layer(state: Mapping[str, NDArray[np.floating]]) -> tuple[NDArray[np.float32], np.float32]:
    """A head without activations as one vector (D,) and one bias: score = vector . x + bias.

    Raises:
        ValueError: the layers are not those of a published head, or their shapes do not match.
    """
    weights = sorted((name for name in state if name.endswith("weight")), key=_layer)
    numbers = tuple(_layer(name) for name in weights if _layer(name) >= 0)
    if not weights or numbers not in KNOWN_LAYERS:
        raise ValueError(f"not one of LAION's linear heads: it holds {', '.join(sorted(state)) or 'nothing'}")
    width = state[weights[0]].shape[-1]
    matrix, bias = np.eye(width, dtype=np.float64), np.zeros(width, dtype=np.float64)
    for name in weights:
        layer = np.asarray(state[name], dtype=np.float64)
        if layer.ndim != 2 or layer.shape[1] != len(matrix):
            raise ValueError(f"not one of LAION's linear heads: {name} has the shape {layer.shape}")
        matrix = layer @ matrix
        bias = layer @ bias + np.asarray(state[name.removesuffix("weight") + "bias"], dtype=np.float64)
    if len(matrix) != 1:
        raise ValueError(f"an aesthetic head has one output; this one has {len(matrix)}")
    return matrix[0].astype(np.float32), np.float32(bias[0])


def _layer(name: str) -> int:
    number = re.search(r"(\d+)\.weight$", name)
    return int(number[1]) if number else -1


@dataclass
class Aesthetic:
    """LAION's aesthetic score of the first, middle and last thumbnail, and their mean; about 1 to 10; higher is better.

    Attributes:
        weights: The head, safetensors or PyTorch, for vectors of ViT-L/14, the default of `OpenClip`.
    """

    weights: str = "hub:ttj/sac-logos-ava1-l14-linearMSE"

    _vector: NDArray[np.float32] | None = field(default=None, init=False, repr=False, compare=False)
    _number: np.float32 = field(default=np.float32(0), init=False, repr=False, compare=False)

    columns: ClassVar[dict[str, pa.DataType]] = {
        "aesthetic_first": pa.float32(),
        "aesthetic_middle": pa.float32(),
        "aesthetic_last": pa.float32(),
        "aesthetic": pa.float32(),
    }
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("openclip_first", "openclip_middle", "openclip_last")

    def setup(self) -> None:
        """Load the head; nothing is downloaded."""
        self._vector, self._number = as_one_layer(read_state(Path(self.weights)))

    def score(self, vector_D: NDArray[np.floating]) -> float:
        """Score of one CLIP vector of length 1, shape (D,).

        Raises:
            RuntimeError: called before `setup`.
            ValueError: the vector is of another model.
        """
        if self._vector is None:
            raise RuntimeError("call setup() before score()")
        if vector_D.shape != self._vector.shape:
            raise ValueError(
                f"the aesthetic head needs vectors of {len(self._vector)} numbers, OpenClip stored {vector_D.shape[-1]}"
            )
        return float(np.dot(self._vector, np.asarray(vector_D, dtype=np.float32)) + self._number)

    def __call__(self, clips: list[Clip]) -> list[dict[str, Any]]:
        """One row per clip: `clip_id` and the four scores.

        Raises:
            ValueError: a clip has no vector, or one of another model.
        """
        return [{"clip_id": clip.clip_id, **self._measure(clip)} for clip in clips]

    def _measure(self, clip: Clip) -> dict[str, float]:
        scores = {}
        for name in FRAMES:
            if (vector := clip.columns.get(f"openclip_{name}")) is None:
                raise ValueError(f"clip {clip.clip_id} has no openclip_{name}; Aesthetic needs the vectors of OpenClip")
            scores[f"aesthetic_{name}"] = self.score(np.asarray(vector, dtype=np.float32))
        return {**scores, "aesthetic": float(np.mean(list(scores.values())))}
