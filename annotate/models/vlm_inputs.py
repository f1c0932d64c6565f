"""The inputs of a vision-language model: questions about frames, through the model's own processor, as many frames as its context holds."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotate.models.frames import fewer
from curate.clip import Clip


@dataclass(frozen=True)
class Ask:
    """One question about some frames of one clip."""

    key: str
    prompt: str
    clip: Clip
    indices: Sequence[int]

    @property
    def pictures(self) -> list[NDArray[np.uint8]]:
        """The frames, each (H, W, 3), RGB 0..255."""
        return [self.clip.frames_THWC[i] for i in self.indices]

    @property
    def metadata(self) -> dict[str, Any]:
        """The times of the frames, in the form that video processors expect."""
        numbers = [round((self.clip.jpeg_times_s[i] - self.clip.start_s) * self.clip.fps) for i in self.indices]
        return {"fps": self.clip.fps, "total_num_frames": self.clip.n_frames, "frames_indices": numbers}

    def within(self, share: float) -> "Ask":
        """The same question about this share of the frames: at least one frame, and at least one fewer than now."""
        most = max(1, min(len(self.indices) - 1, int(len(self.indices) * share)))
        return replace(self, indices=fewer(self.indices, most))


def processed(processor: Any, asks: Sequence[Ask], as_video: bool) -> dict[str, Any]:
    """The model's inputs: `input_ids` and `attention_mask` (N, L), padded on the left, and pixels in the processor's form."""
    from PIL import Image

    options: dict[str, Any] = {"padding": True}
    if as_video:
        options |= {"do_sample_frames": False, "video_metadata": [[ask.metadata] for ask in asks]}
    conversations = []
    for ask in asks:
        if as_video:
            shown: list[dict[str, Any]] = [{"type": "video", "video": np.stack(ask.pictures)}]
        else:
            shown = [{"type": "image", "image": Image.fromarray(picture)} for picture in ask.pictures]
        conversations.append([{"role": "user", "content": [*shown, {"type": "text", "text": ask.prompt}]}])
    inputs = processor.apply_chat_template(
        conversations,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs=options,
    )
    return dict(inputs)


def takes_ragged(processor: Any, asks: Sequence[Ask], as_video: bool) -> bool:
    """Whether the processor accepts different numbers of frames in one batch. `asks` must hold two such questions."""
    other = next(ask for ask in asks if len(ask.indices) != len(asks[0].indices))
    try:
        processed(processor, [asks[0], other], as_video)
    except (ValueError, TypeError, RuntimeError):
        return False
    return True


def fitted(processor: Any, asks: Sequence[Ask], as_video: bool, room: int) -> tuple[dict[str, Any], Sequence[Ask]]:
    """The model's inputs, and the questions used: with fewer frames for a prompt longer than `room` tokens.

    A prompt with one frame is not shortened further.
    """
    while True:
        inputs = processed(processor, asks, as_video)
        lengths = inputs["attention_mask"].sum(dim=1).tolist()
        too_long = [n > room and len(ask.indices) > 1 for ask, n in zip(asks, lengths, strict=True)]
        if not any(too_long):
            return inputs, asks
        asks = [ask.within(room / n) if long else ask for ask, n, long in zip(asks, lengths, too_long, strict=True)]
