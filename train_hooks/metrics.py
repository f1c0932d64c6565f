"""Metrics of a training: a row for every step in `metrics.parquet`, TensorBoard's files, and the loss of every clip.

| column | what it is |
|---|---|
| `step`, `stage`, `loss`, `lr` | of every step; a skipped step has a null loss |
| `loss_0` ... `loss_3` | mean loss of the last log steps, of the clips whose noise level was in that quarter (0: least noise) |
| `norm_spatial`, `norm_temporal` | gradient norm of the weights that came with the base, and of the new ones |
| `samples_per_s`, `tflops`, `mfu` | of all ranks; TFLOP/s of a forward and a backward pass without recomputing; its share of the card's peak |
| `wait_share` | share of the time spent waiting for samples |
| `memory_gb` | the most that was allocated on the GPU; of the process, without one |
| `epoch` | how often each clip was seen |
| `heldout_loss`, `temporal_share` | of the loss grid: mean loss; the share of the temporal layers in what they hand on |
| `colour_drift` | of a sample sheet: largest difference of a channel's mean to the trained clips', 0..1 |
| `clipsim`, `fvd` | of a sample sheet, where weights for them were given |
"""

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

METRICS, CLIP_LOSSES = "metrics.parquet", "clip_losses.parquet"
LEVELS = 4  # ranges of noise levels that are reported separately; ours
COLUMNS = (
    "lr", *(f"loss_{i}" for i in range(LEVELS)), "norm_spatial", "norm_temporal", "samples_per_s", "tflops", "mfu", "wait_share", "memory_gb",
    "epoch", "heldout_loss", "temporal_share", "colour_drift", "clipsim", "fvd",
)  # fmt: skip
SCHEMA = pa.schema(
    [("step", pa.int64()), ("stage", pa.string()), ("loss", pa.float64()), *((name, pa.float64()) for name in COLUMNS)]
)
CLIPS = pa.schema(
    [
        ("clip_id", pa.string()), ("train_loss", pa.float64()), ("train_loss_draws", pa.int32()), ("train_gain", pa.float64()),
        *((f"train_loss_{i}", pa.float64()) for i in range(LEVELS)),
    ]
)  # fmt: skip


class Metrics:
    """The rows of a training; `losses` has one entry for every step, None where it was skipped."""

    def __init__(self, board: Path | None = None) -> None:
        self.losses: list[float | None] = []
        self._stages: list[str] = []
        self._more: dict[int, dict[str, float]] = {}
        self._board = _board(board) if board is not None else None

    def step(self, stage: str, loss: float | None, lr: float) -> None:
        """Adds a step."""
        self.losses.append(loss)
        self._stages.append(stage)
        self.log(len(self.losses), {"lr": lr})

    def log(self, step: int, values: Mapping[str, float | None]) -> None:
        """Adds values to the row of a step, counted from 1."""
        known = {key: float(value) for key, value in values.items() if value is not None}
        self._more.setdefault(step, {}).update(known)
        if self._board is not None:
            if step == len(self.losses) and self.losses and self.losses[-1] is not None and "lr" in known:
                self._board.add_scalar("loss", self.losses[-1], step)
            for key, value in known.items():
                self._board.add_scalar(key, value, step)

    def table(self) -> pa.Table:
        """All rows."""
        rows = [
            {"step": i, "stage": stage, "loss": loss, **self._more.get(i, {})}
            for i, (stage, loss) in enumerate(zip(self._stages, self.losses, strict=True), start=1)
        ]
        return pa.Table.from_pylist(rows, schema=SCHEMA)

    def restore(self, table: bytes) -> None:
        """Goes on from the rows of a checkpoint."""
        for row in pq.ParquetFile(pa.BufferReader(table)).read().to_pylist():
            self.losses.append(row["loss"])
            self._stages.append(row["stage"])
            self._more[row["step"]] = {k: row[k] for k in COLUMNS if row[k] is not None}

    def flush(self) -> None:
        """Puts TensorBoard's files on the disk."""
        if self._board is not None:
            self._board.flush()


class ClipLosses:
    """The mean loss of every clip, by noise level and by half of the training: what is hard and what never was learned stand out."""

    def __init__(self) -> None:
        self._sums: dict[str, list[float]] = {}
        """Of each clip: losses of the first half by level, their number, and the same of the second half."""

    def add(self, clip_id: str, level: float, loss: float, late: bool) -> None:
        """One draw: noise level in 0..1, its loss, and whether it came in the second half of the training."""
        sums = self._sums.setdefault(clip_id, [0.0] * (4 * LEVELS))
        part = min(int(level * LEVELS), LEVELS - 1) + (2 * LEVELS if late else 0)
        sums[part] += loss
        sums[LEVELS + part] += 1

    def table(self) -> pa.Table:
        """A row for every clip.

        `train_loss` is the mean of its levels' means, so that high noise levels do not make a clip look hard. `train_gain` is what the
        second half has less than the first, as a share, over the levels that both have: 0 or less where nothing was learned.
        """
        rows = []
        for clip_id, sums in sorted(self._sums.items()):
            early, late = _means(sums[: 2 * LEVELS]), _means(sums[2 * LEVELS :])
            means = _means([a + b for a, b in zip(sums[: 2 * LEVELS], sums[2 * LEVELS :], strict=True)])
            known = [mean for mean in means if mean is not None]
            both = [(a, b) for a, b in zip(early, late, strict=True) if a is not None and b is not None]
            before, after = sum(a for a, _ in both), sum(b for _, b in both)
            row = {
                "clip_id": clip_id,
                "train_loss": sum(known) / len(known),
                "train_loss_draws": int(sum(sums[LEVELS : 2 * LEVELS]) + sum(sums[3 * LEVELS :])),
                "train_gain": 1 - after / before if before else None,
            }
            rows.append(row | {f"train_loss_{i}": mean for i, mean in enumerate(means)})
        return pa.Table.from_pylist(rows, schema=CLIPS)

    def state(self) -> bytes:
        """For a checkpoint."""
        columns = {"clip_id": list(self._sums), "sums": list(self._sums.values())}
        return as_parquet(
            pa.table(columns, schema=pa.schema([("clip_id", pa.string()), ("sums", pa.list_(pa.float64()))]))
        )

    def restore(self, state: bytes) -> None:
        """Goes on from a checkpoint."""
        for row in pq.ParquetFile(pa.BufferReader(state)).read().to_pylist():
            self._sums[row["clip_id"]] = row["sums"]


def _means(sums: list[float]) -> list[float | None]:
    return [total / n if n else None for total, n in zip(sums[:LEVELS], sums[LEVELS:], strict=True)]


def level_means(levels: Iterable[float], losses: Iterable[float]) -> dict[str, float]:
    """Mean loss of each quarter of the noise levels, as `loss_0` and so on; a quarter without draws is left out."""
    sums: dict[str, list[float]] = {}
    for level, loss in zip(levels, losses, strict=True):
        sums.setdefault(f"loss_{min(int(level * LEVELS), LEVELS - 1)}", []).append(loss)
    return {key: sum(values) / len(values) for key, values in sums.items()}


def as_parquet(table: pa.Table) -> bytes:
    """The bytes of a Parquet file."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def _board(folder: Path) -> Any:
    """TensorBoard's writer, or None where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder))
