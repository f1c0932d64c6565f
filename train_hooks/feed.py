"""Shards -> training samples: which clip at which step, which of its frames, at which size.

A shards folder, on a disk or at any fsspec URL, is `index.json` and Parquet files with at least the columns of COLUMNS; the mp4 bytes of a
clip are read when they are needed, by (file, row group, row). What a step holds is a pure function of (seed, step). Frames are taken evenly
in time at the recipe's fps. Where frames are tagged (ZeroScope: three a clip), each is a sample of its own, with its prompt.

Shapes: T frames, H and W in pixels, C = 3 channels, red, green, blue; bytes 0..255 until `Sample.video_CTHW`, which
is -1..1.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from train_hooks.captions import CaptionPolicy, Choices, pick
from train_hooks.decode import DecodeError, decode_frames
from train_hooks.errors import TrainError

COLUMNS = ("clip_id", "fps", "n_frames", "mp4")
MOTION = "motion"
"""The column with a clip's motion score, where the shards have one."""
TAGGED = "tagged_frames"
"""How the columns with tagged frames begin: lists of (frame_index, prompt)."""
_CAPTION, _STILLS = 1, 2  # streams of draws of their own
MAX_HELDOUT = 4  # clips kept for the loss grid; ours
_CACHE_BYTES = 256 * 2**20  # decoded, resized frames kept in memory; beyond it a window is decoded again. Ours


@dataclass(frozen=True)
class ShardClip:
    """One clip of the shards: where its bytes lie and what is known of it.

    `fps` and `n_frames` are those of the stored mp4.
    """

    clip_id: str
    file: str
    row_group: int
    row: int
    fps: float
    n_frames: int
    captions: Choices = ()
    motion: float | None = None
    tagged: tuple[tuple[int, str], ...] = ()
    first_frame: int | None = None
    """Where the sample begins, as near as the clip's end allows; None: a window drawn by seed and epoch."""

    @property
    def caption(self) -> str:
        """The caption with the largest share, the first of equals; empty when it has none."""
        return max(self.captions, key=lambda choice: choice[1])[0] if self.captions else ""


@dataclass(frozen=True)
class Sample:
    """One window of one clip: `video_CTHW` float in -1..1, and one of the clip's captions (empty when it has none)."""

    clip_id: str
    caption: str
    video_CTHW: Tensor  # noqa: N815
    fps: float = 0.0
    """True frames per second of the frames taken."""
    motion: float | None = None


def read_index(shards: str | Path) -> tuple[list[ShardClip], str]:
    """Lists the clips of a shards folder in file order, and the sha256 of its index.json.

    Raises TrainError when the folder is not a finished shards folder, a file is missing or unreadable, or it holds no
    clip.
    """
    try:
        with _open(shards, "index.json") as file:
            raw = file.read()
    except FileNotFoundError:
        raise TrainError(
            f"{shards} is not a shards folder: it has no index.json; `rushes run` writes one as its last step"
        ) from None
    try:
        index = json.loads(raw)
        names = [str(shard["file"]) for shard in index["shards"]]
    except (ValueError, KeyError, TypeError):
        raise TrainError(f"{shards}/index.json cannot be read as a shards index; write the shards again") from None
    policy = CaptionPolicy.of(index)
    clips: list[ShardClip] = []
    for name in names:
        clips += _clips_of(shards, name, policy)
    if not clips:
        raise TrainError(
            f"there is nothing to train on: {shards} holds no clips; `rushes funnel` shows which rule drops them"
        )
    return clips, hashlib.sha256(raw).hexdigest()


def _open(shards: str | Path, name: str) -> Any:
    """A file of the shards, for reading. Raises FileNotFoundError, or TrainError where the storage cannot be reached."""
    try:
        return fsspec.open(f"{shards}/{name}", "rb").open()
    except FileNotFoundError:
        raise
    except (OSError, ImportError, ValueError) as error:
        raise TrainError(f"{shards}/{name} cannot be opened: {' '.join(str(error).split())}") from None


def _clips_of(shards: str | Path, name: str, policy: CaptionPolicy) -> list[ShardClip]:
    clips: list[ShardClip] = []
    try:
        with _open(shards, name) as opened:
            file = pq.ParquetFile(opened)
            there = file.schema_arrow.names
            columns = list(dict.fromkeys([*COLUMNS, *policy.columns]))
            lacking = [column for column in columns if column not in there]
            if lacking:
                raise TrainError(f"{shards}/{name} has no column {', '.join(lacking)}; write the shards again")
            tagged = [column for column in there if column.startswith(TAGGED)]
            columns = [c for c in dict.fromkeys([*columns, *tagged, MOTION]) if c in there and c != "mp4"]
            for group in range(file.num_row_groups):
                for i, row in enumerate(file.read_row_group(group, columns=columns).to_pylist()):
                    tags = [tag for column in tagged for tag in row[column] or ()]
                    clips.append(
                        ShardClip(
                            row["clip_id"],
                            name,
                            group,
                            i,
                            row["fps"],
                            row["n_frames"],
                            policy.choices(row),
                            row.get(MOTION),
                            tuple((tag["frame_index"], tag["prompt"]) for tag in tags),
                        )
                    )
    except FileNotFoundError:
        raise TrainError(f"{shards}/index.json names {name}, which is not there; write the shards again") from None
    except (pa.ArrowException, OSError) as error:
        raise TrainError(f"{shards}/{name} cannot be read: {str(error).splitlines()[0]}") from None
    return clips


def order(n_clips: int, batch: int, seed: int, step: int) -> list[tuple[int, int]]:
    """The (clip number, epoch) pairs of one step.

    Each epoch is a permutation of all clips, and batches run on across its end.
    """
    pairs = []
    for position in range(step * batch, (step + 1) * batch):
        epoch, place = divmod(position, n_clips)
        pairs.append((int(np.random.default_rng([seed, epoch]).permutation(n_clips)[place]), epoch))
    return pairs


def frame_indices(
    fps: float, n_frames: int, frames: int, at_fps: float, draw: float, begin: int | None = None
) -> list[int]:
    """Indices of `frames` frames, evenly in time at `at_fps`, in a clip of `n_frames` frames at `fps`.

    `draw` in [0, 1) places the first; or it is `begin`, or the last frame from which there are enough.

    The clip must be long enough (see `too_short`).
    """
    offsets = [round(i * fps / at_fps) for i in range(frames)]
    first = int(draw * (n_frames - offsets[-1])) if begin is None else min(begin, n_frames - 1 - offsets[-1])
    return [first + offset for offset in offsets]


def by_tag(clip: ShardClip) -> list[ShardClip]:
    """The clip once for each of its tagged frames, from there on and with that prompt; as it is where none is tagged."""
    return [replace(clip, first_frame=at, captions=((prompt, 1.0),)) for at, prompt in clip.tagged] or [clip]


def too_short(clip: ShardClip, frames: int, at_fps: float) -> str | None:
    """Why a clip cannot give `frames` different frames at `at_fps`, or None when it can."""
    if clip.fps < 0.99 * at_fps and frames > 1:
        return f"it has {clip.fps:g} frames per second and the recipe asks for {at_fps:g}"
    needed = round((frames - 1) * clip.fps / at_fps) + 1
    if clip.n_frames < needed:
        return f"too short: {clip.n_frames} frames at {clip.fps:g} fps, and {frames} at {at_fps:g} fps need {needed}"
    return None


def fit(frame_HWC: NDArray[np.uint8], width_px: int, height_px: int) -> Tensor:  # noqa: N803
    """Scales a frame until it just covers the size (antialiased bicubic) and crops the centre.

    Uint8 (C, height_px, width_px).
    """
    height, width = frame_HWC.shape[:2]
    scale = max(width_px / width, height_px / height)
    size = max(height_px, round(height * scale)), max(width_px, round(width * scale))
    frame_1CHW = torch.from_numpy(np.ascontiguousarray(frame_HWC)).permute(2, 0, 1)[None]
    scaled = torch.nn.functional.interpolate(frame_1CHW, size=size, mode="bicubic", antialias=True)[0]
    top, left = (size[0] - height_px) // 2, (size[1] - width_px) // 2
    return scaled[:, top : top + height_px, left : left + width_px]


class Feed:
    """The samples of a run.

    `train` and `heldout` hold clips, `left_out` the reason for each clip id that is in neither. With fewer than 1 /
    heldout_share clips none is held out. Raises TrainError when no clip is left to train on.
    """

    def __init__(
        self,
        shards: str | Path,
        *,
        frames: int,
        fps: float,
        width_px: int,
        height_px: int,
        batch: int,
        windows_per_clip: int,
        heldout_share: float,
        seed: int,
        tagged: bool = False,
    ) -> None:
        self.shards, self.frames, self.fps, self.batch = shards, frames, fps, batch
        self.width_px, self.height_px = width_px, height_px
        self.windows, self.seed = windows_per_clip, seed
        clips, self.index_sha256 = read_index(shards)
        reasons = {clip.clip_id: too_short(clip, frames, fps) for clip in clips}
        self.left_out = {clip_id: reason for clip_id, reason in reasons.items() if reason is not None}
        usable = [clip for clip in clips if clip.clip_id not in self.left_out]
        if not usable:
            clip_id, reason = next(iter(self.left_out.items()))
            raise TrainError(
                f"there is nothing to train on: none of the {len(clips)} clips can be used; {clip_id}: {reason}"
            )
        n_heldout = min(MAX_HELDOUT, int(len(usable) * heldout_share))
        # By a hash of the id, so that adding clips or shards seldom moves a clip from one side to the other.
        chosen = {clip.clip_id for clip in sorted(usable, key=lambda clip: self._hash(clip.clip_id))[:n_heldout]}
        self.heldout = [clip for clip in usable if clip.clip_id in chosen]
        self.train = [clip for clip in usable if clip.clip_id not in chosen]
        if tagged:
            self.train = [sample for clip in self.train for sample in by_tag(clip)]
        self.n_without_caption = sum(not clip.caption for clip in usable)
        self._files: dict[str, pq.ParquetFile] = {}
        self._cache: dict[tuple[str, int, int | None], Tensor] = {}
        self._cached_bytes = 0

    def samples(self, step: int) -> list[Sample]:
        """The samples of one training step: a pure function of the seed and the step."""
        return [self.read(self.train[i], epoch) for i, epoch in order(len(self.train), self.batch, self.seed, step)]

    def stills(self, step: int, n: int) -> list[Sample]:
        """`n` pictures for each sample of a step, the middle frames of other clips: a pure function of the seed and the step."""
        draws = np.random.default_rng([self.seed, step, _STILLS])
        picked = draws.integers(0, len(self.train), self.batch * n)
        samples = [
            self.read(self.train[i], int(epoch))
            for i, epoch in zip(picked, draws.integers(0, 2**31, len(picked)), strict=True)
        ]
        return [replace(s, video_CTHW=s.video_CTHW[:, [self.frames // 2]]) for s in samples]

    def reached(self, steps: int, begin: int = 0) -> set[str]:
        """Ids of the clips that the steps from `begin` to before `steps` train on."""
        if (steps - begin) * self.batch >= 2 * len(self.train):  # an epoch that began before is not a whole one
            return {clip.clip_id for clip in self.train}
        return {
            self.train[i].clip_id
            for step in range(begin, steps)
            for i, _ in order(len(self.train), self.batch, self.seed, step)
        }

    def read(self, clip: ShardClip, epoch: int) -> Sample:
        """Decodes the window of a clip that belongs to an epoch, and draws the epoch's caption.

        Raises TrainError, naming the clip, when it cannot be decoded.
        """
        window = epoch % self.windows
        key = (clip.clip_id, window, clip.first_frame)
        frames_TCHW = self._cache.get(key)
        draw = np.random.default_rng([self._hash(clip.clip_id), window]).random()
        indices = frame_indices(clip.fps, clip.n_frames, self.frames, self.fps, draw, clip.first_frame)
        if frames_TCHW is None:
            try:
                frames_THWC = decode_frames(self._mp4(clip), indices)
            except DecodeError as error:
                raise TrainError(f"clip {clip.clip_id} in {clip.file} cannot be decoded: {error}") from None
            frames_TCHW = torch.stack([fit(frame, self.width_px, self.height_px) for frame in frames_THWC])
            if self._cached_bytes + frames_TCHW.numel() <= _CACHE_BYTES:
                self._cache[key] = frames_TCHW
                self._cached_bytes += frames_TCHW.numel()
        caption = pick(clip.captions, np.random.default_rng([self._hash(clip.clip_id), epoch, _CAPTION]).random())
        fps = clip.fps * (len(indices) - 1) / max(1, indices[-1] - indices[0]) if len(indices) > 1 else self.fps
        return Sample(clip.clip_id, caption, frames_TCHW.transpose(0, 1).float() / 127.5 - 1.0, fps, clip.motion)

    def _mp4(self, clip: ShardClip) -> bytes:
        if clip.file not in self._files:
            self._files[clip.file] = pq.ParquetFile(_open(self.shards, clip.file))
        column = self._files[clip.file].read_row_group(clip.row_group, columns=["mp4"])["mp4"]
        return column[clip.row].as_py() or b""

    def _hash(self, clip_id: str) -> int:
        return int.from_bytes(hashlib.sha256(f"{self.seed}:{clip_id}".encode()).digest()[:8], "big")


def stack(samples: Sequence[Sample]) -> Tensor:
    """The videos of a batch, `video_BCTHW`."""
    return torch.stack([sample.video_CTHW for sample in samples])
