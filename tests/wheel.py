"""Scans one small video with an installed wheel, without torch. `make wheel` runs it as `python -I`, in the environment of the wheel.

It imports nothing from the checkout. Exit code 1, with the reason, where the wheel is incomplete.
"""

import importlib.util
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import av
import numpy as np
import pyarrow.parquet as pq

PIPELINE = """\
run: run
sources: film.mp4
scan: {min_clip_s: 1.0, max_clip_s: 4.0}
measure:
  - use: filters.Motion
keep:
  motion: {above: 0.0}
shards: {mode: exact}
"""


def write_film(path: Path, seconds: float = 4.0, fps: int = 25) -> None:
    """A video of two shots: a bright field, then a dark one; a square moves through both."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = 320, 180, "yuv420p"
        n = int(seconds * fps)
        for i in range(n):
            frame_HWC = np.full((180, 320, 3), 200 if i < n // 2 else 40, np.uint8)
            left = 4 + 2 * i
            frame_HWC[60:120, left : left + 60] = (220, 60, 30)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame_HWC, format="rgb24")))
        container.mux(stream.encode())


def main() -> None:
    """Checks the environment, writes the video, runs the command."""
    import curate
    import rushes

    checkout = Path(__file__).resolve().parents[1]
    for module in (curate, rushes):
        where = Path(module.__file__ or "").resolve()
        if where.is_relative_to(checkout) and "site-packages" not in where.parts:
            sys.exit(f"{module.__name__} was imported from the checkout ({where}), not from the wheel")
    if importlib.util.find_spec("torch"):
        sys.exit("torch is installed here; the base install must work without it")
    command = Path(sysconfig.get_path("scripts")) / "rushes"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_film(folder / "film.mp4")
        (folder / "pipeline.yaml").write_text(PIPELINE)
        subprocess.run([command, "run", "pipeline.yaml"], cwd=folder, check=True)
        run = rushes.open(folder / "run")
        clips = run.clips()
        if len(clips) != 2:
            sys.exit(f"the scan found {len(clips)} clips; the video has 2 shots")
        written = sum(pq.ParquetFile(path).metadata.num_rows for path in (folder / "run" / "shards").glob("*.parquet"))
        if written != 2:
            sys.exit(f"the shards hold {written} clips of 2; see `rushes errors`")
    print(f"rushes {rushes.__version__}: 2 clips scanned, measured and written without torch")


if __name__ == "__main__":
    main()
