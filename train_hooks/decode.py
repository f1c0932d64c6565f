"""mp4 bytes -> chosen frames: decord where it is installed and can open them, PyAV otherwise.

decord seeks to the frames that are asked for; PyAV decodes from the start. Both give RGB bytes, (T, H, W, 3).
"""

import io
from collections.abc import Sequence

import av
import numpy as np
from numpy.typing import NDArray


class DecodeError(Exception):
    """The bytes are no video, or a frame that was asked for cannot be had."""


def decode_frames(mp4: bytes, indices: Sequence[int]) -> NDArray[np.uint8]:
    """The frames at `indices` (ascending), shape (T, H, W, 3), RGB 0..255. Raises DecodeError when one of them cannot be decoded."""
    try:
        return decode_with_decord(mp4, indices)
    except (DecodeError, ImportError):
        # decord has no wheel for every machine, and cannot open some codecs (AV1 among them) that PyAV reads.
        return decode_with_pyav(mp4, indices)


def decode_with_decord(mp4: bytes, indices: Sequence[int]) -> NDArray[np.uint8]:
    """As `decode_frames`, by decord only. Raises ImportError where decord is not installed."""
    import decord

    decord.logging.set_level(decord.logging.QUIET)
    try:
        # A file-like object is read into memory by decord; one thread, because two do not pay for a few small frames.
        reader = decord.VideoReader(io.BytesIO(mp4), ctx=decord.cpu(0), num_threads=1, fault_tol=1)
        frames_THWC = reader.get_batch(list(indices)).asnumpy()
    except (decord.DECORDError, AssertionError, IndexError, RuntimeError, ValueError) as error:
        raise DecodeError(str(error).splitlines()[0] if str(error) else type(error).__name__) from None
    return np.asarray(frames_THWC, dtype=np.uint8)


def decode_with_pyav(mp4: bytes, indices: Sequence[int]) -> NDArray[np.uint8]:
    """As `decode_frames`, by PyAV only."""
    wanted = set(indices)
    found: dict[int, NDArray[np.uint8]] = {}
    seen = 0
    try:
        with av.open(io.BytesIO(mp4)) as container:
            if not container.streams.video:
                raise DecodeError("it holds no video stream")
            container.streams.video[0].thread_count = 1
            for seen, frame in enumerate(container.decode(video=0), start=1):
                if seen - 1 in wanted:
                    found[seen - 1] = frame.to_ndarray(format="rgb24")
                if len(found) == len(wanted):
                    break
    except av.FFmpegError as error:
        raise DecodeError(f"{error.strerror} after {seen} frames") from None
    if len(found) < len(wanted):
        raise DecodeError(f"it ends after {seen} frames and frame {max(wanted)} is needed")
    return np.stack([found[i] for i in indices])
