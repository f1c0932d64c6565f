"""Feeding the training: cached latents and live decoding, as ratios and per CPU second, each measured in one run.

    python benchmarks/feed.py [--shards RUN/shards] [--clips 256]

- latents: samples per CPU second of one core, at 256 x 256 x 16 (means of 131 KB), from random latents laid out as by `rushes latents`,
  in the random order of training; and the same rows in row groups of 8. Target: 1,500.
- order: CPU seconds to compute a step's clips, over those to read them.
- live: CPU seconds of decord alone, reading the same frames of the same clips, over those of `Feed.load`, which also finds, scales and crops
  them. Target: .8. The clips are those of --shards, or generated ones: moving squares of 640 x 360.
- decoder: CPU seconds of decord over those of PyAV, both through train_hooks/decode.py, for the same frames of the same clips.
"""

import argparse
import io
import json
import os
import resource
import statistics
import sys
import tempfile
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import decord
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from tests.train_hooks.worlds import clip_row, encode, square_frames, write_shards
from train_hooks.decode import decode_with_decord, decode_with_pyav
from train_hooks.feed import Chunk, Feed
from train_hooks.frames import frame_indices
from train_hooks.latent_cache import CLAIM, SCHEMA, LatentCache
from train_hooks.order import Order
from train_hooks.shard_index import ShardClip
from train_hooks.size import Size

ROUNDS = 5


def cpu_s() -> float:
    """CPU seconds of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def spent(work) -> float:
    began = cpu_s()
    work()
    return cpu_s() - began


def write_latents(folder: Path, n: int, group: int) -> None:
    """Random latents of n clips."""
    shape, rng = [4, 16, 32, 32], np.random.default_rng(0)
    folder.mkdir()
    blobs = [rng.standard_normal(shape).astype(np.float16).tobytes() for _ in range(16)]
    with pq.ParquetWriter(
        folder / "latents-shard-00000.parquet",
        SCHEMA,
        compression="none",
        use_dictionary=["clip_id"],
        write_statistics=False,
    ) as out:
        for first in range(0, n, group):
            rows = [
                {"clip_id": f"c{i}", "first_frame": -1, "window": 0, "fps": 8.0, "shape": shape, "mean": blobs[i % 16], "logvar": blobs[i % 16]}
                for i in range(first, min(first + group, n))
            ]  # fmt: skip
            out.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), row_group_size=group)
    (folder / CLAIM).write_text(json.dumps({"made_from": {}, "windows": 1, "files": ["latents-shard-00000.parquet"]}))


def latents(n: int) -> None:
    """Random rows of a cache, and the same in larger row groups."""
    with tempfile.TemporaryDirectory() as aside:
        write_latents(Path(aside) / "one", n, 1)
        write_latents(Path(aside) / "eight", n, 8)
        cache = LatentCache(Path(aside) / "one")
        clips = [ShardClip(f"c{i}", "", 0, 0, 8.0, 100) for i in np.random.default_rng(1).permutation(n)]
        eight = pq.ParquetFile(Path(aside) / "eight" / "latents-shard-00000.parquet", memory_map=True)

        def by_one() -> None:
            for clip in clips:
                cache.read(clip, 0)

        def by_eight() -> None:
            for clip in clips:
                i = int(clip.clip_id[1:])
                table = eight.read_row_group(i // 8, columns=["fps", "shape", "mean", "picture"], use_threads=False)
                torch.from_numpy(np.frombuffer(table["mean"][i % 8].as_buffer(), np.float16).copy())

        by_one()
        by_eight()
        pairs = [(spent(by_one), spent(by_eight)) for _ in range(ROUNDS)]
        rate = statistics.median(n / one for one, _ in pairs)
        ratio = statistics.median(eight / one for one, eight in pairs)
        print(f"latents: {rate:.0f} samples per CPU second; rows alone over row groups of 8: {ratio:.2f} times as many")


def live(shards: Path, clips: int, fps: float) -> None:
    """The same frames by decord alone and through the feed: a pair for each four clips, in turn, and the median of all pairs."""
    size = Size(256, 256, 16)
    feed = Feed(shards, sizes=[size], fps=fps, batch=4, windows_per_clip=1000, heldout_share=0.0, seed=0)
    feed._memory_bytes = 2**60  # nothing is kept in memory
    decord.logging.set_level(decord.logging.QUIET)
    chunks = [feed.chunk(step, range(4)) for step in range(max(1, min(clips, len(feed.train)) // 4))]
    pairs: list[tuple[float, float]] = []
    for round_number in range(ROUNDS + 1):
        for chunk in chunks:
            bare, ours = spent(partial(decord_alone, wanted(feed, chunk))), spent(partial(feed.load, chunk))
            if round_number:  # the first one warms up
                pairs.append((bare, ours))
    reading = sum(ours for _, ours in pairs) / ROUNDS

    def order() -> None:
        fresh = Order(feed.buckets, feed.batch, feed.seed)
        for step in range(len(chunks)):
            fresh.at(step)

    ratio = statistics.median(bare / ours for bare, ours in pairs)
    whole = sum(bare for bare, _ in pairs) / sum(ours for _, ours in pairs)
    print(
        f"live: {size}, {len(pairs)} pairs of four clips; decord alone over the feed: {ratio:.2f} (of all together {whole:.2f})"
    )
    print(f"order: {spent(order) / reading:.4f} of the time of reading")
    taken = [clip for chunk in chunks for clip in wanted(feed, chunk)]
    decoders = [
        spent(partial(decode_with_decord, mp4, indices)) / spent(partial(decode_with_pyav, mp4, indices))
        for mp4, indices in taken
    ]
    print(f"decoder: {len(decoders)} clips; decord over PyAV: {statistics.median(decoders):.2f}")


def wanted(feed: Feed, chunk: Chunk) -> list[tuple[bytes, list[int]]]:
    """The bytes of a chunk's clips and the frames that the feed takes of each."""
    found = []
    for number, epoch in chunk.clips:
        clip, size = feed.train[number], feed.sizes[chunk.bucket]
        draw = np.random.default_rng([feed._hash(clip.clip_id), epoch % feed.windows]).random()
        found.append((feed._mp4(clip), frame_indices(clip.fps, clip.n_frames, size.frames, feed.fps, draw)))
    return found


def decord_alone(clips: list[tuple[bytes, list[int]]]) -> None:
    """Frames by decord, one thread, at the clip's own size."""
    for mp4, indices in clips:
        decord.VideoReader(io.BytesIO(mp4), ctx=decord.cpu(0), num_threads=1).get_batch(indices).asnumpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=Path)
    parser.add_argument("--clips", type=int, default=256)
    parser.add_argument("--fps", type=float, default=8.0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    latents(2000)
    if options.shards is not None:
        live(options.shards, options.clips, options.fps)
        return
    with tempfile.TemporaryDirectory() as aside:
        mp4 = encode(square_frames((220, 30, 30), 120, 640, 360), fps=24)
        rows = [clip_row(f"c{i}", mp4, 120, "x", fps=24.0) | {"width_px": 640, "height_px": 360} for i in range(32)]
        live(write_shards(Path(aside) / "shards", rows), options.clips, options.fps)


if __name__ == "__main__":
    main()
