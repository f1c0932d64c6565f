"""ZeroShot: how well a clip matches labels described in words: edited, a lecture, full of text, a screen; or your own.

`zero_shot_<label>`, [0, 1]: CLIP's probability of the label's prompts against neutral ones, a softmax over the two
at the model's own temperature, the mean over the first, middle and last thumbnail. Several prompts are averaged to one vector
(Radford et al. 2021, arXiv 2103.00020, 3.1.4). The frames' vectors are those of `OpenClip`; only the
prompts go through the model, once per worker.

The default labels are CogVideoX's negative ones as far as single frames show them (arXiv 2408.06072, 4.1; the paper trained
classifiers on 20,000 labelled videos, which are not published): editing, lecture, text, screen. The prompts are ours. Not measured
with a trained CLIP: inspect both ends of each score before you write a rule. `Static` and `ScreenContent` measure some of it
without a model.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.clip import Clip
from filters.models.device import Precision
from filters.models.openclip import FRAMES, Encoder, load, unit

LABELS: dict[str, tuple[str, ...]] = {
    "editing": (
        "a video frame with special effects and graphics added",
        "a collage of several pictures side by side",
        "an edited video with stickers and animated text",
    ),
    "lecture": (
        "a person giving a lecture",
        "a teacher talking in front of a board",
        "a presenter speaking to the camera beside a slide",
    ),
    "text": ("a page full of text", "a title card with words", "a picture covered with captions"),
    "screen": ("a screenshot of a computer", "a screen recording of a phone", "a video game screen with menus"),
}
NEUTRAL = (
    "a frame of a film",
    "a photo of a scene",
    "a video of people",
    "a video of nature",
    "a video of a street",
    "a photo of an object",
)


def probabilities(
    frames_FD: NDArray[np.float32],
    label_D: NDArray[np.float32],
    neutral_D: NDArray[np.float32],
    scale: float,
) -> NDArray[np.float64]:
    """Probability of the label against neutral for each frame, shape (F,); all vectors have length 1."""
    logits_F = scale * (frames_FD @ (label_D - neutral_D)).astype(np.float64)
    return np.asarray(1.0 / (1.0 + np.exp(-logits_F)), dtype=np.float64)


@dataclass
class ZeroShot:
    """CLIP's probability of each label's prompts against neutral ones [0, 1], the mean of three frames.

    Attributes:
        labels: Name of each label to its prompts.
        neutral: Prompts for frames without any of the labels.
        model: The open_clip configuration that `OpenClip` used.
        weights: The weights that `OpenClip` used.
        precision: `auto` is bf16 on a GPU that supports it, else fp16; fp32 on the CPU.
        device: `auto` is the GPU if there is one.
    """

    labels: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: dict(LABELS))
    neutral: tuple[str, ...] = NEUTRAL
    model: str = "ViT-L-14"
    weights: str = "hub:timm/vit_large_patch14_clip_224.openai"
    precision: Precision = "auto"
    device: str = "auto"

    _vectors: dict[str, NDArray[np.float32]] = field(default_factory=dict, init=False, repr=False, compare=False)
    _scale: float = field(default=0.0, init=False, repr=False, compare=False)

    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = tuple(f"openclip_{name}" for name in FRAMES)

    def __post_init__(self) -> None:
        """Check the options."""
        for name, prompts in self.labels.items():
            if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
                raise ValueError(
                    f"label '{name}' of ZeroShot is malformed; use lower-case letters, digits and underscores, with a letter first"
                )
            if not prompts or not all(prompt.strip() for prompt in prompts):
                raise ValueError(f"label '{name}' of ZeroShot has no prompt or an empty one; add text")
        if not self.neutral or not all(prompt.strip() for prompt in self.neutral):
            raise ValueError("neutral of ZeroShot has no prompt or an empty one; add text")

    @property
    def columns(self) -> dict[str, pa.DataType]:
        """One column for each label."""
        return {f"zero_shot_{name}": pa.float32() for name in self.labels}

    def setup(self) -> None:
        """Embed the prompts with the model in its folder, then free it; nothing is downloaded."""
        encoder = load(self.model, self.weights, self.precision, self.device)
        self._scale = float(encoder.net.logit_scale.detach().exp())
        self._vectors = {name: _mean_vector(encoder, prompts) for name, prompts in self.labels.items()}
        self._vectors[""] = _mean_vector(encoder, self.neutral)

    def __call__(self, clips: list[Clip]) -> list[dict[str, Any]]:
        """One row per clip: `clip_id` and a probability for each label.

        Raises:
            RuntimeError: called before `setup`.
            ValueError: a clip has no vectors, or vectors of another model.
        """
        if not self._vectors:
            raise RuntimeError("call setup() before ZeroShot is called")
        return [self._row(clip) for clip in clips]

    def _row(self, clip: Clip) -> dict[str, Any]:
        frames = [clip.columns.get(name) for name in self.reads]
        dim = len(self._vectors[""])
        if any(frame is None or len(frame) != dim for frame in frames):
            raise ValueError(
                f"clip {clip.clip_id} has no openclip vectors of {dim} numbers; ZeroShot needs the model that OpenClip used"
            )
        frames_FD = np.asarray(frames, dtype=np.float32)
        found = {
            f"zero_shot_{name}": float(
                probabilities(frames_FD, self._vectors[name], self._vectors[""], self._scale).mean()
            )
            for name in self.labels
        }
        return {"clip_id": clip.clip_id, **found}


def _mean_vector(encoder: Encoder, prompts: tuple[str, ...]) -> NDArray[np.float32]:
    """The mean vector of several prompts, of length 1. Each is encoded alone, so that the vector does not depend on the batch."""
    vectors = [unit(encoder.encode_texts([prompt]).cpu().numpy())[0] for prompt in prompts]
    return np.asarray(unit(np.mean(vectors, axis=0)[None])[0], dtype=np.float32)
