"""Clips as the source's own packets, shrunk inward to keyframes as SVD does (appendix C).

The first keyframe at or after the start, the last one at or before the end; the end of the file is as good an end as a keyframe.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from av.error import FFmpegError
from av.packet import Packet
from av.video.stream import VideoStream

from curate.clip_records import ClipOptions, Cut, CutError, Numbered, Span, edge_s_of, fps_of
from curate.mp4 import Mp4
from curate.opening import open_input, video_stream
from curate.video import Reader, VideoError, packet_tick


def copy(uri: str, spans: list[Span], options: ClipOptions, storage_options: Mapping[str, Any] | None) -> Numbered:
    """Copies packets between keyframes. Yields (index of the span, result) as the clips end."""
    waiting = deque(enumerate(spans))
    writing: list[_Remux] = []
    with Reader(uri, storage_options=storage_options) as reader, open_input(uri, storage_options) as container:
        stream = video_stream(container)
        edge_s = edge_s_of(reader)
        end_s = 0.0
        why = ""
        if reader.guessed_order:
            raise VideoError("an AVI with B-frames does not say when its packets are shown; mode 'exact' can cut it")
        try:
            for packet in container.demux(stream):
                tick = packet_tick(packet)
                if tick is None or packet.is_discard:
                    continue
                t_s = reader.time_s(tick)
                end_s = max(end_s, reader.time_s(tick + (packet.duration or 0)))
                if packet.is_keyframe and t_s >= 0:
                    for clip in list(writing):
                        if t_s <= clip.span.end_s + edge_s:
                            clip.commit()
                        else:
                            writing.remove(clip)
                            yield clip.index, clip.finish()
                    while waiting and t_s >= waiting[0][1].start_s - edge_s:
                        writing.append(_Remux(*waiting.popleft(), reader, stream, tick))
                    if not waiting and not writing:
                        return
                for clip in writing:
                    clip.add(packet)
        except FFmpegError:
            why = f"the file cannot be read on after {end_s:.2f} s"
        for clip in writing:
            if not why and end_s <= clip.span.end_s + edge_s + 1.5 / (reader.info.fps or 25.0):
                clip.commit()  # the end of the file is as good an end as a keyframe
            yield clip.index, clip.finish(why)
        for index, span in waiting:
            yield index, CutError(span.clip_id, why or "no keyframe in this span; mode 'exact' can cut it")


class _Remux:
    """One clip being copied: packets up to the last keyframe inside the span, and those after it, not yet needed."""

    def __init__(self, index: int, span: Span, reader: Reader, stream: VideoStream, tick: int):
        self.index = index
        self.span = span
        self._reader = reader
        self._stream = stream
        self._tick = tick
        self._packets: list[Packet[VideoStream]] = []
        self._open: list[Packet[VideoStream]] = []

    def add(self, packet: Packet[VideoStream]) -> None:
        tick = packet_tick(packet)
        if tick is not None and tick >= self._tick:  # leading pictures lean on frames before the clip
            self._open.append(packet)

    def commit(self) -> None:
        self._packets += self._open
        self._open = []

    def finish(self, why: str = "") -> Cut | CutError:
        if why:
            return CutError(self.span.clip_id, why)
        if not self._packets:
            return CutError(self.span.clip_id, "no two keyframes in this span; mode 'exact' can cut it")
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
        end_s = max(time_s((packet_tick(packet) or 0) + (packet.duration or step)) for packet in self._packets)
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
        )

    def _mux(self, mp4: Mp4) -> bytes:
        out = mp4.container.add_stream_from_template(self._stream, opaque=True)
        for packet in self._packets:
            pts, dts, duration, clock = packet.pts, packet.dts, packet.duration, packet.time_base
            packet.stream = out
            packet.pts = None if pts is None else pts - self._tick
            packet.dts = None if dts is None else dts - self._tick
            mp4.container.mux_one(packet)
            # Muxing counts the packet in the mp4's ticks; an overlapping clip needs it as it was.
            packet.time_base, packet.pts, packet.dts, packet.duration = clock, pts, dts, duration
        return mp4.finish()
