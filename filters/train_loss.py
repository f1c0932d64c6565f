"""TrainLoss: how hard a clip was to learn, as a training that used it measured it.

`rushes train` writes the mean loss of every clip into `clip_losses.parquet` of its folder. This stage brings it back to the run, so that the
worst and the never-learned clips can be looked at, and left out of the next shards:

    measure:
      - {use: filters.TrainLoss, weights: "dir:runs/demo/train/tiny/clip_losses.parquet"}
    keep:
      never_learned: {is: false}

A clip that the training did not use has null losses, and is not `never_learned`: a rule on `train_loss` itself would drop it. How the losses
are averaged stands in `train_hooks/metrics.py`. That they tell bad captions and broken clips from good ones is our guess: it has not been
measured on a large set.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from curate.clip import Clip


@dataclass
class TrainLoss:
    """Loss of a clip in a training, [0, inf), and its gain, (-inf, 1].

    Attributes:
        weights: The address of a training's `clip_losses.parquet`.
        fewest_draws: With fewer draws than this a clip is never called `never_learned`. Ours.
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
        """Raises ValueError where no training is named."""
        if not self.weights:
            raise ValueError("weights: name the training, as in  dir:runs/demo/train/tiny/clip_losses.parquet")

    def setup(self) -> None:
        """Reads the losses. Raises ValueError when the file holds none."""
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
        """One row for each clip. Raises RuntimeError when called before `setup`."""
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
