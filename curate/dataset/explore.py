"""Small DataFrames computed from the tables of a run: percentiles, correlations, clips around a threshold, captions, duplicates.

`Run` has a method for each. Like the thresholds of `keep:`, all use only the clips without an `error`.
"""

from collections.abc import Iterable
from pathlib import PurePosixPath

import numpy as np
import pandas as pd
import pyarrow as pa
from pydantic import ValidationError

from curate.config.config import Rule
from curate.errors import ConfigError, UsageError, nearest
from curate.run.data import RunData, arrow_types
from curate.run.select import resolve

PERCENTILES = (0, 5, 10, 25, 50, 75, 90, 95, 100)
OWN = ("duration_s", "pixels")
"""Values that a stage may rank duplicates by, in addition to columns of the run."""


def percentiles(run: RunData, columns: Iterable[str] | None = None) -> pd.DataFrame:
    """See `Run.percentiles`."""
    good = _numbers(run, columns)
    rows = {}
    for name in good.columns:
        known = good[name].dropna()
        values = np.percentile(known, PERCENTILES) if len(known) else np.full(len(PERCENTILES), np.nan)
        rows[name] = [len(known), *values]
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=["clips", *(f"p{at}" for at in PERCENTILES)])
    return frame.rename_axis("measure")


def correlations(run: RunData, columns: Iterable[str] | None = None) -> pd.DataFrame:
    """See `Run.correlations`."""
    good = _numbers(run, columns)
    varied = [name for name in good.columns if good[name].nunique() > 1]
    return good[varied].corr(method="spearman", min_periods=3)


def around(run: RunData, column: str, threshold: float | str, n: int = 4) -> pd.DataFrame:
    """See `Run.around`; `side` is below or above, and `.attrs["threshold"]` is the threshold as a number."""
    _check_numbers(run, [column])
    try:
        rule = Rule(above=threshold)
    except ValidationError as error:
        raise ConfigError(f"threshold {threshold!r}: {error.errors()[0]['msg']}") from error
    wide = run.wide(columns=[column])
    limit = float(resolve(wide, rule, column)["above"])
    known = wide[wide["error"].isna() & wide[column].notna()].astype({column: float})
    known = known.sort_values([column, "clip_id"]).assign(file=known["uri"].map(_name))
    known["side"] = np.where(known[column] >= limit, "above", "below")
    nearest_ones = [known[known["side"] == "below"].tail(n), known[known["side"] == "above"].head(n)]
    frame = pd.concat(nearest_ones)[["clip_id", "file", "start_s", "end_s", column, "side"]].reset_index(drop=True)
    frame.attrs["threshold"] = limit
    return frame


def captions(run: RunData, clip_ids: Iterable[str] | None = None) -> pd.DataFrame:
    """See `Run.captions`."""
    named = {
        step.spec.name: step.names["caption"]
        for step in run.steps
        if step.kind == "caption" and "caption" in step.names
    }
    if not named:
        raise UsageError(
            f"{run.root} has no captioner; put one under caption: in the pipeline file, see docs/captions.md"
        )
    ranks = {name: f"caption_rank_{name}" for name in named}
    wide = run.wide(columns=[*named.values(), *ranks.values(), "caption_flags"])
    if clip_ids is not None:
        wanted = list(clip_ids)
        if lacking := set(wanted) - set(wide["clip_id"]):
            raise UsageError(f"there is no clip '{min(lacking)}' in {run.root}")
        wide = wide.set_index("clip_id").loc[wanted].reset_index()
    wide = wide[wide[list(named.values())].notna().any(axis=1)].reindex(
        columns=["clip_id", "uri", *named.values(), *ranks.values(), "caption_flags"]
    )
    rows = []
    for clip in wide.to_dict("records"):
        for name, column in named.items():
            words = clip[column] if isinstance(clip[column], str) else None
            flags = [flag for flag in str(clip["caption_flags"] or "").split() if flag.startswith(f"{name}:")]
            own_flags = " ".join(flag.removeprefix(f"{name}:") for flag in flags)
            values = (words, len((words or "").split()), clip[ranks[name]], own_flags)
            rows.append((clip["clip_id"], _name(str(clip["uri"])), name, *values))
    frame = pd.DataFrame(rows, columns=["clip_id", "file", "captioner", "caption", "words", "rank", "flags"])
    return frame.astype({"rank": float})


def duplicates(run: RunData) -> pd.DataFrame:
    """See `Run.duplicates`."""
    step = next((step for step in run.steps if "duplicate_group" in step.columns), None)
    if step is None:
        raise UsageError(
            f"{run.root} has no duplicate detection; put filters.Fingerprint and filters.Duplicate under measure:"
        )
    types = arrow_types(run)
    entries = {entry: [name.strip() for name in entry.removeprefix("-").split("*")] for entry in _best(step.stage)}
    compared = {entry: [name for name in names if name in types or name in OWN] for entry, names in entries.items()}
    factors = {name for names in compared.values() for name in names}
    wide = run.wide(columns=["duplicate_group", "duplicate_of", "duplicate_similarity", *factors])
    wide = wide[wide["error"].isna() & wide["duplicate_group"].notna()]
    wide["pixels"] = wide["width_px"] * wide["height_px"]
    wide["size"] = wide.groupby("duplicate_group")["clip_id"].transform("size")
    wide["stays"] = wide["clip_id"] == wide["duplicate_group"]
    wide["file"] = wide["uri"].map(_name)
    for names in compared.values():
        if len(names) > 1:
            wide["*".join(names)] = wide[names].prod(axis=1, skipna=False)
    by = dict.fromkeys("*".join(names) for names in compared.values() if names)
    found = wide[wide["size"] > 1].sort_values(
        ["size", "duplicate_group", "stays", "duplicate_similarity"], ascending=[False, True, False, False]
    )
    columns = ["duplicate_group", "clip_id", "file", "start_s", "end_s", "stays", "duplicate_similarity"]
    return found[[*columns, *by]].reset_index(drop=True)


def _best(stage: object) -> tuple[str, ...]:
    """The values by which a stage chooses the best duplicate, in order of priority."""
    return tuple(getattr(stage, "best", ()))


def _numbers(run: RunData, columns: Iterable[str] | None) -> pd.DataFrame:
    """Numeric columns of the clips without an error; all measures and `duration_s` by default."""
    names = _measured(run) if columns is None else list(columns)
    _check_numbers(run, names)
    wide = run.wide(columns=names)
    return wide.loc[wide["error"].isna(), names].astype(float)


def _measured(run: RunData) -> list[str]:
    types = arrow_types(run)
    measured = [name for step in run.steps if step.kind in ("measure", "review") for name in step.columns]
    return ["duration_s", *(name for name in measured if _is_number(types[name]))]


def _check_numbers(run: RunData, names: Iterable[str]) -> None:
    """Raises ConfigError for a column that does not exist or is not numeric."""
    types = arrow_types(run)
    for name in names:
        if name not in types:
            raise ConfigError(f"there is no column '{name}'{nearest(name, _measured(run))}")
        if not _is_number(types[name]):
            raise ConfigError(f"'{name}' holds {types[name]}, not numbers")


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _name(uri: str) -> str:
    return PurePosixPath(uri).name
