"""A run in a notebook: the tables of `curate.run.data`, the funnel, percentiles, captions, duplicates, search, frames, contact sheets."""

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
    """An opened run directory. `Run.open("runs/demo")`; all methods are read-only."""

    def clips(self, columns: Iterable[str] | None = None, where: str | None = None) -> pd.DataFrame:
        """The clips, one row each, as in `wide`; `where` is a condition, as in `run.clips(where="motion > 1 and camera = 'pan_left'")`."""
        return self.wide(columns=columns, where=where)

    def funnel(self, keep: Mapping[str, Mapping[str, Any]] | None = None) -> pd.DataFrame:
        """The clips that each rule of `keep` (`{"motion": {"above": "p25"}}`, default: the pipeline's) drops alone, and those left after it."""
        return view.funnel(self, keep)

    def percentiles(self, columns: Iterable[str] | None = None) -> pd.DataFrame:
        """A row for each measure: the number of clips with a value, and percentiles p0 to p100, as `above: p25` uses them."""
        return explore.percentiles(self, columns)

    def correlations(self, columns: Iterable[str] | None = None) -> pd.DataFrame:
        """Spearman's rank correlation of each pair of measures, [-1, 1]; constant measures are left out."""
        return explore.correlations(self, columns)

    def around(self, column: str, threshold: float | str, n: int = 4) -> pd.DataFrame:
        """The `n` clips on either side of a threshold (a number, or `p25`), ascending. Raises ConfigError for a column without numbers."""
        return explore.around(self, column, threshold, n)

    def captions(self, clip_ids: Iterable[str] | None = None) -> pd.DataFrame:
        """A row for each clip and captioner: `caption`, `words`, and `rank` (0 is best) and `flags` from annotate.CaptionCheck."""
        return explore.captions(self, clip_ids)

    def duplicates(self) -> pd.DataFrame:
        """The clips with duplicates, largest group first; the clip that `stays` leads its group. Includes the columns that chose it."""
        return explore.duplicates(self)

    def search(self, words: str | None = None, **how: Any) -> pd.DataFrame:
        """The kept clips most similar to a text, a clip or an image, best first; arguments as `curate.search.index.search`."""
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
        """A kept clip as a video player, from the shards. Raises UsageError when it is not in them."""
        return view.play(self, clip_id)
