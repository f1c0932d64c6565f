"""Small worlds to train on.

Shards whose clips show a coloured square that moves over a plain ground, and whose captions say so.
"""

import hashlib
import io
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 60, 230), "yellow": (230, 220, 30)}
SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()), ("source_id", pa.string()), ("uri", pa.string()), ("start_s", pa.float64()),
        ("end_s", pa.float64()), ("fps", pa.float64()), ("n_frames", pa.int64()), ("width_px", pa.int32()),
        ("height_px", pa.int32()), ("caption", pa.string()), ("motion", pa.float32()), ("mp4", pa.large_binary()),
    ]
)  # fmt: skip


def square_frames(colour: tuple[int, int, int], n_frames: int, width_px: int = 128, height_px: int = 96) -> np.ndarray:
    """(T, H, W, 3): a square of a third of the height that moves from left to right.

    Each frame differs from every other.
    """
    frames_THWC = np.full((n_frames, height_px, width_px, 3), 60, np.uint8)
    side = height_px // 3
    for i, frame in enumerate(frames_THWC):
        left = (width_px - side) * i // max(1, n_frames - 1)
        frame[side : 2 * side, left : left + side] = colour
    return frames_THWC


def encode(frames_THWC: np.ndarray, fps: int = 12) -> bytes:
    """mp4 bytes with B-frames and a keyframe every 12 frames, as the shards hold them."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps))
        stream.height, stream.width = frames_THWC.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.options = {"g": "12", "crf": "12"}
        for i, frame in enumerate(frames_THWC):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = i, Fraction(1, fps)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return buffer.getvalue()


def clip_row(clip_id: str, mp4: bytes | None, n_frames: int, caption: str | None, fps: float = 12.0) -> dict[str, Any]:
    return {
        "clip_id": clip_id, "source_id": "s", "uri": "made.mp4", "start_s": 0.0, "end_s": n_frames / fps, "fps": fps,
        "n_frames": n_frames, "width_px": 128, "height_px": 96, "caption": caption, "motion": 1.0, "mp4": mp4,
    }  # fmt: skip


def write_shards(
    folder: Path, rows: list[dict[str, Any]], rows_per_file: int = 16, index: dict[str, Any] | None = None
) -> Path:
    more = (
        [pa.field(name, pa.array([rows[0][name]]).type) for name in rows[0] if name not in SCHEMA.names] if rows else []
    )
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for number, first in enumerate(range(0, len(rows), rows_per_file)):
        part, name = rows[first : first + rows_per_file], f"shard-{number:05d}.parquet"
        pq.write_table(pa.Table.from_pylist(part, schema=pa.schema([*SCHEMA, *more])), folder / name, row_group_size=3)
        raw = (folder / name).read_bytes()
        digest = hashlib.sha256(raw).hexdigest()
        entries.append({"file": name, "clips": len(part), "bytes": len(raw), "sha256": digest})
    whole = {"schema_version": 1, "clips": len(rows), "seconds": 1.0, "bytes": 1, "shards": entries}
    (folder / "index.json").write_text(json.dumps(whole | (index or {})))
    return folder
