"""Opens video files: local paths, `file://` and any fsspec URL. An error is one sentence for the user.

The demuxer cannot follow a playlist to other files.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import unquote

import av
import av.logging
import fsspec
from av.container import InputContainer
from av.error import FFmpegError
from av.format import ContainerFormat
from av.packet import Packet
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

# A still image is not footage, and a playlist could make the decoder open files that the user did not name.
_NOT_VIDEO = {
    "image2": "a still image",
    "concat": "a playlist",
    "dash": "a playlist",
    "hls": "a playlist",
    "imf": "a playlist",
    "tty": "a text file",
}
# Demuxers that open other files, addresses or devices than the given one. FFmpeg is not allowed to use them.
_REACH_OUT = {
    *(
        "avisynth",
        "bluray",
        "concat",
        "concatf",
        "dash",
        "dvdvideo",
        "hls",
        "image2",
        "imf",
        "mlv",
        "rtp",
        "rtsp",
        "sap",
        "sdp",
    ),
    *("vapoursynth", "vobsub", "webm_dash_manifest"),
}
_NO_FILE = 1  # AVFMT_NOFILE: devices and the network
_PLAYLISTS = (b"#EXTM3U", b"ffconcat", b"v=0", b"<MPD", b"[playlist]", b"# VobSub index file")
_DAMAGED = "not a video, or its header is damaged"


class VideoError(ValueError):
    """A file that is not a usable video, or whose decode failed. The message is one sentence for the user.

    `log`: the last line of the decoder's log explains more, so the sandbox adds it to the message.
    """

    def __init__(self, message: str, log: bool = False) -> None:
        super().__init__(message)
        self.log = log


@contextmanager
def open_input(uri: str, storage_options: Mapping[str, Any] | None = None) -> Iterator[InputContainer]:
    """Opens a local path, a `file://` URL or any fsspec URL, and closes it at the end.

    Raises VideoError when the file is missing, unreadable, empty or not a video.
    """
    path = local_path(uri)
    refuse_special(uri)
    handle: BinaryIO | None = None
    container: InputContainer | None = None
    try:
        try:
            if path is None:
                handle = _open_bytes(uri, storage_options)
            # Without `file:`, FFmpeg would read the part of a name before a colon as a protocol.
            container = av.open(
                handle if path is None else f"file:{path}",
                mode="r",
                metadata_errors="replace",
                options={"protocol_whitelist": "file" if path is not None else "none", "format_whitelist": _formats()},
            )
        except MemoryError:
            raise
        except (OSError, FFmpegError) as error:
            reason = _unreadable_reason(uri, storage_options, error)
            raise VideoError(reason, log=reason.startswith(_DAMAGED)) from error
        name = container.format.name
        if name in _NOT_VIDEO or name.endswith("_pipe"):
            raise VideoError(f"not a video: {_NOT_VIDEO.get(name, 'a still image')}")
        yield container
    finally:
        if container is not None:
            container.close()
        if handle is not None:
            handle.close()


@lru_cache(maxsize=1)
def _formats() -> str:
    """The demuxers that read only the given file, for FFmpeg's `format_whitelist`."""
    known = []
    for name in sorted(av.formats_available):
        with suppress(ValueError):  # not a demuxer
            if not ContainerFormat(name, "r").flags & _NO_FILE:
                known.append(name)
    return ",".join(name for name in known if not _REACH_OUT & set(name.split(",")))


def video_stream(container: InputContainer) -> VideoStream:
    """Returns the first video stream that is not a cover picture. Raises VideoError when there is no stream to decode."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:  # the cover of a music file
            if stream.codec_context is None:
                raise VideoError("no decoder for the codec of the video stream")
            return stream
    raise VideoError("no video stream: the file holds audio only" if container.streams.audio else "no video stream")


def packets(container: InputContainer, streams: Sequence[Stream]) -> Iterator[Packet[Any]]:
    """Yields the packets of the streams, and at the end an empty packet for each. Raises FFmpegError when reading fails.

    In a damaged file new streams can appear while reading; PyAV 18 then indexes beyond its own list and raises IndexError.
    """
    while True:
        try:
            yield from container.demux(streams)
            return
        except IndexError:  # all packets have been read; the next call yields the empty ones
            continue


def local_path(uri: str) -> Path | None:
    """Returns the path of a local file, given as a path or a `file://` URL; None for any other URL."""
    if uri.startswith("file://"):
        return Path(unquote(uri.removeprefix("file://").removeprefix("localhost")))
    return None if "://" in uri else Path(uri)


def _open_bytes(uri: str, storage_options: Mapping[str, Any] | None) -> BinaryIO:
    path = local_path(uri)
    if path is not None:
        return path.open("rb")
    try:
        return cast(BinaryIO, fsspec.open(uri, "rb", **(storage_options or {})).open())
    except (ValueError, ImportError) as error:
        raise VideoError(f"cannot open {uri}: {error}") from error


def _unreadable_reason(uri: str, storage_options: Mapping[str, Any] | None, error: Exception) -> str:
    """Returns why a file could not be opened, in one sentence, from its first bytes."""
    path = local_path(uri)
    try:
        if path is not None and path.is_dir():
            return "a directory, not a video file"
        with _open_bytes(uri, storage_options) as handle:
            head = handle.read(4096)
            if not head:
                return "the file is empty (0 bytes)"
            if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free") and not _has_moov(handle):
                return "the mp4 header (moov) is missing: the file is cut short or was never finished"
    except FileNotFoundError:
        return f"no such file: {uri}"
    except PermissionError:
        return "no permission to read the file"
    except OSError as failure:
        return f"the file cannot be read: {failure}"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(_PLAYLISTS) or b"<MPD" in head:
        return "not a video: a playlist"
    if text[:1] == b"<" and b"<html" in head.lower():
        return "not a video: an HTML page"
    if not any(byte < 9 or 13 < byte < 32 for byte in head):
        return "not a video: a text file"
    return f"{_DAMAGED} ({getattr(error, 'strerror', None) or error})"


def refuse_special(uri: str) -> None:
    """Raises VideoError when a path exists and is neither a file nor a directory: opening it could block for ever."""
    path = local_path(uri)
    try:
        mode = stat.S_IFREG if path is None else path.stat().st_mode
    except OSError:
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        kind = "a named pipe" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"
        raise VideoError(f"not a regular file: {kind}")


def _has_moov(handle: BinaryIO) -> bool:
    """Whether the top-level boxes of an mp4 include a complete moov box."""
    end = handle.seek(0, os.SEEK_END)
    at = 0
    while at + 8 <= end:
        handle.seek(at)
        size, kind = struct.unpack(">I4s", handle.read(8))
        if size == 1:
            size = int.from_bytes(handle.read(8))
        if kind == b"moov":
            return bool(at + size <= end)
        if size < 8:  # 0: the box extends to the end of the file
            return False
        at += size
    return False


def log_to_stderr() -> None:
    """Makes FFmpeg write its errors to stderr, for a process whose stderr is captured. PyAV discards them by default."""
    av.logging.restore_default_callback()
    av.logging.set_libav_level(av.logging.ERROR)
