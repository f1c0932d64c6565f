"""An axis of an ablation: a measure, its good side, and the rule that drops a share of the clips on the other side.

Levels are per cent of the clips with a value, 0 to below 100. Thresholds are in the unit of the measure.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from curate.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

Bools = NDArray[np.bool_]
LESS_IS_MORE = {
    "text_area", "overlay_text", "scene_text", "still_text", "watermark", "source_watermark", "nsfw", "shake", "noise", "blockiness",
    "duplicate_similarity", "is_screen", "is_talking_head", "flicker", "train_loss",
}  # fmt: skip
"""Measures whose highest values are dropped, unless `--axes NAME:above` or the rule in `keep:` says otherwise."""


@dataclass(frozen=True)
class Axis:
    """A measure and its good side: `above` drops the lowest values, `below` the highest."""

    name: str
    side: str

    @classmethod
    def parse(cls, text: str, keep: Mapping[str, Any]) -> "Axis":
        """An axis from `motion` or `motion:below`. Without a side it has the side of its rule in `keep`, or else the default one."""
        name, colon, side = text.strip().partition(":")
        if colon and side not in ("above", "below"):
            raise UsageError(
                f"--axes {text}: after the colon write 'above' (drops the lowest values) or 'below' (drops the highest)"
            )
        if not name:
            raise UsageError("--axes: a name is missing, as in  --axes motion,text_area:below")
        rule = keep.get(name)
        if not side and rule is not None:
            side = "above" if rule.above is not None else "below" if rule.below is not None else ""
        if not side:
            side = "below" if name in LESS_IS_MORE else "above"
        return cls(name, side)

    def threshold(self, values: NDArray[np.float64], level: float) -> float:
        """The value with `level` per cent of the known values on its bad side (linear interpolation, as in `keep:`)."""
        known = values[~np.isnan(values)]
        if not len(known):
            return float("nan")
        return float(np.percentile(known, level if self.side == "above" else 100 - level))

    def passes(self, values: NDArray[np.float64], threshold: float) -> Bools:
        """Which clips the rule at this threshold keeps. It drops clips without a value."""
        with np.errstate(invalid="ignore"):
            kept: Bools = values >= threshold if self.side == "above" else values <= threshold
        return kept


def values_of(clips: "pd.DataFrame", axis: Axis) -> NDArray[np.float64]:
    """The measure of each clip, NaN for null. Raises UsageError for a column that is not numeric, all null or constant."""
    from pandas.api import types

    column = clips[axis.name]
    if not types.is_numeric_dtype(column) or types.is_bool_dtype(column):
        raise UsageError(f"--axes {axis.name}: its type is {column.dtype}; a percentage can be cut only from numbers")
    values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    known = values[~np.isnan(values)]
    if not len(known):
        raise UsageError(f"--axes {axis.name}: none of the {len(values)} clips has a value")
    if known.min() == known.max():
        raise UsageError(f"--axes {axis.name}: all clips have the value {known[0]:g}, so no level drops a part of them")
    return values


def notes_on_nulls(axis: Axis, values: NDArray[np.float64]) -> list[str]:
    """A note when some clips have no value."""
    n = int(np.isnan(values).sum())
    return (
        [f"{n} of {len(values)} clips have no {axis.name}: every level above 0 drops them, as a rule in keep: does"]
        if n
        else []
    )
