"""TrainLoss: training loss of a clip, as measured by a training that used it.

`rushes train` writes the mean loss of every clip to `clip_losses.parquet` in its folder. This stage joins it to the run, to
inspect the worst and the never-learned clips and to exclude them from the next shards:

    measure:
      - {use: filters.TrainLoss, weights: "dir:runs/demo/train/tiny/clip_losses.parquet"}
    keep:
      never_learned: {is: false}

A clip that the training did not use has null losses and `never_learned` false; a rule on `train_loss` itself would drop it.
`train_hooks/metrics.py` defines the mean. That high losses separate bad captions and broken clips from good ones is our assumption; it has
not been measured on a large set.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from curate.clip import Clip


@dataclass
class TrainLoss:
    """Training loss of a clip [0, inf), in total and by noise level, and its gain (-inf, 1].

    Attributes:
        weights: Address of a training's `clip_losses.parquet`.
        fewest_draws: Minimum draws of a clip that can be `never_learned`. Ours.
    """

    weights: str = ""
    fewest_draws: int = 8
    columns: ClassVar = {
        "train_loss": pa.float32(),
        "train_loss_0": pa.float32(),
        "train_loss_1": pa.float32(),
        "train_loss_2": pa.float32(),
        "train_loss_3": pa.float32(),
        "train_loss_draws": pa.int32(),
        "train_gain": pa.float32(),
        "never_learned": pa.bool_(),
    }

    def check(self) -> None:
        """Raises ValueError if `weights` is not set."""
        if not self.weights:
            raise ValueError(
                "weights of TrainLoss is not set; name a training, such as dir:runs/demo/train/tiny/clip_losses.parquet"
            )

    def setup(self) -> None:
        """Reads the losses. Raises ValueError if the file cannot be read or is another table."""
        try:
            table = pq.ParquetFile(self.weights).read()
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{self.weights} cannot be read: {str(error).splitlines()[0]}") from None
        lacking = [
            name for name in ("clip_id", *self.columns) if name not in table.column_names and name != "never_learned"
        ]
        if lacking:
            raise ValueError(
                f"{self.weights} is not the clip_losses.parquet of a training: it has no column {lacking[0]}"
            )
        self._rows = {row["clip_id"]: row for row in table.to_pylist()}

    def __call__(self, clips: list[Clip]) -> list[dict[str, Any]]:
        """One row per clip: `clip_id` and the columns. Raises RuntimeError when called before `setup`."""
        if not hasattr(self, "_rows"):
            raise RuntimeError("call setup() before TrainLoss is called")
        return [{"clip_id": clip.clip_id, **self._of(clip.clip_id)} for clip in clips]

    def _of(self, clip_id: str) -> dict[str, Any]:
        row = self._rows.get(clip_id)
        if row is None:
            return {**dict.fromkeys(self.columns), "never_learned": False}
        known = row["train_loss_draws"] >= self.fewest_draws and row["train_gain"] is not None
        return {name: row[name] for name in self.columns if name != "never_learned"} | {
            "never_learned": bool(known and row["train_gain"] <= 0)
        }
