"""An axis of an ablation: a measure, the side of it that is good, and the rule that drops a share of the clips on the other side.

Levels are per cent of the clips with a value, 0 to below 100; thresholds are in the unit of the measure.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from curate.errors import UsageError

Bools = NDArray[np.bool_]
LESS_IS_MORE = {
    "text_area", "overlay_text", "scene_text", "still_text", "watermark", "source_watermark", "nsfw", "shake", "noise", "blockiness",
    "duplicate_similarity", "is_screen", "is_talking_head", "flicker", "train_loss",
}  # fmt: skip
"""Measures of which the highest are dropped, unless `--axes NAME:above` or the rule in `keep:` says otherwise."""


@dataclass(frozen=True)
class Axis:
    """A measure and the side that is good: `above` drops its lowest, `below` its highest."""

    name: str
    side: str

    @classmethod
    def parse(cls, text: str, keep: Mapping[str, Any]) -> "Axis":
        """`motion`, or `motion:below`. The side is the one that was typed, or that of the rule in `keep`, or the usual one."""
        name, colon, side = text.strip().partition(":")
        if colon and side not in ("above", "below"):
            raise UsageError(
                f"--axes {text}: after the colon stands 'above' (the lowest go) or 'below' (the highest go)"
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
        """The value at which `level` per cent of the known values lie on the bad side (linear interpolation, as in `keep:`)."""
        known = values[~np.isnan(values)]
        if not len(known):
            return float("nan")
        return float(np.percentile(known, level if self.side == "above" else 100 - level))

    def passes(self, values: NDArray[np.float64], threshold: float) -> Bools:
        """Which clips the rule at this threshold keeps; one without a value it does not keep."""
        with np.errstate(invalid="ignore"):
            kept: Bools = values >= threshold if self.side == "above" else values <= threshold
        return kept


def values_of(clips: pd.DataFrame, axis: Axis) -> NDArray[np.float64]:
    """The measure of every clip, NaN where there is none. Raises UsageError for what cannot be cut: no numbers, none known, one value alone."""
    column = clips[axis.name]
    if not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
        raise UsageError(f"--axes {axis.name}: it holds {column.dtype}, and only numbers can be cut by a percentage")
    values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    known = values[~np.isnan(values)]
    if not len(known):
        raise UsageError(f"--axes {axis.name}: none of the {len(values)} clips has a value")
    if known.min() == known.max():
        raise UsageError(f"--axes {axis.name}: all clips have the value {known[0]:g}, so there is nothing to cut")
    return values


def nulls_told(axis: Axis, values: NDArray[np.float64]) -> list[str]:
    """A sentence on clips without a value, where there are any."""
    n = int(np.isnan(values).sum())
    return (
        [f"{n} of {len(values)} clips have no {axis.name}: every level above 0 drops them, as a rule in keep: does"]
        if n
        else []
    )
