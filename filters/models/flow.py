"""Optical flow: the displacement of each pixel from one frame to the next, by one of three methods.

Functions for filters of motion. Unit of a map: pixels of that map, whose short
side is 16 px. `filters/motion.py` has the sources and the accuracy of each method.

- FARNEBACK: OpenCV's, with the parameters of its own example, at a 64 px short side.
- DIS: OpenCV's DIS (Kroeger et al. 2016, arXiv 1603.03590), preset medium, at a 128 px short side.
- raft: RAFT (Teed and Deng 2020, arXiv 2003.12039) of torchvision, at a 450 px short side.

T frames, H height, W width, in pixels; C = 3, RGB 0..255; h, w at a 16 px short side.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from filters.models.picture import grey, short_side

FARNEBACK_SIDE_PX = 64
DIS_SIDE_PX = 128
RAFT_SIDE_PX = 450
MAP_SIDE_PX = 16


class Flow(NamedTuple):
    """A flow method."""

    prepare: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
    """Frame (H, W, 3) to the method's input."""
    between: Callable[[NDArray[np.uint8], NDArray[np.uint8]], NDArray[np.float32]]
    """Two inputs to flow in their pixels, (H, W, 2): dx, dy."""


def farneback(before_HW: NDArray[np.uint8], after_HW: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Farneback's flow with the parameters of OpenCV's example."""
    return np.asarray(cv2.calcOpticalFlowFarneback(before_HW, after_HW, None, 0.5, 3, 15, 3, 5, 1.2, 0), np.float32)


def dis(before_HW: NDArray[np.uint8], after_HW: NDArray[np.uint8]) -> NDArray[np.float32]:
    """DIS flow, preset medium; a new object per pair, because an object keeps state between calls."""
    return np.asarray(cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(before_HW, after_HW, None))


FARNEBACK = Flow(lambda frame: grey(frame, FARNEBACK_SIDE_PX), farneback)
DIS = Flow(lambda frame: grey(frame, DIS_SIDE_PX), dis)


def raft(path: Path) -> Flow:
    """RAFT through torchvision, large or small by its weights; 450 px short side, 800x450 at 16:9. On a GPU if there is one.

    Args:
        path: torchvision's state dict as .pth or .safetensors, or a folder with one such file.

    Raises:
        ValueError: the folder does not hold exactly one file of weights, or they are not RAFT's.
    """
    import torch
    from torchvision.models.optical_flow import raft_large, raft_small

    files = (
        sorted(f for f in path.iterdir() if f.suffix in {".pth", ".pt", ".safetensors"}) if path.is_dir() else [path]
    )
    if len(files) != 1:
        raise ValueError(f"weights of Motion: {path} holds {len(files)} files of weights; it must hold exactly one")
    if files[0].suffix == ".safetensors":
        from safetensors.torch import load_file

        state = load_file(files[0])
    else:
        state = torch.load(files[0], map_location="cpu", weights_only=True)
    stem = state.get("feature_encoder.convnormrelu.0.weight")
    if stem is None:
        raise ValueError(f"weights of Motion: {files[0]} is not a state dict of torchvision's RAFT")
    torch.set_num_threads(1)  # the engine runs workers in parallel
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = (raft_large if len(stem) == 64 else raft_small)(weights=None)
    network.load_state_dict(state)
    network.eval().to(device)

    def between(before_HWC: NDArray[np.uint8], after_HWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        height_px, width_px = before_HWC.shape[:2]
        below, right = -height_px % 8, -width_px % 8  # RAFT needs multiples of 8
        pictures = [cv2.copyMakeBorder(p, 0, below, 0, right, cv2.BORDER_REPLICATE) for p in (before_HWC, after_HWC)]
        pair_BCHW = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).to(device).float() / 127.5 - 1
        with torch.inference_mode():
            flow_1CHW = network(pair_BCHW[:1], pair_BCHW[1:])[-1]
        flow_HWC: NDArray[np.float32] = flow_1CHW[0].permute(1, 2, 0).cpu().numpy()
        return flow_HWC[:height_px, :width_px]

    return Flow(lambda frame: short_side(frame, RAFT_SIDE_PX), between)


def flow_map(before: NDArray[np.uint8], after: NDArray[np.uint8], flow: Flow = FARNEBACK) -> NDArray[np.float32]:
    """Flow between two prepared pictures as a map with a 16 px short side, (h, w, 2): dx, dy in pixels of that map.

    Raises ValueError if the flow is not finite.
    """
    height_px, width_px = before.shape[:2]
    scale = MAP_SIDE_PX / min(height_px, width_px)
    map_px = (max(MAP_SIDE_PX, round(width_px * scale)), max(MAP_SIDE_PX, round(height_px * scale)))
    if np.array_equal(before, after):  # Farneback returns about 1e-4 for equal frames.
        return np.zeros((map_px[1], map_px[0], 2), dtype=np.float32)
    small = cv2.resize(flow.between(before, after), map_px, interpolation=cv2.INTER_AREA)
    if not np.isfinite(small).all():
        raise ValueError("the flow of Motion is not finite")
    return np.asarray(small * np.array([map_px[0] / width_px, map_px[1] / height_px], dtype=np.float32))
