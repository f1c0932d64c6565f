"""Videos as files to look at: mp4, gif, or a sheet of frames; and back.

Shapes: T frames, H and W in pixels, C = 3; pixels are 0..1 here.
"""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from train_hooks.errors import TrainError
from train_hooks.frames import fit

SHOWN_WIDTH_PX = 384  # frames are enlarged by a whole factor to at least this width; ours
GAP_PX = 4


def write_video(frames_TCHW: Tensor, fps: float, path: Path) -> None:
    """Writes what the file's ending says: `.mp4`, `.gif`, or `.png`, a sheet. Raises TrainError for another ending."""
    check_ending(path)
    if path.suffix == ".mp4":
        write_mp4(frames_TCHW, fps, path)
    elif path.suffix == ".gif":
        pictures = [Image.fromarray(_bytes_HWC(frame).numpy()) for frame in _enlarged(frames_TCHW)]
        pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=round(1000 / fps), loop=0)
    else:
        write_sheet([frames_TCHW], path)


def check_ending(path: Path) -> None:
    """Raises TrainError for a file that is no video by its ending."""
    if path.suffix not in (".mp4", ".gif", ".png"):
        raise TrainError(f"{path}: a video is written as .mp4, .gif or .png (a sheet of frames)")


def write_mp4(frames_TCHW: Tensor, fps: float, path: Path) -> None:
    """Writes H.264, yuv420p, enlarged bicubically so that it can be watched."""
    large = _enlarged(frames_TCHW)
    part = path.with_suffix(".part")
    with av.open(str(part), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width = large.shape[-2:]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "16"}
        for frame_CHW in large:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(_bytes_HWC(frame_CHW).numpy(), format="rgb24")))
        container.mux(stream.encode())
    part.replace(path)


def write_sheet(rows_TCHW: list[Tensor], path: Path) -> None:
    """Writes a PNG with a row of frames for each video, at twice the size, nearest."""
    rows = [
        torch.cat([torch.nn.functional.pad(f, (0, GAP_PX, 0, GAP_PX), value=1.0) for f in row], -1) for row in rows_TCHW
    ]
    sheet_CHW = torch.cat(rows, dim=-2).repeat_interleave(2, -1).repeat_interleave(2, -2)
    part = path.with_suffix(".part")
    Image.fromarray(_bytes_HWC(sheet_CHW).numpy()).save(part, format="png")
    part.replace(path)


def read_picture(path: Path, width_px: int, height_px: int) -> Tensor:
    """A picture at that size (scaled to cover it, centre), (3, H, W), -1..1. Raises TrainError when the file is not a picture."""
    try:
        with Image.open(path) as picture:
            frame_HWC = np.array(picture.convert("RGB"), dtype=np.uint8)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise TrainError(f"{path} cannot be read as a picture: {' '.join(str(error).split())}") from None
    return fit(frame_HWC, width_px, height_px).float() / 127.5 - 1


def read_video(path: Path, frames: int, width_px: int, height_px: int) -> Tensor:
    """The first frames of a video at that size, (3, T, H, W), -1..1. Raises TrainError when the file is not a video or has fewer frames."""
    made: list[Tensor] = []
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                made.append(
                    fit(np.array(frame.to_ndarray(format="rgb24"), np.uint8), width_px, height_px).float() / 127.5 - 1
                )
                if len(made) == frames:
                    break
    except (av.FFmpegError, OSError, IndexError) as error:
        raise TrainError(f"{path} cannot be read as a video: {' '.join(str(error).split())}") from None
    if len(made) < frames:
        raise TrainError(f"{path} has {len(made)} frames, and {frames} are needed")
    return torch.stack(made, dim=1)


def _enlarged(frames_TCHW: Tensor) -> Tensor:
    factor = -(-SHOWN_WIDTH_PX // frames_TCHW.shape[-1])
    return torch.nn.functional.interpolate(frames_TCHW, scale_factor=factor, mode="bicubic").clamp(0, 1)


def _bytes_HWC(frame_CHW: Tensor) -> Tensor:  # noqa: N802
    return (frame_CHW.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous()
