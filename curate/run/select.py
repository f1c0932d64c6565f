"""Which clips are kept: a function of the tables and `keep:`, worked out anew in milliseconds whenever either changes.

Bounds are inclusive. A percentile such as `p25` is taken over the clips of this run that have a value (linear interpolation), before any rule
is applied. A clip without a value for a rule (null) fails that rule; a clip on which a stage failed is not dropped but failed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from curate.config.config import Rule
from curate.errors import ConfigError, nearest


@dataclass(frozen=True)
class Drop:
    """What one rule takes away: alone, and in order (of what the rules before it left)."""

    rule: str
    alone_clips: int
    alone_s: float
    in_order_clips: int
    in_order_s: float


@dataclass(frozen=True)
class Selection:
    """The kept clips and how they came to be."""

    clip_ids: list[str]
    kept_s: float
    total_clips: int
    total_s: float
    failed_clips: int
    failed_s: float
    drops: list[Drop] = field(default_factory=list)
    thresholds: Mapping[str, Any] = field(default_factory=dict)
    """What each percentile came to in this run."""
    remarks: list[str] = field(default_factory=list)
    """A sentence for each percentile that drops no clip because many share the value at it."""


def describe(name: str, rule: Rule) -> str:
    """A rule as one reads it: `motion >= p25`."""
    parts = []
    if rule.above is not None:
        parts.append(f"{name} >= {_number(rule.above)}")
    if rule.below is not None:
        parts.append(f"{name} <= {_number(rule.below)}")
    if rule.is_ is not None:
        parts.append(f"{name} is {' or '.join(map(str, rule.is_)) if isinstance(rule.is_, list) else rule.is_}")
    return " and ".join(parts)


def select(wide: pd.DataFrame, keep: Mapping[str, Rule]) -> Selection:
    """Applies `keep` to the wide view (one row per clip: `clip_id, start_s, end_s, error` and the measures).

    Raises ConfigError for a column that the wide view does not have, or a rule that does not fit its type.
    """
    seconds = (wide["end_s"] - wide["start_s"]).to_numpy(dtype=float)
    good = wide["error"].isna().to_numpy(copy=True)
    left = good.copy()
    drops: list[Drop] = []
    thresholds: dict[str, Any] = {}
    remarks: list[str] = []
    for name, rule in keep.items():
        if name not in wide.columns:
            raise ConfigError(f"keep: there is no column '{name}'{nearest(name, wide.columns)}")
        passes, found = _passes(wide[name], rule, good)
        thresholds.update(found)
        remarks += _tied(wide[name], name, rule, found, good)
        alone, in_order = good & ~passes, left & ~passes
        drops.append(
            Drop(
                describe(name, rule),
                int(alone.sum()),
                float(seconds[alone].sum()),
                int(in_order.sum()),
                float(seconds[in_order].sum()),
            )
        )
        left &= passes
    return Selection(
        clip_ids=wide["clip_id"][left].tolist(),
        kept_s=float(seconds[left].sum()),
        total_clips=len(wide),
        total_s=float(seconds.sum()),
        failed_clips=int((~good).sum()),
        failed_s=float(seconds[~good].sum()),
        drops=drops,
        thresholds=thresholds,
        remarks=remarks,
    )


def _tied(
    column: pd.Series, name: str, rule: Rule, thresholds: Mapping[str, float], good: np.ndarray[Any, Any]
) -> list[str]:
    """A sentence for each percentile of a rule that every clip passes because many share the value at it."""
    found = []
    for bound, sign in ((rule.above, -1), (rule.below, 1)):
        if not isinstance(bound, str) or bound in ("p0", "p100"):
            continue
        limit = thresholds[f"{name} {bound}"]
        values = column.to_numpy(dtype=float, na_value=np.nan)[good]
        known = values[~np.isnan(values)]
        tied = int((known == limit).sum())
        if tied > 1 and not (sign * (known - limit) > 0).any():
            found.append(
                f"{name} {bound} drops no clip: {tied} of {len(known)} clips share the value {limit:.6g} at that percentile"
            )
    return found


def passing(wide: pd.DataFrame, column: str, rule: Rule) -> np.ndarray[Any, Any]:
    """Which rows one rule lets pass, as `select` applies it."""
    return _passes(wide[column], rule, wide["error"].isna().to_numpy())[0]


def resolve(wide: pd.DataFrame, rule: Rule, column: str) -> dict[str, Any]:
    """A rule as plain values, each percentile the number that it comes to in this run."""
    good = wide["error"].isna().to_numpy()
    _, found = _passes(wide[column], rule, good)
    values = rule.model_dump(by_alias=True, exclude_none=True)
    return {key: found.get(f"{column} {value}", value) for key, value in values.items()}


def _passes(column: pd.Series, rule: Rule, good: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], dict[str, float]]:
    passes = column.notna().to_numpy(copy=True)
    thresholds: dict[str, float] = {}
    if rule.above is not None or rule.below is not None:
        if not (pd.api.types.is_numeric_dtype(column) or column.isna().all()):
            raise ConfigError(
                f"keep: {column.name} holds {column.dtype}, not numbers; use `is:` instead of above or below"
            )
        values = column.to_numpy(dtype=float, na_value=np.nan)
        known = values[good & ~np.isnan(values)]
        for bound, compare in ((rule.above, np.greater_equal), (rule.below, np.less_equal)):
            if isinstance(bound, str):
                limit = float(np.percentile(known, float(bound[1:]))) if len(known) else float("nan")
                thresholds[f"{column.name} {bound}"] = limit
            elif bound is not None:
                limit = float(bound)
            else:
                continue
            with np.errstate(invalid="ignore"):
                passes &= compare(values, limit)
    if rule.is_ is not None:
        allowed = rule.is_ if isinstance(rule.is_, list) else [rule.is_]
        passes &= column.isin(allowed).to_numpy()
    return passes, thresholds


def _number(bound: float | str) -> str:
    return bound if isinstance(bound, str) else f"{bound:g}"
