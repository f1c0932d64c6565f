"""The report of a synthetic run of 200,000 clips: how long it takes to write, how much memory, and how quick its page is in Chromium.

    python -m benchmarks.report [--clips 200000] [--keep-run FOLDER]

Thumbnails are real JPEGs of 640 x 360 pixels, two to a clip; scores are drawn from fixed distributions. Wanted: written in 120 s and 2 GiB,
usable in 3 s, and while a threshold is dragged 30 pictures per second. Printed are shares of what is wanted: below 1 is met (frames: above 1).
"""

import argparse
import resource
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa

from curate.config import pipeline_file
from curate.config.config import Rule
from curate.dataset.run import Run
from curate.report import write as report
from curate.run.select import select
from curate.scan import scan, sources
from curate.tables import store
from tests.page import chromium

PIPELINE = """\
run: run
sources: footage
measure:
  - use: filters.Motion
  - use: filters.CameraMotion
  - use: filters.Static
  - use: filters.Quality
  - use: filters.TextArea
caption:
  - {use: tests.stages.Repeats, text: people}
keep:
  motion: {above: p25}
  text_area: {below: 0.07}
  sharpness: {above: p10}
  still_frames: {below: 0.5}
  is_slideshow: {is: false}
"""
PER_SOURCE, PER_PART, SECONDS = 100, 1000, 3.0
WRITE_S, MEMORY_GB, USABLE_S, FRAMES = 120.0, 2.0, 3.0, 30.0


def thumbnails(n: int = 16) -> list[bytes]:
    """JPEGs of 640 x 360 px as heavy as those of ordinary footage (about 30 kB)."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(n):
        picture = sum(
            cv2.resize(rng.integers(0, 255, (size, size * 2, 3)).astype(np.float32), (640, 360)) / (i + 1)
            for i, size in enumerate((4, 16, 24))
        )
        picture = cv2.normalize(picture, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
        found.append(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())
    return found


def make_run(folder: Path, n: int) -> Run:
    """A finished run of `n` clips, without shards, written straight into its tables."""
    (folder / "pipeline.yaml").write_text(PIPELINE)
    pipeline = pipeline_file.load(folder / "pipeline.yaml")
    run = Run(str(folder / "run"), pipeline)
    run_pipeline = {"pipeline": dict(pipeline.resolved), "directory": str(folder), "home": str(folder)}
    store.put_json(run.path("pipeline.json"), run_pipeline)
    for name, table in run.tables().items():
        table.begin(run.claims[name])
    n_sources = n // PER_SOURCE
    facts = {
        "uri": [f"/footage/{i:06d}.mp4" for i in range(n_sources)],
        "source_id": [f"{i:020x}" for i in range(n_sources)],
    }
    run.sources_table.put(
        "part-0.parquet", filled(sources.SCHEMA, n_sources, facts | {"duration_s": [PER_SOURCE * SECONDS] * n_sources})
    )
    rng, jpegs = np.random.default_rng(1), thumbnails()
    for first in range(0, n, PER_PART):
        some = np.arange(first, min(first + PER_PART, n))
        ids = [f"{int(i) * 0x9E3779B97F4A7C15 % 2**80:020x}" for i in some]
        at = some % PER_SOURCE * SECONDS
        spans = {
            "clip_id": ids, "source_id": [f"{i // PER_SOURCE:020x}" for i in some], "window": np.zeros(len(some), np.int32),
            "start_s": at, "end_s": at + SECONDS, "fps": np.full(len(some), 25.0), "n_frames": np.full(len(some), 75, np.int32),
            "thumbs": [[jpegs[i % 16], jpegs[(i + 1) % 16]] for i in some], "start_kind": ["hard"] * len(some),
        }  # fmt: skip
        part = f"part-{first:08d}.parquet"
        run.clips_table.put(part, filled(scan.SCHEMA, len(some), spans))
        for step in run.steps:
            values = {
                field.name: drawn(field, rng, len(some)) for field in step.table.schema if field.name in step.columns
            }
            step.table.put(part, filled(step.table.schema, len(some), values | {"clip_id": ids}))
    return run


def drawn(field: pa.Field, rng: np.random.Generator, n: int) -> list[object] | np.ndarray:
    """Values of a column: skewed numbers, rare flags, few words, sentences."""
    kind = field.type
    if pa.types.is_floating(kind):
        return rng.gamma(2.0, 0.4, n).astype(np.float32)
    if pa.types.is_boolean(kind):
        return (rng.random(n) < 0.05).tolist()
    if pa.types.is_string(kind):
        if field.name.startswith("caption"):
            return [
                f"A clip in which thing number {i} moves past thing number {i % 977}, seen from the side."
                for i in rng.integers(0, 10**6, n)
            ]
        return rng.choice(["static", "pan_left", "pan_right", "zoom_in", "mixed"], n).tolist()
    return [None] * n


def filled(schema: pa.Schema, n: int, values: dict[str, object]) -> pa.Table:
    """A table of this schema; columns that are not given are null."""
    return pa.table(
        {f.name: pa.array(values[f.name], f.type) if f.name in values else pa.nulls(n, f.type) for f in schema},
        schema=schema,
    )


DRAG = """async () => {
  const handle = document.querySelector("[data-name=motion] .handle.above");
  const box = handle.parentElement.getBoundingClientRect(), share = (i) => 0.1 + 0.5 * (i / 90);
  const frames = [];
  const event = (kind, at) => handle.dispatchEvent(new PointerEvent(kind, {bubbles: true, pointerId: 1, clientX: box.left + at * box.width}));
  handle.setPointerCapture = () => {}; handle.hasPointerCapture = () => true;
  event("pointerdown", 0);
  await new Promise((done) => {
    let i = 0, last = performance.now();
    const step = (now) => {
      frames.push(now - last);
      last = now;
      event("pointermove", share(i));
      i += 1;
      if (i <= 90) requestAnimationFrame(step); else done();
    };
    requestAnimationFrame(step);
  });
  return frames.slice(1);
}"""


def main() -> None:
    """Makes the run, writes the report, opens the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=200_000)
    parser.add_argument("--keep-run", type=Path, help="make the run here and leave it")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep_run or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        run = (
            Run.open(folder / "run")
            if (folder / "run" / "pipeline.json").exists()
            else make_run(folder, arguments.clips)
        )
        began = time.monotonic()
        page = report.write(run)
        took_s, memory_gb = time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        began = time.monotonic()
        report.write(run)
        again = (time.monotonic() - began) / took_s
        size_gb = sum(file.stat().st_size for file in Path(page).parent.rglob("*") if file.is_file()) / 2**30
        shares = took_s / WRITE_S, memory_gb / MEMORY_GB, size_gb / MEMORY_GB
        print("written: {:.2f} of the time wanted, {:.2f} of the memory, {:.2f} of 2 GiB on the disk".format(*shares))
        print(f"written again, pictures there: {again:.2f} of the first time")
        with chromium() as browser:
            opened = browser.new_page()
            began = time.monotonic()
            opened.goto(Path(page).as_uri())
            opened.wait_for_selector("html[data-ready]", timeout=120_000)
            usable_s = time.monotonic() - began
            opened.locator("[data-name=motion]").scroll_into_view_if_needed()
            opened.wait_for_selector("[data-name=motion] .handle")
            opened.wait_for_timeout(1000)
            frames = opened.evaluate(DRAG)
            rule = opened.evaluate("keep.find((rule) => rule.column === 'motion').above")
            kept = opened.evaluate("selection.kept")
        ours = select(
            run.wide(columns=list(run.pipeline.config.keep)),
            run.pipeline.config.keep | {"motion": Rule(above=rule)},
        )
        print(f"page usable: {usable_s / USABLE_S:.2f} of the time wanted")
        middle, slow = statistics.median(frames), sorted(frames)[int(0.9 * len(frames))]
        print(
            f"dragging: {1000 / middle / FRAMES:.2f} of the frames wanted (median), {1000 / slow / FRAMES:.2f} (slowest tenth)"
        )
        print(f"after dragging to {rule}: the page keeps {kept}, curate.select {len(ours.clip_ids)}")


if __name__ == "__main__":
    main()
