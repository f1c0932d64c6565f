"""The ledger of all input seconds: kept, dropped (by which rule), too short, cut away in a transition, cut off at keyframes
(unaligned), failed.

The entries sum to 100 %, or the run fails. The total is computed from the files' headers and decoded durations, the entries from the clips
table and the selection. Both are computed independently, so that a lost, duplicate or overlapping span shows as a difference.
"""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from curate.errors import RunError
from curate.run.select import Selection

TOLERANCE_S = 0.05
"""Maximum gap or overlap between consecutive spans of a source, in seconds. Ours."""


@dataclass
class Ledger:
    """Seconds of input. `total_s` counts each content once; duplicates are listed beside it."""

    total_s: float = 0.0
    kept_s: float = 0.0
    dropped_s: float = 0.0
    too_short_s: float = 0.0
    transition_s: float = 0.0
    unaligned_s: float = 0.0
    failed_s: float = 0.0
    duplicate_s: float = 0.0
    dropped_by_s: dict[str, float] = field(default_factory=dict)
    unknown_length_files: int = 0
    """Number of files that could not be opened and whose duration is unknown."""

    @property
    def accounted_s(self) -> float:
        """The sum of all entries."""
        lost_s = self.too_short_s + self.transition_s + self.unaligned_s + self.failed_s
        return self.kept_s + self.dropped_s + lost_s

    def entries(self) -> list[tuple[str, float]]:
        """All entries with their display names, in the order of the funnel; `unaligned` only when it is not zero."""
        rules = [(f"dropped: {rule}", seconds) for rule, seconds in self.dropped_by_s.items()]
        lost = [("too short", self.too_short_s), ("transitions", self.transition_s), ("failed", self.failed_s)]
        if self.unaligned_s:
            lost.insert(2, ("unaligned", self.unaligned_s))
        return [("kept", self.kept_s), *rules, *lost]

    @property
    def accounted_share(self) -> float:
        """The share of the total that the entries account for; 1.0 when the ledger balances."""
        return self.accounted_s / self.total_s if self.total_s else 1.0

    def check(self) -> None:
        """Raises RunError when the entries do not sum to the total (to a millionth, or a millisecond)."""
        if not math.isclose(self.accounted_s, self.total_s, rel_tol=1e-6, abs_tol=1e-3):
            raise RunError(
                f"the ledger does not add up: {self.total_s:.3f} s of input, {self.accounted_s:.3f} s accounted for; "
                f"this is a bug in rushes, please report it"
            )

    def as_dict(self) -> dict[str, Any]:
        """The ledger as JSON values."""
        return {**asdict(self), "accounted_share": round(self.accounted_share, 9)}


def balance(sources: pd.DataFrame, spans: pd.DataFrame, selection: Selection, unwritten_s: float = 0.0) -> Ledger:
    """Computes the ledger.

    Args:
        sources: the sources with `duplicate_of`.
        spans: all rows of the clips table without thumbnails: `source_id, start_s, end_s, skip, error`.
        selection: the kept clips and what each rule drops.
        unwritten_s: seconds of selected clips that could not be written into the shards (they count as failed, not kept).

    Raises RunError when a source has no spans, or its spans have a gap or an overlap.
    """
    ledger = Ledger()
    _check_tiling(spans)
    lengths = spans.assign(length_s=spans["end_s"] - spans["start_s"])
    good = lengths[lengths["error"].isna()].groupby("source_id", observed=True)["length_s"].sum()
    scanned = set(lengths["source_id"].unique())
    broken = set(lengths.loc[lengths["error"].notna(), "source_id"])
    for source in sources.to_dict("records"):
        header_s = float(source["duration_s"]) if pd.notna(source["duration_s"]) else 0.0
        if source["error"] is not None and pd.notna(source["error"]):
            ledger.total_s += header_s
            ledger.failed_s += header_s
            ledger.unknown_length_files += header_s == 0.0
        elif pd.notna(source["duplicate_of"]):
            ledger.duplicate_s += header_s
        else:
            if source["source_id"] not in scanned:
                raise RunError(f"{source['uri']} was never scanned; this is a bug in rushes, please report it")
            decoded_s = float(good.get(source["source_id"], 0.0))
            total_s = max(header_s, decoded_s) if source["source_id"] in broken else decoded_s
            ledger.total_s += total_s
            ledger.failed_s += total_s - decoded_s
    skipped = lengths[lengths["skip"].notna()].groupby("skip", observed=True)["length_s"].sum()
    ledger.too_short_s = float(skipped.get("too_short", 0.0))
    ledger.transition_s = float(skipped.get("transition", 0.0))
    ledger.unaligned_s = float(skipped.get("unaligned", 0.0))
    ledger.failed_s += selection.failed_s + unwritten_s
    ledger.kept_s = selection.kept_s - unwritten_s
    ledger.dropped_by_s = {drop.rule: drop.in_order_s for drop in selection.drops}
    ledger.dropped_s = sum(ledger.dropped_by_s.values())
    return ledger


def _check_tiling(spans: pd.DataFrame) -> None:
    """Checks that each span of a source starts where the spans before it end, except next to failed spans."""
    ordered = spans.sort_values(["source_id", "start_s", "end_s"], ignore_index=True)
    ordered = ordered.astype({"start_s": float, "end_s": float})
    source = ordered["source_id"]
    same = (source == source.shift()).to_numpy()
    previous_end_s = ordered.groupby("source_id", observed=True)["end_s"].cummax().shift()
    failed = ordered["error"].notna()
    judged = same & ~failed.to_numpy() & ~failed.shift(fill_value=False).to_numpy()
    off_s = (ordered["start_s"] - previous_end_s).to_numpy()
    for row in np.flatnonzero(judged & (np.abs(off_s) > TOLERANCE_S))[:1]:
        what = "a gap" if off_s[row] > 0 else "an overlap"
        raise RunError(
            f"the spans of source {source[row]} have {what} at {previous_end_s[row]:.3f} s; this is a bug in rushes, please report it"
        )
