"""Clips as copies of the source's packets: nothing is decoded and no quality is lost, but a clip may be shorter than its span.

A clip begins at the first keyframe at or after the start of its span (as in SVD, appendix C). It ends after the last packet for which the
packets up to it show a sequence without gaps: at the end of the span without B-frames, a few frames earlier with them. (SVD ends at a keyframe,
which loses up to a whole GOP.)
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from itertools import accumulate
from typing import Any

from av.error import FFmpegError
from av.packet import Packet
from av.video.stream import VideoStream

from curate.clips.mp4 import Mp4
from curate.clips.records import ClipOptions, Cut, CutError, Numbered, Span, edge_s_of, fps_of
from curate.video.container import open_input, video_stream
from curate.video.open import Reader, VideoError, packet_tick

NO_KEYFRAME = "no keyframe in this span; use mode 'exact'"


def copy(uri: str, spans: list[Span], options: ClipOptions, storage_options: Mapping[str, Any] | None) -> Numbered:
    """Copies packets between keyframes. Yields (index of the span, result) as the clips end."""
    waiting = deque(enumerate(spans))
    writing: list[_Remux] = []
    with Reader(uri, storage_options=storage_options) as reader, open_input(uri, storage_options) as container:
        stream = video_stream(container)
        edge_s = edge_s_of(reader)
        end_s = 0.0
        reason = ""
        if reader.guessed_order:
            raise VideoError("an AVI with B-frames has no presentation times for its packets; use mode 'exact'")
        try:
            for packet in container.demux(stream):
                tick = packet_tick(packet)
                if tick is None or packet.is_discard:
                    continue
                t_s = reader.time_s(tick)
                end_s = max(end_s, reader.time_s(tick + (packet.duration or 0)))
                decoded_s = -math.inf if packet.dts is None else reader.time_s(packet.dts)
                for clip in list(writing):
                    if decoded_s >= clip.span.end_s - edge_s:  # no packet from here on is shown inside the clip
                        writing.remove(clip)
                        yield clip.index, clip.finish(edge_s)
                if packet.is_keyframe and t_s >= 0:
                    while waiting and t_s >= waiting[0][1].start_s - edge_s:
                        index, span = waiting.popleft()
                        if t_s < span.end_s - edge_s:
                            writing.append(_Remux(index, span, reader, stream, tick))
                        else:
                            yield index, CutError(span.clip_id, NO_KEYFRAME)
                if not waiting and not writing:
                    return
                for clip in writing:
                    clip.add(packet)
        except FFmpegError:
            reason = f"the file cannot be read after {end_s:.2f} s"
        for clip in writing:
            yield clip.index, clip.finish(edge_s, reason)
        for index, span in waiting:
            yield index, CutError(span.clip_id, reason or NO_KEYFRAME)


class _Remux:
    """One clip being copied."""

    def __init__(self, index: int, span: Span, reader: Reader, stream: VideoStream, tick: int):
        self.index = index
        self.span = span
        self._reader = reader
        self._stream = stream
        self._tick = tick
        self._packets: list[Packet[VideoStream]] = []
        self._ticks: list[int] = []

    def add(self, packet: Packet[VideoStream]) -> None:
        tick = packet_tick(packet)
        if tick is not None and tick >= self._tick:  # leading pictures refer to frames before the clip
            self._packets.append(packet)
            self._ticks.append(tick)

    def _whole(self, edge_s: float) -> tuple[int, int | None]:
        """The number of packets, from the first, that show the span without gaps, and the tick of the picture after them."""
        last_shown = list(accumulate(self._ticks, max))
        next_shown = list(accumulate(reversed(self._ticks), min))[::-1][1:]
        for n in range(len(self._ticks), 0, -1):
            after = next_shown[n - 1] if n <= len(next_shown) else None
            inside = self._reader.time_s(last_shown[n - 1]) < self.span.end_s - edge_s
            if inside and (after is None or last_shown[n - 1] < after):
                return n, after
        return 0, None

    def finish(self, edge_s: float, reason: str = "") -> Cut | CutError:
        if reason:
            return CutError(self.span.clip_id, reason)
        n, next_tick = self._whole(edge_s)
        if not n:
            return CutError(self.span.clip_id, NO_KEYFRAME)
        self._packets = self._packets[:n]
        if any(packet.is_corrupt for packet in self._packets):
            return CutError(self.span.clip_id, "the source is damaged in this span")
        mp4 = Mp4()
        try:
            data = self._mux(mp4)
        except (FFmpegError, ValueError) as error:
            return CutError(
                self.span.clip_id, f"the {self._reader.info.codec} stream does not fit into an mp4: {error}"
            )
        finally:
            mp4.abandon()
        info = self._reader.info
        time_s = self._reader.time_s
        start_s = time_s(self._tick)
        step = round(1 / (info.fps or 25.0) / self._reader.time_base)
        last = max(range(n), key=self._ticks.__getitem__)
        last_s = time_s(self._ticks[last])
        stated = self._ticks[last] + (self._packets[last].duration or step)
        end_s = time_s(stated if next_tick is None else min(stated, next_tick))
        return Cut(
            clip_id=self.span.clip_id,
            mp4=data,
            mode="copy",
            n_frames=len(self._packets),
            fps=fps_of(self._reader, len(self._packets), end_s - start_s),
            width_px=info.width_px,
            height_px=info.height_px,
            start_s=start_s,
            end_s=end_s,
            duration_s=end_s - start_s,
            last_s=last_s,
        )

    def _mux(self, mp4: Mp4) -> bytes:
        out = mp4.container.add_stream_from_template(self._stream, opaque=True)
        for packet in self._packets:
            pts, dts, duration, clock = packet.pts, packet.dts, packet.duration, packet.time_base
            packet.stream = out
            packet.pts = None if pts is None else pts - self._tick
            packet.dts = None if dts is None else dts - self._tick
            mp4.container.mux_one(packet)
            # Muxing rewrites the packet's times; an overlapping clip needs the original ones.
            packet.time_base, packet.pts, packet.dts, packet.duration = clock, pts, dts, duration
        return mp4.finish()
