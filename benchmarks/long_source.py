"""A three-hour source in windows: two workers give the same clips as one, and memory does not grow with the length.

    python benchmarks/long_source.py [VIDEO] [--hours 3]

VIDEO (the project's reel_a.mp4 by default) is looped to that length without re-encoding, then scanned by `rushes run` with one worker and
with two. Prints whether the clips are equal (every value, thumbnails by sha256), the peak memory of the decoder processes, and the
wall time of two workers over that of one.
"""

import argparse
import hashlib
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pandas as pd
import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from curate.dataset.run import Run
from tests.videos import loop

PIPELINE = """\
run: run
sources: long.mp4
scan: {{workers: {workers}}}
keep: {{n_frames: {{above: 1000000}}}} # the scan alone: no clip is kept, no shard written
"""


def scan(folder: Path, workers: int) -> tuple[pd.DataFrame, float, float]:
    """The clips table, the peak resident memory of a decoder process in MB, and the wall time in seconds."""
    (folder / "pipeline.yaml").write_text(PIPELINE.format(workers=workers))
    began = time.monotonic()
    run = folder / f"run{workers}"
    command = [sys.executable, "-c", "from curate.cli import main; main()", "run", "--run", str(run)]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL) as child:
        peak = _peak_mb(child)
    if child.returncode:
        raise SystemExit(f"rushes run ended with {child.returncode}")
    table = Run.open(run).clips_table.read().to_pandas()
    table["thumbs"] = table["thumbs"].map(
        lambda jpegs: None if jpegs is None else hashlib.sha256(b"".join(jpegs)).hexdigest()
    )
    table["thumb_times_s"] = table["thumb_times_s"].map(lambda times: None if times is None else tuple(times))
    return table.sort_values(["start_s", "end_s"], ignore_index=True), peak, time.monotonic() - began


def _peak_mb(child: subprocess.Popen[bytes]) -> float:
    peak, done = 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.25):
            for process in psutil.process_iter(["cmdline", "memory_info"]):
                if "curate.sandbox.child" in " ".join(process.info["cmdline"] or []):
                    peak = max(peak, process.info["memory_info"].rss / 2**20)

    watcher = threading.Thread(target=watch)
    watcher.start()
    child.wait()
    done.set()
    watcher.join()
    return peak


def main() -> None:
    """Prints the results."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = ROOT.parent / "shared" / "footage" / "reel_a.mp4"
    ask.add_argument("video", nargs="?", type=Path, default=shared)
    ask.add_argument("--hours", type=float, default=3.0)
    given = ask.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        loop(given.video, folder / "long.mp4", 3600 * given.hours)
        one, peak_1, wall_1 = scan(folder, 1)
        two, peak_2, wall_2 = scan(folder, 2)
    print(f"{given.hours:g} h, {one['window'].nunique()} windows, {one['skip'].isna().sum()} clips")
    same = one.equals(two)
    print(f"two workers give the clips of one: {'yes' if same else 'NO'}")
    print(f"peak memory of a decoder process: {peak_1:.0f} MB alone, {peak_2:.0f} MB beside another")
    print(f"wall time of two workers over one: {wall_2 / wall_1:.2f}")
    if not same:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
