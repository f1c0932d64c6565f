"""mp4 bytes -> chosen frames: decord where it is installed and can be trusted with the file, PyAV otherwise.

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
    """The frames at `indices` (ascending), shape (T, H, W, 3), RGB 0..255.

    Raises DecodeError when one of them cannot be decoded.
    """
    # decord finds frames by their time: where times repeat it returns other frames than asked for, without an
    # error, and where the container promises more frames than there are it may never return (dmlc/decord, issue 373).
    times = packet_times(mp4)
    if None not in times and len(set(times)) == len(times) > max(indices):
        try:
            return decode_with_decord(mp4, indices)
        except (DecodeError, ImportError):
            pass  # no wheel for this machine, or a codec (AV1 among them) that PyAV reads and decord does not
    return decode_with_pyav(mp4, indices)


def packet_times(mp4: bytes) -> list[int | None]:
    """Presentation times of the video packets, in the stream's time base, without decoding."""
    try:
        with _open(mp4) as container:
            return [packet.pts for packet in container.demux(_video(container)) if packet.size]
    except av.FFmpegError as error:
        raise DecodeError(f"{error.strerror}") from None


def decode_with_decord(mp4: bytes, indices: Sequence[int]) -> NDArray[np.uint8]:
    """As `decode_frames`, by decord only. Raises ImportError where decord is not installed."""
    import decord

    decord.logging.set_level(decord.logging.QUIET)
    try:
        # decord reads a file-like object into memory; one thread, because two do not pay for a few small frames.
        # fault_tol=1: more than one frame made up from its neighbours is an error.
        reader = decord.VideoReader(io.BytesIO(mp4), ctx=decord.cpu(0), num_threads=1, fault_tol=1)
        frames_THWC = reader.get_batch(list(indices)).asnumpy()
    except Exception as error:  # decord raises six kinds, two of them without a common base
        raise DecodeError(str(error).splitlines()[0] if str(error) else type(error).__name__) from None
    return np.asarray(frames_THWC, dtype=np.uint8)


def decode_with_pyav(mp4: bytes, indices: Sequence[int]) -> NDArray[np.uint8]:
    """As `decode_frames`, by PyAV only."""
    wanted = set(indices)
    found: dict[int, NDArray[np.uint8]] = {}
    seen = 0
    try:
        with _open(mp4) as container:
            stream = _video(container)
            stream.thread_count = 1
            for seen, frame in enumerate(container.decode(stream), start=1):
                if seen - 1 in wanted:
                    found[seen - 1] = frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
                if len(found) == len(wanted):
                    break
    except av.FFmpegError as error:
        raise DecodeError(f"{error.strerror} after {seen} frames") from None
    if len(found) < len(wanted):
        raise DecodeError(f"it ends after {seen} frames and frame {max(wanted)} is needed")
    return np.stack([found[i] for i in indices])


def _open(mp4: bytes) -> av.container.InputContainer:
    return av.open(io.BytesIO(mp4), mode="r")


def _video(container: av.container.InputContainer) -> av.VideoStream:
    if not container.streams.video:
        raise DecodeError("it holds no video stream")
    return container.streams.video[0]
