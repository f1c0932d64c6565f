"""The report: one plain, self-contained page of a run: ledger, rules, histograms, errors, pictures of kept and dropped clips."""

import base64
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import jinja2
import numpy as np
import pandas as pd

from curate import status, store
from curate.run import Run

PICTURES = 24
"""Clips shown of the kept and of the dropped ones each. Ours."""
BINS = 40


def write(run: Run) -> str:
    """Writes `report/index.html` and returns its path."""
    wide, selection = run.wide(), run.selection()
    kept = set(selection.clip_ids)
    is_kept = wide["clip_id"].isin(kept)
    errors = list(status.failures(run))
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(files("curate").joinpath("report.html.j2").read_text(encoding="utf-8"))
    page = template.render(
        run=run.root,
        status=status.counts(run),
        selection=selection,
        ledger=run.ledger(),
        entries=run.ledger().entries(),
        histograms=[_histogram(wide, is_kept, name) for name in _measures(run, wide)],
        errors=errors[:200],
        n_errors=len(errors),
        walls=[("Kept", _cards(run, wide[is_kept])), ("Left out", _cards(run, wide[~is_kept]))],
        images=_pictures(run, [*_shown(wide[is_kept]), *_shown(wide[~is_kept])]),
    )
    store.put(path(run), page.encode())
    return path(run)


def path(run: Run) -> str:
    """Where the page lies."""
    return run.path("report", "index.html")


def _measures(run: Run, wide: pd.DataFrame) -> list[str]:
    names = [name for step in run.steps if step.kind in ("measure", "review") for name in step.columns]
    return ["duration_s", *(name for name in names if pd.api.types.is_numeric_dtype(wide[name]))]


def _histogram(wide: pd.DataFrame, is_kept: "pd.Series[bool]", name: str) -> dict[str, Any]:
    values = wide[name].to_numpy(dtype=float, na_value=np.nan)
    known = values[~np.isnan(values)]
    if not len(known):
        return {"name": name, "bars": [], "low": 0.0, "high": 0.0}
    low, high = known.min(), known.max()
    if high - low <= max(1e-9 * max(abs(low), abs(high)), 1e-300):  # all but one value: no room for bins between
        low, high = low - 0.5 * max(1.0, abs(low)), low + 0.5 * max(1.0, abs(low))
    counts, edges = np.histogram(known, bins=BINS, range=(low, high))
    of_kept, _ = np.histogram(values[is_kept.to_numpy() & ~np.isnan(values)], bins=edges)
    top = counts.max()
    bars = [{"all": 100 * int(a) / top, "kept": 100 * int(k) / top} for a, k in zip(counts, of_kept, strict=True)]
    return {"name": name, "bars": bars, "low": float(edges[0]), "high": float(edges[-1])}


def _shown(wide: pd.DataFrame) -> list[str]:
    """Ids spread evenly over the table, so that a page shows more than the first source."""
    step = max(1, len(wide) // PICTURES)
    ids: list[str] = wide["clip_id"].iloc[::step].head(PICTURES).tolist()
    return ids


def _cards(run: Run, wide: pd.DataFrame) -> list[dict[Any, Any]]:
    shown = wide[wide["clip_id"].isin(set(_shown(wide)))]
    measures = [name for step in run.steps if step.kind in ("measure", "review") for name in step.columns]
    cards = []
    for row in shown.to_dict("records"):
        scores = [(name, row[name]) for name in measures if isinstance(row[name], float) and row[name] == row[name]]
        said = row.get("caption")
        cards.append(
            {
                **row,
                "scores": scores,
                "caption": said if isinstance(said, str) else None,
                "error": row["error"] if isinstance(row["error"], str) else None,
            }
        )
    return cards


def _pictures(run: Run, clip_ids: Sequence[str]) -> dict[str, str]:
    """The middle thumbnail of each clip as a data URL."""
    found = {}
    for clip_id, jpegs in run.thumbnails(set(clip_ids)):
        found[clip_id] = "data:image/jpeg;base64," + base64.b64encode(jpegs[len(jpegs) // 2]).decode()
    return found
