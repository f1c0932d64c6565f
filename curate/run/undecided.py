"""Clips that `keep:` cannot decide yet, because a measure or a caption that a rule reads is still pending.

A finished run has none. In the middle of a run a missing value is not a failed rule: such a clip is neither kept nor dropped.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from curate.run.data import RunData
from curate.run.select import passing


@dataclass(frozen=True)
class Undecided:
    """Undecided clips and their seconds; `as_kept` are those that `select` counts as kept until their values exist."""

    clips: int = 0
    as_kept: int = 0
    seconds: float = 0.0
    as_kept_s: float = 0.0


def undecided(run: RunData) -> Undecided:
    """The clips without an error that no decided rule drops and at least one undecided rule reads.

    A rule is undecided for a clip without a row in the rule's table; a rule with a percentile, for every clip as long as any row is missing.
    """
    keep = run.pipeline.config.keep
    tables = {column: step.table for step in run.steps for column in step.columns}
    wide = run.scored(keep)
    ids = pa.array(wide["clip_id"].tolist(), pa.string())
    good = wide["error"].isna().to_numpy()
    waits = np.zeros(len(wide), bool)
    dropped = np.zeros(len(wide), bool)
    kept = good.copy()
    for column, rule in keep.items():
        passes = passing(wide, column, rule)
        kept &= passes
        missing = np.zeros(len(wide), bool)
        if column in tables:
            missing = np.isin(wide["clip_id"].to_numpy(), tables[column].lacking(ids).to_numpy(zero_copy_only=False))
            if missing.any() and any(isinstance(bound, str) for bound in (rule.above, rule.below)):
                missing[:] = True
        waits |= missing
        dropped |= ~passes & ~missing
    chosen = good & waits & ~dropped
    seconds = (wide["end_s"] - wide["start_s"]).to_numpy(dtype=float)
    return Undecided(
        int(chosen.sum()), int((chosen & kept).sum()), float(seconds[chosen].sum()), float(seconds[chosen & kept].sum())
    )
