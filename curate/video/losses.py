"""Detects pictures that are lost without an error from the container's reader or the decoder.

Two signs: skipped bytes, where a reader searched for the next block after damage; and packets for which the decoder returned no picture.
Neither is proof (a file may hold data that no stream uses), so the caller also requires a gap in time.
"""

from __future__ import annotations

import heapq
from typing import Any

from av.packet import Packet

RESYNC = ("matroska,webm", "avi", "flv")
"""Containers whose readers search for the next block after damage. Packets of all their streams must be watched."""
_HOLE_BYTES = 512  # ours: two blocks of an intact file are about 20 bytes apart, in an AVI with padding up to 2 KiB
_ONE_FOR_ONE = ("hevc", "vp9")  # codecs with one packet for each picture, whose decoders drop damaged pictures


class Losses:
    """The losses of one decode. Takes packets in file order and pictures in display order."""

    def __init__(self, container: str, codec: str) -> None:
        self._watch_bytes = container in RESYNC
        self._watch_packets = codec in _ONE_FOR_ONE
        self.watches = self._watch_bytes or self._watch_packets
        """Whether this container or codec can lose pictures silently; if not, no calls are needed."""
        self._end_byte: int | None = None
        self._pending: list[int] = []
        self._suspected = False
        self.skipped_bytes = False
        """Whether bytes were skipped anywhere."""

    def packet(self, packet: Packet[Any], is_picture: bool) -> None:
        """Takes a packet of any stream, before it is decoded."""
        if self._watch_bytes and packet.size and packet.pos is not None:
            if self._end_byte is not None and packet.pos > self._end_byte + _HOLE_BYTES:
                self._suspected = self.skipped_bytes = True
            self._end_byte = packet.pos + packet.size
        if self._watch_packets and is_picture and packet.pts is not None and not packet.is_discard:
            heapq.heappush(self._pending, packet.pts)

    def picture(self, tick: int | None) -> None:
        """Takes the timestamp of a decoded picture."""
        while tick is not None and self._pending and self._pending[0] <= tick:
            self._suspected |= heapq.heappop(self._pending) < tick

    def suspected(self) -> bool:
        """Whether there was a sign of a loss since the last call."""
        suspected, self._suspected = self._suspected, False
        return suspected
