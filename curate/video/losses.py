"""Pictures that a file has and a decode does not give, though neither the container's reader nor the decoder says a word.

Two traces: bytes that were passed over, where a reader looked for the next block after damage; and packets that went into the
decoder and never came out as a picture. Neither is proof (a file may hold what nobody reads), so a gap in time has to go with it.
"""

from __future__ import annotations

import heapq
from typing import Any

from av.packet import Packet

RESYNC = ("matroska,webm", "avi", "flv")
"""Containers whose readers look for the next block. Their packets of every stream have to be watched."""
_HOLE_BYTES = 512  # ours: between two blocks of a sound file lie about 20, in an AVI with padding up to 2 KiB
_ONE_FOR_ONE = ("hevc", "vp9")  # decoders that drop damaged pictures, of codecs where each picture has its packet


class Losses:
    """Of one decode, fed with packets in the order of the file and with pictures in the order shown."""

    def __init__(self, container: str, codec: str) -> None:
        self._watch_bytes = container in RESYNC
        self._watch_packets = codec in _ONE_FOR_ONE
        self.watches = self._watch_bytes or self._watch_packets
        """Whether it needs to be fed at all."""
        self._end_byte: int | None = None
        self._owed: list[int] = []
        self._suspected = False
        self.passed_over = False
        """Whether bytes were passed over anywhere."""

    def packet(self, packet: Packet[Any], is_picture: bool) -> None:
        """Takes a packet of any stream, before it is decoded."""
        if self._watch_bytes and packet.size and packet.pos is not None:
            if self._end_byte is not None and packet.pos > self._end_byte + _HOLE_BYTES:
                self._suspected = self.passed_over = True
            self._end_byte = packet.pos + packet.size
        if self._watch_packets and is_picture and packet.pts is not None and not packet.is_discard:
            heapq.heappush(self._owed, packet.pts)

    def picture(self, tick: int | None) -> None:
        """Takes the timestamp of a decoded picture."""
        while tick is not None and self._owed and self._owed[0] <= tick:
            self._suspected |= heapq.heappop(self._owed) < tick

    def suspected(self) -> bool:
        """Whether there was a trace since this was last asked."""
        suspected, self._suspected = self._suspected, False
        return suspected
