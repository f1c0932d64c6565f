"""A run as a notebook sees it: the tables of `curate.run.data`, the funnel, percentiles, captions, copies, search, frames, contact sheets."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from curate.dataset import explore, view
from curate.run.data import RunData
from curate.search import index

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from curate.dataset.view import Player, Sheet


class Run(RunData):
    """An opened run directory. `Run.open("runs/demo")`; every method reads, none writes."""

    def clips(self, columns: Iterable[str] | None = None, where: str | None = None) -> pd.DataFrame:
        """The clips, one row each, as `wide`; `where` says which, as in `run.clips(where="motion > 1 and camera = 'pan_left'")`."""
        return self.wide(columns=columns, where=where)

    def funnel(self, keep: Mapping[str, Mapping[str, Any]] | None = None) -> pd.DataFrame:
        """What each rule of `keep` (the pipeline's, or the one given: `{"motion": {"above": "p25"}}`) drops alone, and what is left after it."""
        return view.funnel(self, keep)

    def percentiles(self, columns: Iterable[str] | None = None) -> pd.DataFrame:
        """A row for each measure: clips with a value, and percentiles from p0 to p100; what `above: p25` comes to is its p25."""
        return explore.percentiles(self, columns)

    def correlations(self, columns: Iterable[str] | None = None) -> pd.DataFrame:
        """Spearman's rank correlation of every two measures, [-1, 1]; measures with one value alone are left out."""
        return explore.correlations(self, columns)

    def around(self, column: str, threshold: float | str, n: int = 4) -> pd.DataFrame:
        """The `n` clips on either side of a threshold (a number, or `p25`), ascending. Raises ConfigError for a column without numbers."""
        return explore.around(self, column, threshold, n)

    def captions(self, clip_ids: Iterable[str] | None = None) -> pd.DataFrame:
        """A row for each clip and captioner: `caption`, `words`, and by annotate.CaptionCheck `rank` (0 is best) and `flags`."""
        return explore.captions(self, clip_ids)

    def duplicates(self) -> pd.DataFrame:
        """The clips that have copies, the largest group first, each led by the one that `stays`; and what was compared to choose it."""
        return explore.duplicates(self)

    def search(self, words: str | None = None, **how: Any) -> pd.DataFrame:
        """The kept clips most similar to a text, a clip or a picture, best first; arguments as `curate.search.index.search`."""
        hits = index.search(self, words, **how)
        return pd.DataFrame(hits) if hits else pd.DataFrame(columns=index.columns(self, how.get("version")))

    def frames(self, clip_id: str) -> "NDArray[np.uint8]":
        """The thumbnails of a clip, (T, H, W, 3), RGB 0..255. Raises UsageError when there is no such clip."""
        return view.frames(self, clip_id)

    def show(
        self, clip_ids: Sequence[str], columns: Sequence[str] = ("caption",), notes: Sequence[str] = ()
    ) -> "Sheet":
        """A contact sheet: thumbnails of each clip under its note, its id and these columns. Raises UsageError when there is no such clip."""
        return view.show(self, clip_ids, columns, notes)

    def play(self, clip_id: str) -> "Player":
        """A kept clip, as it lies in the shards. Raises UsageError when it is not in them."""
        return view.play(self, clip_id)
