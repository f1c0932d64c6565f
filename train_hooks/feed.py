"""Shards -> training samples: which clips there are, which of them a step holds, which of their frames, at which size.

What a step holds is a pure function of (seed, step) (`order.py`). Frames are taken evenly in time at the recipe's fps. Where frames are tagged
(ZeroScope: three a clip), each is a sample of its own, with its prompt. A clip that cannot be decoded is replaced by another of its bucket,
always the same one, and reported.

Shapes: T frames, H and W in pixels, C = 3 channels, red, green, blue; bytes 0..255, and -1..1 in `Sample.video_CTHW`; c latent channels, h
and w in latents.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor

from train_hooks.captions import pick
from train_hooks.decode import DecodeError, decode_frames
from train_hooks.errors import TrainError
from train_hooks.frames import bucket_of, fit_all, frame_indices, too_short, true_fps
from train_hooks.image_folder import ImageFolder
from train_hooks.latent_cache import LatentCache, Moments
from train_hooks.order import Order, StepClips
from train_hooks.shard_index import ShardClip, ShardIndex, by_tag, open_file, read_index
from train_hooks.size import Size

_CAPTION, _STILLS, _SUBSTITUTE = 1, 2, 3  # separate random streams
MAX_HELDOUT = 4  # clips kept for the loss grid; ours
SUBSTITUTES = 8  # clips tried in the place of a broken one; ours
STILLS: dict[str, Any] = {"first": lambda n: 0, "middle": lambda n: n // 2, "last": lambda n: n - 1}
_CACHE_BYTES = 256 * 2**20  # decoded, resized frames kept in memory; beyond it a window is decoded again. Ours


@dataclass(frozen=True)
class Sample:
    """One window of one clip, as frames or as the latents that were made of them, and one of the clip's captions (empty without)."""

    clip_id: str
    caption: str
    pixels_CTHW: Tensor | None = None  # noqa: N815
    """Bytes. With latents: the first frame alone, where the cache has it, or nothing."""
    fps: float = 0.0
    """True frames per second of the frames taken."""
    motion: float | None = None
    latents: Moments | None = None

    @property
    def video_CTHW(self) -> Tensor:  # noqa: N802
        """The frames, float in -1..1."""
        assert self.pixels_CTHW is not None
        return as_float(self.pixels_CTHW)

    def frames(self, which: slice) -> "Sample":
        """The same clip with some of its frames only."""
        if self.latents is not None:
            return replace(self, latents=self.latents.frames(which))
        assert self.pixels_CTHW is not None
        return replace(self, pixels_CTHW=self.pixels_CTHW[:, which])


class BrokenClip(NamedTuple):
    """A clip that could not be decoded, and what was trained on in its place."""

    clip_id: str
    reason: str
    substitute: str


@dataclass(frozen=True)
class Chunk:
    """The clips of one micro-batch: one bucket, at these places of the batch."""

    step: int
    """The step whose clips and numbers these are."""
    bucket: int
    places: tuple[int, ...]
    clips: tuple[tuple[int, int], ...]
    """(clip number, epoch) of each."""
    stills_only: bool = False
    """Of each clip only one frame is shown."""
    stills: tuple[tuple[int, int], ...] = ()
    """(clip number, window) of the pictures behind the videos, as many for each clip."""


@dataclass(frozen=True)
class Loaded:
    """A chunk with its samples."""

    chunk: Chunk
    samples: list[Sample]
    stills: list[Sample] = field(default_factory=list)
    broken: list[BrokenClip] = field(default_factory=list)


class Feed:
    """The samples of a run.

    `train` and `heldout` hold clips, `left_out` the reason for each clip id that is in neither. With fewer than 1 /
    heldout_share clips none is held out. Raises TrainError when no clip is left to train on.
    """

    def __init__(
        self,
        shards: str | Path,
        *,
        sizes: Sequence[Size],
        fps: float,
        batch: int,
        windows_per_clip: int,
        heldout_share: float,
        seed: int,
        tagged: bool = False,
        still: str = "middle",
        images: str = "",
        index: ShardIndex | None = None,
        cache: LatentCache | None = None,
        with_variance: bool = False,
    ) -> None:
        self.shards, self.sizes, self.fps, self.batch = shards, list(sizes), fps, batch
        self.windows, self.seed, self.still, self.cache = windows_per_clip, seed, still, cache
        self.with_variance = with_variance
        self.index = index or read_index(shards)
        self.images = ImageFolder(images) if images else None
        clips = self.index.clips
        found = {clip.clip_id: bucket_of(clip, self.sizes, fps) for clip in clips}
        shortest = min(size.frames for size in self.sizes)
        self.left_out = {c.clip_id: str(too_short(c, shortest, fps)) for c in clips if found[c.clip_id] is None}
        usable = [clip for clip in clips if clip.clip_id not in self.left_out]
        if not usable:
            clip_id, reason = next(iter(self.left_out.items()))
            raise TrainError(
                f"there is nothing to train on: none of the {len(clips)} clips can be used; {clip_id}: {reason}"
            )
        n_heldout = min(MAX_HELDOUT, int(len(usable) * heldout_share))
        # By a hash of the id, so that adding clips or shards seldom moves a clip from one side to the other.
        long_enough = [clip for clip in usable if too_short(clip, self.sizes[0].frames, fps) is None]
        chosen = {clip.clip_id for clip in sorted(long_enough, key=lambda clip: self._hash(clip.clip_id))[:n_heldout]}
        self.heldout = [clip for clip in usable if clip.clip_id in chosen]
        self.train = [clip for clip in usable if clip.clip_id not in chosen]
        if tagged:
            self.train = [sample for clip in self.train for sample in by_tag(clip)]
        if cache is not None:
            self._leave_out_uncached(cache)
        self.buckets = [found[clip.clip_id] or 0 for clip in self.train]
        self.n_without_caption = sum(not clip.caption for clip in usable)
        self._order = Order(self.buckets, batch, seed)
        self._files: dict[str, pq.ParquetFile] = {}
        self._memory: dict[tuple[str, int, int | None, Size], Tensor] = {}
        self._memory_bytes = 0

    def _leave_out_uncached(self, cache: LatentCache) -> None:
        reason = f"it has no latents in {cache.folder}"
        lacking = [clip for clip in (*self.train, *self.heldout) if clip not in cache]
        self.left_out |= {clip.clip_id: cache.errors.get(clip.clip_id, reason) for clip in lacking}
        self.train = [clip for clip in self.train if clip in cache]
        self.heldout = [clip for clip in self.heldout if clip in cache]
        if not self.train:
            raise TrainError(f"there is nothing to train on: {reason}")

    # -- which clips

    def at(self, step: int) -> StepClips:
        """The bucket and the clips of a step."""
        return self._order.at(step)

    def chunk(self, step: int, places: Sequence[int], stills_only: bool = False, n_stills: int = 0) -> Chunk:
        """Some places of a step's batch, with `n_stills` pictures of other clips for each."""
        of_step = self.at(step)
        stills = []
        same_size = self._order.members(of_step.bucket)
        for place in places:
            rng = np.random.default_rng([self.seed, step, place, _STILLS])
            picked = same_size[rng.integers(0, len(same_size), n_stills)]
            stills += [(int(i), int(rng.integers(0, 2**31))) for i in picked]
        clips = tuple(of_step.clips[place] for place in places)
        return Chunk(step, of_step.bucket, tuple(places), clips, stills_only, tuple(stills))

    def grid_samples(self, n: int) -> list[Sample]:
        """Up to n samples of one size for the loss grid: of held-out clips, or of trained ones where none is held out.

        A held-out clip that cannot be decoded is left out. Raises TrainError where no clip can be.
        """
        held: list[Sample] = []
        for clip in list(self.heldout):
            try:
                held.append(self.read(clip, epoch=0))
            except TrainError as error:
                self.heldout.remove(clip)
                self.left_out[clip.clip_id] = str(error)
        if held:
            return held[:n]
        bucket = min(self.buckets)
        same = [i for i, b in enumerate(self.buckets) if b == bucket][:n]
        return [self._read_or_substitute(i, 0, self.sizes[bucket], []) for i in same]

    def steps_per_epoch(self) -> float:
        """Steps in which every clip is seen once, on average."""
        return len(self.train) / self.batch

    def reached(self, steps: int, begin: int = 0) -> set[str]:
        """Ids of the clips that the steps from `begin` to before `steps` train on."""
        everything = {clip.clip_id for clip in self.train}
        found: set[str] = set()
        for step in range(begin, steps):
            found |= {self.train[i].clip_id for i, _ in self.at(step).clips}
            if len(found) == len(everything):
                break
        return found

    # -- their frames

    def load(self, chunk: Chunk) -> Loaded:
        """Reads a chunk; clips that cannot be read are replaced. Raises TrainError when their substitutes cannot be read either."""
        broken: list[BrokenClip] = []
        size = self.sizes[chunk.bucket]
        samples = [self._read_or_substitute(*pair, size, broken) for pair in chunk.clips]
        stills = [self._still(*pair, size, broken) for pair in chunk.stills]
        if chunk.stills_only:
            at = STILLS[self.still](size.frames)
            samples = [sample.frames(slice(at, at + 1)) for sample in samples]
        return Loaded(chunk, samples, stills, broken)

    def samples(self, step: int) -> list[Sample]:
        """All samples of one training step: a pure function of the seed and the step."""
        return self.load(self.chunk(step, range(self.batch))).samples

    def stills(self, step: int, n: int) -> list[Sample]:
        """`n` pictures for each sample of a step, of other clips: a pure function of the seed and the step."""
        return self.load(self.chunk(step, range(self.batch), n_stills=n)).stills

    def _still(self, number: int, window: int, size: Size, broken: list[BrokenClip]) -> Sample:
        """One frame of a clip, or a picture of the image folder where there is one."""
        if self.images is not None:
            name, caption, pixels_C1HW = self.images.picture(window, size)
            return Sample(name, caption, pixels_C1HW)
        at = STILLS[self.still](size.frames)
        return self._read_or_substitute(number, window, size, broken).frames(slice(at, at + 1))

    def _read_or_substitute(self, number: int, epoch: int, size: Size, broken: list[BrokenClip]) -> Sample:
        clip = self.train[number]
        try:
            return self.read(clip, epoch, size)
        except TrainError as error:
            reason = str(error)
        bucket = self.buckets[number]
        others = [other for other, b in zip(self.train, self.buckets, strict=True) if b == bucket and other != clip]
        rng = np.random.default_rng([self._hash(clip.clip_id), _SUBSTITUTE])
        for i in rng.permutation(len(others))[:SUBSTITUTES]:
            try:
                sample = self.read(others[i], epoch, size)
            except TrainError:
                continue
            broken.append(BrokenClip(clip.clip_id, reason, sample.clip_id))
            return sample
        raise TrainError(f"{reason}; no other clip can be read in its place")

    def read(self, clip: ShardClip, epoch: int, size: Size | None = None) -> Sample:
        """The window of a clip that belongs to an epoch, and the epoch's caption, at the recipe's first size or another.

        Raises TrainError, naming the clip, when it cannot be decoded.
        """
        caption = pick(clip.captions, np.random.default_rng([self._hash(clip.clip_id), epoch, _CAPTION]).random())
        if self.cache is not None:
            cached = self.cache.read(clip, epoch, self.with_variance)
            return Sample(clip.clip_id, caption, cached.first_frame_C1HW, cached.fps, clip.motion, cached.moments)
        frames_TCHW, fps = self.window(clip, epoch % self.windows, size or self.sizes[0])
        return Sample(clip.clip_id, caption, frames_TCHW.transpose(0, 1), fps, clip.motion)

    def window(self, clip: ShardClip, window: int, size: Size) -> tuple[Tensor, float]:
        """The frames of a window, uint8 (T, C, H, W), and their true frame rate."""
        draw = np.random.default_rng([self._hash(clip.clip_id), window]).random()
        indices = frame_indices(clip.fps, clip.n_frames, size.frames, self.fps, draw, clip.first_frame)
        key = (clip.clip_id, window, clip.first_frame, size)
        frames_TCHW = self._memory.get(key)
        if frames_TCHW is None:
            try:
                frames_THWC = decode_frames(self._mp4(clip), indices)
            except DecodeError as error:
                raise TrainError(f"clip {clip.clip_id} in {clip.file} cannot be decoded: {error}") from None
            frames_TCHW = fit_all(frames_THWC, size.width_px, size.height_px)
            if self._memory_bytes + frames_TCHW.numel() <= _CACHE_BYTES:
                self._memory[key] = frames_TCHW
                self._memory_bytes += frames_TCHW.numel()
        return frames_TCHW, true_fps(indices, clip.fps, self.fps)

    def _mp4(self, clip: ShardClip) -> bytes:
        if clip.file not in self._files:
            self._files[clip.file] = pq.ParquetFile(open_file(self.shards, clip.file))
        column = self._files[clip.file].read_row_group(clip.row_group, columns=["mp4"])["mp4"]
        return column[clip.row].as_py() or b""

    def _hash(self, clip_id: str) -> int:
        return int.from_bytes(hashlib.sha256(f"{self.seed}:{clip_id}".encode()).digest()[:8], "big")

    def __getstate__(self) -> dict[str, Any]:
        """For loader processes: without open files, frames in memory, and what `Order` can count again."""
        left_behind = {"_files": {}, "_memory": {}, "_memory_bytes": 0, "_order": None}
        return {**self.__dict__, **left_behind}


def as_float(pixels: Tensor) -> Tensor:
    """Bytes as float in -1..1."""
    return pixels.float() / 127.5 - 1.0


def stack(samples: Sequence[Sample]) -> Tensor:
    """The videos of a batch, `video_BCTHW`, float in -1..1."""
    return torch.stack([sample.video_CTHW for sample in samples])
