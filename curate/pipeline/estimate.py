"""The estimated cost of a whole run: the pipeline is run on a sample, and its costs are scaled up.

The sample is whole windows of the footage, drawn by a hash of their names. It passes through every step in a directory inside the run
directory, so that workers of a cluster can reach it, and is then deleted. Measured: seconds and tokens per row of each step. The number of
rows of the whole run follows from the seconds of all sources (from a sample of their headers), the clips per second of footage, and the share
of clips that `keep:` keeps. The cost of steps that read video (scan, shards) is scaled by pixels in place of rows.

Not modelled: a cluster that provides fewer workers than asked for, and footage that differs from the sample.
"""

import hashlib
import math
from dataclasses import dataclass, field
from typing import Any

from curate.cluster import runner
from curate.cluster.pool import Resources
from curate.errors import UsageError
from curate.pipeline import execute as pipeline
from curate.pipeline import plan as planning
from curate.progress.cost import Prices, Spent
from curate.progress.progress import Progress
from curate.run.data import RunData
from curate.run.windows import all_windows
from curate.scan import sources
from curate.shards import write as shards
from curate.stages import stage
from curate.tables import store

HEADERS = 64
"""Number of sources whose headers are read to estimate the seconds of footage. Ours."""


@dataclass(frozen=True)
class Line:
    """The estimate of one step, or of one stage of a shared pass (`part_of`; then its part of the time)."""

    name: str
    rows: int
    rows_per_s: float
    """For one worker."""
    workers: int
    prompt_tokens: float
    output_tokens: float
    tokens_per_s: float
    """Prompt and output tokens, for one worker."""
    wall_s: float
    money: float
    part_of: str | None = None


@dataclass
class Estimate:
    """The whole run."""

    sources: int
    footage_s: float
    sampled_s: float
    lines: list[Line] = field(default_factory=list)

    @property
    def wall_s(self) -> float:
        """Wall-clock seconds, one step after the other."""
        return sum(line.wall_s for line in self.lines if line.part_of is None)

    @property
    def money(self) -> float:
        """In the currency of the prices."""
        return sum(line.money for line in self.lines if line.part_of is None)


def estimate(run: RunData, sample_s: float, prices: Prices, progress: Progress) -> Estimate:
    """Runs the pipeline on about `sample_s` seconds of footage and scales the costs up.

    Raises UsageError for what would stop a run before it starts, and when the sample has no clip.
    """
    listed = sources.discover(run.pipeline.config.sources, run.pipeline.home)
    pipeline.check_weights(run)
    pipeline.check_stages(run)
    sample = RunData(run.path("estimate"), run.pipeline)
    store.remove(sample.root)
    drawn_from = dict(sorted(listed.items(), key=lambda item: _hash(item[0])))
    try:
        with progress.over(sample.walk()):
            return _walk(sample, drawn_from, sample_s, prices, progress)
    finally:
        store.remove(sample.root)


def _walk(sample: RunData, listed: dict[str, Any], sample_s: float, prices: Prices, progress: Progress) -> Estimate:
    """Runs every step on the sample. `listed` is in the order of sampling."""
    for name, table in sample.tables().items():
        table.begin(sample.claims[name])
    looked_at = dict(list(listed.items())[:HEADERS])
    pipeline.probe(sample, looked_at, progress)
    known = sample.sources()
    footage_s = float(known["duration_s"].fillna(0).sum()) / len(looked_at) * len(listed)
    pixels_per_s = known["width_px"] * known["height_px"] * known["fps"]
    pixels = float((pixels_per_s * known["duration_s"]).sum()) / len(looked_at) * len(listed)
    drawn = draw_windows(sample, sample_s)
    pipeline.split(sample, progress, drawn)
    sampled_s = sum(drawn.values())
    clips = len(sample.clip_ids())
    if not clips:
        raise UsageError(
            f"the sample of {sampled_s:.0f} s of footage has no clip; use a larger --sample-s, or see  rushes errors  after a run"
        )
    pipeline.measure(sample, progress)
    captioned = len(sample.selection(("measure",)).clip_ids)
    pipeline.caption(sample, progress)
    pipeline.review(sample, progress)
    selection = sample.selection()
    kept = selection.clip_ids
    shards.write(sample, selection, progress)
    pipeline.embed(sample, progress)

    grown = footage_s / sampled_s
    by_source = dict(zip(known["source_id"], pixels_per_s, strict=True))
    grown_pixels = pixels / sum(seconds * by_source[source_id] for (source_id, _), seconds in drawn.items())
    made = Estimate(len(listed), footage_s, sampled_s)
    config = sample.pipeline.config
    limits = Resources(config.scan.workers)
    writers = Resources(config.shards.workers)
    rows = {"measure": clips, "caption": captioned, "review": captioned, "embed": len(kept)}
    kinds = {step.spec.name: step.kind for step in sample.steps}
    for name, spent in progress.spent.items():
        if not spent.rows:
            continue
        first = name.split(", ")[0]
        if name == "sources":
            line = _line(name, spent, len(listed), planning.FILES_PER_PROBE, limits, prices)
        elif name == "clips":
            together = math.ceil(planning.SECONDS_PER_UNIT * spent.rows / sampled_s)
            line = _line(name, spent, math.ceil(spent.rows * grown), together, limits, prices, grown_pixels)
        elif name == "shards":
            together = math.ceil(config.shards.target_mb * 2**20 * len(kept) / (sample.index() or {})["bytes"])
            line = _line(name, spent, round(len(kept) * grown), together, writers, prices, grown_pixels)
        else:
            spec = next(step.spec for step in sample.steps if step.spec.name == first)
            resources = Resources(spec.workers, spec.cpus, spec.gpus, spec.memory_gb)
            batch = spec.batch_size or stage.BATCH_SIZE
            line = _line(name, spent, round(rows[kinds[first]] * grown), batch, resources, prices)
        made.lines += _with_parts(line, spent)
    return made


def _line(
    name: str,
    spent: Spent,
    rows: int,
    rows_per_unit: int,
    resources: Resources,
    prices: Prices,
    grown: float | None = None,
) -> Line:
    """The estimate of one step. `grown`: factor from the sample to the whole run, where it is not the ratio of rows."""
    workers = runner.workers_for(resources, math.ceil(rows / max(rows_per_unit, 1)))
    busy_s = spent.busy_s * (grown or rows / spent.rows)
    prompt, output = (count / spent.rows * rows for count in (spent.prompt_tokens, spent.output_tokens))
    start_s = max(
        0.0, spent.wall_s - spent.busy_s / runner.workers_for(resources, spent.units)
    )  # Ray, imports, weights
    wall_s = start_s + busy_s / workers
    money = prices.of(wall_s * workers * resources.gpus, prompt, output)
    per_s = spent.rows / spent.busy_s if spent.busy_s else math.inf
    return Line(name, rows, per_s, workers, prompt, output, per_s * spent.tokens / spent.rows, wall_s, money)


def _with_parts(line: Line, spent: Spent) -> list[Line]:
    """The line of a pass, followed by one line for each of its stages where it has several; the rest of its time is reading thumbnails."""
    if len(spent.stages) < 2:
        return [line]
    whole = Line(f"{len(spent.stages)} stages in one pass", *list(vars(line).values())[1:])
    parts = []
    for name, busy_s in sorted(spent.stages.items(), key=lambda item: -item[1]):
        per_s = spent.rows / busy_s if busy_s else math.inf
        wall_s = busy_s / spent.rows * line.rows / line.workers
        parts.append(Line(name, line.rows, per_s, line.workers, 0.0, 0.0, 0.0, wall_s, 0.0, whole.name))
    return [whole, *parts]


def draw_windows(run: RunData, sample_s: float) -> dict[tuple[str, int], float]:
    """`(source_id, window)` to seconds, drawn by a hash of both until they hold `sample_s` seconds."""
    drawn: dict[tuple[str, int], float] = {}
    window_s = run.pipeline.config.scan.window_s
    for window in sorted(all_windows(run), key=lambda w: _hash(f"{w['source_id']} {w['window']}")):
        if sum(drawn.values()) >= sample_s:
            break
        rest_s = (window["duration_s"] or window_s) - window["window"] * window_s
        is_last = window["window"] == window["last_window"]
        drawn[window["source_id"], window["window"]] = rest_s if is_last else window_s
    return drawn


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
