"""Wrong frames of plain decord on awkward files, and the cost of frames at given times by decord and by PyAV.

    python benchmarks/random_access.py [VIDEO]

Plain decord reads all frames of the awkward files of tests/awkward.py, backwards and seven at a time; the number drawn into each frame is
compared with PyAV's. Then `curate.video.open` reads 20 frames of VIDEO (the project's reel_a.mp4 by default): CPU seconds
(`resource.getrusage`) of decord over PyAV's, the median of pairs.
"""

import argparse
import resource
import statistics
import sys
import tempfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from curate.sandbox.sandbox import Sandbox, SandboxError
from curate.video.open import Decoder, Reader, VideoError, open_video
from tests.awkward import AWKWARD, make_all
from tests.videos import read_number

PAIRS = 7


def alone(path: str) -> str:
    """The verdict on one file; runs in the sandbox, because decord may crash or hang."""
    import decord

    numbers = []
    try:
        with Reader(path) as reader:
            numbers.extend(read_number(frame.rgb()) for frame in reader)
    except VideoError:
        pass  # what decodes before the damage is what is compared
    try:
        video = decord.VideoReader(path, num_threads=1)
        if len(video) < len(numbers[::-7]):
            return "fails"
        asked = range(len(numbers))[::-7]
        given = [read_number(video[i].asnumpy()) for i in asked]
    except (decord.DECORDError, RuntimeError, IndexError):
        return "fails"
    return "the pictures asked for" if given == [numbers[i] for i in asked] else "other pictures, and no error"


def cpu_s(path: str, decoder: Decoder, times_s: list[float]) -> float:
    """CPU seconds of this process for reading the frames."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    with open_video(path, decoder) as video:
        video.frames_at(times_s)
    after = resource.getrusage(resource.RUSAGE_SELF)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> None:
    """Prints the results."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = ROOT.parent / "shared" / "footage" / "reel_a.mp4"
    ask.add_argument("video", nargs="?", type=Path, default=shared)
    given = ask.parse_args()
    counts: dict[bool, Counter[str]] = {False: Counter(), True: Counter()}
    with tempfile.TemporaryDirectory() as name, Sandbox(memory_mb=1500) as sandbox:
        files = make_all(Path(name))
        for one in AWKWARD:
            if one.refused:
                continue
            try:
                counts[bool(one.error)][sandbox.call(alone, str(files[one.name]), wall_s=20)] += 1
            except SandboxError:
                counts[bool(one.error)]["crashes, hangs or eats memory"] += 1
    for damaged, counted in counts.items():
        print(f"decord left alone, {counted.total()} {'damaged' if damaged else 'sound'} files:")
        for what, n in counted.most_common():
            print(f"  {n:3d} {what}")
    with open_video(str(given.video), "pyav") as video:
        every = video.frame_times()
    times_s = every[:: max(1, len(every) // 20)][:20]
    pairs = [
        cpu_s(str(given.video), "decord", times_s) / cpu_s(str(given.video), "pyav", times_s) for _ in range(PAIRS)
    ]
    print(f"CPU of 20 pictures, decord over PyAV: {statistics.median(pairs):.2f}")


if __name__ == "__main__":
    import random_access  # the sandbox imports `alone` by the name of its module

    random_access.main()
