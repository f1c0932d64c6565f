"""Motion: how far the picture moves from one sampled frame to the next.

Unit: pixels per frame step at a 16 px short side, [0, inf). Higher is livelier; a static shot of an empty scene is near 0.
The frame step is `1 / fps` seconds. The value does not depend on the size of the thumbnails.

Source: "Stable Video Diffusion" (arXiv 2311.15127), Appendix C: OpenCV's Farneback flow at 2 fps, flow maps downscaled
to a 16 px short side, the mean magnitude over time and space; RAFT at 800x450 for the data of its last stage. The paper
publishes neither Farneback's parameters, nor the resolution of the flow, nor whether the vectors are scaled with the
map. Ours: the parameters of OpenCV's own example, scaled vectors, and a 64 px short side.

Why 64 px. Measured on 50 photographs of coco_mini moved by 0.5 to 1.5 units (value over truth, median): 0.97 at 64 px,
0.90 at 128 px, 0.81 at 256 px (within 5 % of the truth: 65 %, 31 %, 11 % of them), because Farneback finds no motion in
patches without texture, and on a small picture its window covers more. The disadvantage: around a small object
that moves over a still picture the flow bleeds, and its motion counts about 1.9 times (object 30 % of the short side;
1.3 times at 256 px). One pair costs a quarter of the CPU time at 128 px and a thirteenth of that at 256 px. 32 px
times a power of two also gives Farneback, which stops its pyramid at 32 px, the longest range: moves of up to about 2 units
are measured correctly, longer ones too low.

`method: dis` is OpenCV's DIS flow (Kroeger et al. 2016, arXiv 1603.03590), preset medium at a 128 px short side (ours).
On 16 photographs of the even half of coco_mini moved by 0.2 to 1.9 units, 99 % are within 5 % of the truth (Farneback: 65 %),
at less than twice the cost, and its range is 3 units. It is less stable if two frames have little in common:
cropping one column of pixels changes a shot of passing cars by up to 13 % (Farneback: 4 %), and a still scene
with noise is closer to 0.05 (0.047 against 0.014 at most). The default follows SVD.

Black bars are removed first, so a clip has the same value with and without them. A logo or a subtitle over a moving
picture (`filters/models/picture.py` defines it) is filled from its surroundings and excluded from the mean, if at
least 85 % of the rest moves; otherwise it dilutes the mean as any still part does. The disadvantage: a small still object
in a fully moving picture is excluded too (a car's inside around its passenger: 1.2 times the value). A subtitle still lowers 6 % of
moving photographs by more than 5 % (at most 17 %; with dis none), a logo lowers none. `benchmarks/filters_motion.py`
prints all of it, on the odd half of coco_mini.

T frames, H height, W width, in pixels; h, w the same at a 16 px short side.
"""

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.clip import Clip
from filters.models.flow import DIS, FARNEBACK, Flow, flow_map, raft
from filters.models.picture import Edges, edges, filled, still_pattern, without_bars
from filters.models.sampling import sampled

STILL = 0.05
"""Maximum motion, in px per step, of a pixel that counts as still: SVD's Fig. 13 shows a static video at 0.043."""
ALL_AROUND = 0.85
"""Minimum share of the picture that must move around an overlay. Ours."""


def flow_lengths(before: NDArray[np.uint8], after: NDArray[np.uint8], flow: Flow) -> NDArray[np.float32]:
    """Length of the flow between two prepared pictures, (h, w), px at a 16 px short side."""
    dx_dy = flow_map(before, after, flow)
    return np.asarray(np.hypot(dx_dy[..., 0], dx_dy[..., 1]))


def around_overlay(
    before_HWC: NDArray[np.uint8],
    after_HWC: NDArray[np.uint8],
    mask_hw: NDArray[np.uint8],
    flow: Flow,
) -> float | None:
    """Mean flow length outside a possible overlay, which is filled; None if too little moves around it for an overlay."""
    length_hw = flow_lengths(flow.prepare(filled(before_HWC, mask_hw)), flow.prepare(filled(after_HWC, mask_hw)), flow)
    reach = cv2.dilate(mask_hw, np.ones((9, 9), np.uint8)).astype(np.float64)
    weight_hw = 1 - cv2.resize(reach, length_hw.shape[::-1], interpolation=cv2.INTER_AREA)
    total = float(weight_hw.sum())
    if total <= 0 or float(weight_hw[length_hw > STILL].sum()) < ALL_AROUND * total:
        return None
    return float((weight_hw * length_hw).sum() / total)


def motion_score(frames_THWC: NDArray[np.uint8], flow: Flow = FARNEBACK) -> float:
    """Mean flow magnitude between consecutive frames, over time and space.

    Args:
        frames_THWC: RGB 0..255, shape (T, H, W, 3), T >= 2, one frame per step.
        flow: The flow method.

    Returns:
        Pixels per step at a 16 px short side.

    Raises:
        ValueError: fewer than two frames.
    """
    if len(frames_THWC) < 2:
        raise ValueError(f"motion needs at least two frames, got {len(frames_THWC)}")
    frames_THWC = without_bars(frames_THWC)
    prepared = [flow.prepare(frame) for frame in frames_THWC]
    found: dict[int, Edges] = {}
    scores = []
    for i, (before, after) in enumerate(pairwise(prepared)):
        length_hw = flow_lengths(before, after, flow)
        score = float(length_hw.mean(dtype=np.float64))
        if (length_hw > STILL).mean() >= ALL_AROUND / 2:  # else too little moves for an overlay
            for k in (i, i + 1):
                if k not in found:
                    found[k] = edges(frames_THWC[k])
            mask = still_pattern(found[i], found[i + 1])
            around = None if mask is None else around_overlay(frames_THWC[i], frames_THWC[i + 1], mask, flow)
            score = score if around is None else around
        scores.append(score)
    return float(np.mean(scores))


@dataclass
class Motion:
    """Mean optical-flow magnitude in pixels per frame step, at a 16 px short side [0, inf). Higher is livelier.

    SVD, Appendix C. A clip with fewer than two thumbnails, or with thumbnails too far apart for `fps`, is an error row with the reason.
    With `method: raft` the column is `motion_raft`, so that one pipeline can hold both (the second under another `name:`).

    Attributes:
        fps: Frames compared per second. 2 as in SVD; at most `scan.thumb_fps`.
        method: The flow method: farneback (SVD), dis (more accurate at less than twice the cost), raft (SVD's last stage; needs
            `weights` and a GPU).
        weights: torchvision's raft_large or raft_small as .pth or .safetensors, e.g. dir:/models/raft_large.pth; for
            `method: raft` only.
    """

    fps: float = 2.0
    method: Literal["farneback", "dis", "raft"] = "farneback"
    weights: str | None = None

    _flow: Flow | None = field(default=None, init=False, repr=False, compare=False)

    columns: ClassVar[dict[str, pa.DataType]] = {"motion": pa.float32()}
    version: ClassVar[int] = 2
    reads: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        """Check the options, and name the column after the method."""
        if not 0 < self.fps <= 60:
            raise ValueError(f"fps of Motion is {self.fps}; it must be above 0 and at most 60")
        if self.method not in ("farneback", "dis", "raft"):
            raise ValueError(f"method of Motion is '{self.method}'; it must be farneback, dis or raft")
        if self.method == "raft" and not self.weights:
            raise ValueError("method raft of Motion needs weights, such as dir:/models/raft_large.pth (torchvision's)")
        if self.method != "raft" and self.weights:
            raise ValueError(f"weights of Motion are for method raft; remove them for method {self.method}")
        if self.method == "raft":
            # The instance defines the table's columns; the class attribute is that of the default method.
            object.__setattr__(self, "columns", {"motion_raft": pa.float32()})

    def setup(self) -> None:
        """Keep OpenCV to one thread: the engine runs workers in parallel. Load RAFT for `method: raft`."""
        cv2.setNumThreads(1)
        if self.method == "raft":
            self._flow = raft(Path(self.weights or ""))

    def __call__(self, clips: list[Clip]) -> list[dict[str, Any]]:
        """One row per clip: `clip_id` and `motion`, or `motion_raft`. Raises RuntimeError for raft before `setup`."""
        flow = {"farneback": FARNEBACK, "dis": DIS}.get(self.method, self._flow)
        if flow is None:
            raise RuntimeError("call setup() before measuring with raft")
        (column,) = self.columns
        return [
            {"clip_id": clip.clip_id, column: motion_score(sampled(clip, self.fps, "motion"), flow)} for clip in clips
        ]
