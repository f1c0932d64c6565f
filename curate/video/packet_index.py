"""The packets of a file without decoding: when each picture is shown, which are keyframes, and whether these data are reliable.

Reads the file once from end to end, at about a hundredth of the cost of a decode.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from av.error import FFmpegError
from av.packet import Packet
from av.video.stream import VideoStream

from curate.video.clock import JUMP_S, RESET_S
from curate.video.container import local_path, open_input, packets, video_stream
from curate.video.losses import RESYNC, Losses

STREAMS = ("mpegts", "mpeg", "asf", "nut")
"""Containers for broadcast: no index, a clock that may change, and losses without an error."""
_TRUE_TIMES = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
_ONE_FOR_ONE = ("h264", "hevc", "vp9", "av1", "libdav1d", "mjpeg", "prores", "dnxhd", "ffv1")
"""Codecs with exactly one picture for each packet (VP8 has hidden pictures, MPEG-4 and QuickTime have packets without one)."""


@dataclass(frozen=True)
class PacketIndex:
    """The packets of the video stream. Ticks are in its time base."""

    ticks: list[int]
    """Presentation times of the pictures, ascending, without those that an edit list leaves out."""
    key_ticks: list[int]
    """Presentation times of the keyframes, ascending."""
    end_tick: int
    """End of the last picture."""
    doubt: str | None
    """Why a decode may give other pictures than the packets, as a clause; None when each packet is one picture."""
    closed: bool
    """Whether a decode can begin at each keyframe and gives all pictures stored after it."""
    n_video_streams: int


def index_packets(uri: str, storage_options: Mapping[str, Any] | None = None) -> PacketIndex:
    """Reads all packets. Of a truncated file, those before the damage, and `doubt` says so.

    Raises VideoError when the file cannot be opened.
    """
    with open_input(uri, storage_options) as container:
        stream = video_stream(container)
        name = container.format.name
        walk = _Walk(None if name in _TRUE_TIMES else f"{name} keeps no index of its pictures")
        streams = list(container.streams) if name in RESYNC else [stream]
        codec = stream.codec_context.name
        if codec not in _ONE_FOR_ONE:
            walk.doubt = walk.doubt or f"a packet of {codec} need not be a picture"
        losses = Losses(name, codec)
        is_closed_start = _closed_start_check(stream)
        try:
            for packet in packets(container, streams):
                losses.packet(packet, is_picture=False)
                if packet.stream is stream and not (
                    packet.size == 0 and packet.dts is None
                ):  # PyAV's empty packet at the end
                    walk.take(packet, is_closed_start)
        except FFmpegError:
            walk.doubt = "the file cannot be read to its end"
        if losses.skipped_bytes:
            walk.doubt = walk.doubt or "bytes were skipped"
        return walk.index(len(container.streams.video))


class _Walk:
    """Collects the packets of the video in file order."""

    def __init__(self, doubt: str | None) -> None:
        self.doubt = doubt
        self._ticks: list[int] = []
        self._key_ticks: list[int] = []
        self._end_tick = 0
        self._closed = True
        self._latest: int | None = None

    def take(self, packet: Packet[Any], is_closed_start: Callable[[Packet[Any]], bool]) -> None:
        if packet.is_discard:
            self.doubt = self.doubt or "an edit list leaves pictures out"
            return
        if packet.is_corrupt:
            self.doubt = self.doubt or "packets are damaged"
        tick = packet_tick(packet)
        if tick is None or packet.pts is None:
            self.doubt = self.doubt or "packets carry no time"
        if tick is None:
            return
        if packet.is_keyframe:
            self._closed &= (self._latest is None or tick > self._latest) and is_closed_start(packet)
            self._key_ticks.append(tick)
        elif not self._key_ticks:
            self.doubt = self.doubt or "it does not begin with a keyframe"
        elif tick < self._key_ticks[-1]:
            self._closed = False
        self._ticks.append(tick)
        self._latest = tick if self._latest is None else max(self._latest, tick)
        self._end_tick = max(self._end_tick, tick + (packet.duration or 0))

    def index(self, n_video_streams: int) -> PacketIndex:
        ticks = sorted(self._ticks)
        if len(set(ticks)) < len(ticks):
            self.doubt = self.doubt or "pictures share a time"
        keys = sorted(set(self._key_ticks))
        return PacketIndex(ticks, keys, self._end_tick, self.doubt, self._closed, n_video_streams)


def _closed_start_check(stream: VideoStream) -> Callable[[Packet[Any]], bool]:
    """Returns a function: whether a packet marked as a keyframe begins a closed group. In H.264 and HEVC its slices must be IDR or BLA.

    Containers also mark other packets as keyframes: entry points of open groups, and all packets when a table is missing.
    """
    settings = stream.codec_context.extradata or b""
    codec = (
        stream.codec_context.name if settings[:1] == b"\1" else ""
    )  # units are preceded by their size, ISO/IEC 14496-15
    if codec == "h264" and len(settings) > 6:
        size, shift, mask, slices, closed = (settings[4] & 3) + 1, 0, 31, range(1, 6), range(5, 6)
    elif codec == "hevc" and len(settings) > 22:
        size, shift, mask, slices, closed = (settings[21] & 3) + 1, 1, 63, range(32), range(16, 21)
    else:
        return lambda packet: True

    def check(packet: Packet[Any]) -> bool:
        data, at = bytes(packet), 0
        while at + size < len(data):
            kind = data[at + size] >> shift & mask
            if kind in slices:
                return kind in closed
            at += size + int.from_bytes(data[at : at + size])
        return False

    return check


def packet_tick(packet: Packet[Any]) -> int | None:
    """Returns the presentation timestamp of a packet, or its decoding timestamp when it has no other."""
    return packet.dts if packet.pts is None else packet.pts


def clock_breaks(uri: str, storage_options: Mapping[str, Any] | None = None) -> bool:
    """Whether the timestamps restart or jump, as in concatenated transport streams.

    Seeks by time are unreliable in such a file. The result for a local file is cached in the process.
    """
    path = local_path(uri)
    if path is None:
        return _breaks(uri, storage_options)
    stat = path.stat()
    return _local_breaks(uri, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _local_breaks(uri: str, _size: int, _mtime_ns: int) -> bool:
    return _breaks(uri, None)


def _breaks(uri: str, storage_options: Mapping[str, Any] | None) -> bool:
    last_s: float | None = None
    with open_input(uri, storage_options) as container:
        try:
            for packet in packets(container, [video_stream(container)]):
                if packet.dts is None or packet.time_base is None:
                    continue
                t_s = float(packet.dts * packet.time_base)
                if last_s is not None and not last_s - RESET_S <= t_s <= last_s + JUMP_S:
                    return True
                last_s = t_s
        except FFmpegError:
            return False
    return False
