"""Duplicate: groups of clips that are copies of each other, and the best clip of each group.

`duplicate_group` is the id of the clip to keep: the best of its group, or the clip itself if it has no copy.
`duplicate_of` is the same id, but null for the clip to keep. `duplicate_similarity` is the similarity to the clip to
keep, from `similarity` up to 1 (1: the same content), and 0 for the clip to keep, so that the rule
`duplicate_similarity: {below: 0.5}` keeps one clip of each group. All three are null for a clip without a fingerprint.

Exact copies are found by `content_digest`, near copies by `filters.models.shot.similarity` of pairs. The pairs to
compare come from vector search (LanceDB), never from all pairs: for each clip the `candidates` nearest by the
fingerprint's vector, and as many by the clip's embedding (`openclip`, else `conse`) if the run has one. Above
`INDEX_FROM` clips the search uses an IVF index, whose training is random: only then two runs may
compare different pairs. The cost per clip is fixed: `candidates` comparisons of a fraction of a millisecond.

Groups are stars: every member was compared with the clip to keep and has at least `similarity` to it. A chain of copies of
copies whose ends are no longer similar is more than one group.

`similarity` 0.75, ours: weights and threshold were set on windows of eight real videos, against other windows of the same
video; on ten others (32 windows of 3 s, `benchmarks/filters_models.py`) the recall is 0.96 for copies that were encoded again,
halved in size, cropped by 5 %, watermarked, or played 10 % faster or slower, and 0.99 of the links are right. The form
of the measure was chosen with all videos in view. Known misses, on the first eight: a fifth of the re-timed
copies, all of fast motion (thumbnails half a second apart share nothing); low-contrast pictures under a
watermark of equal contrast; a fifth of copies with all changes at once.

N clips, D numbers of a vector.
"""

import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.clip import Clip
from filters.models.shot import CELLS, Shot, similarity

OWN: dict[str, Callable[[Clip], float]] = {
    "duration_s": lambda clip: clip.duration_s,
    "pixels": lambda clip: clip.width_px * clip.height_px,
}
"""Names that `best` accepts besides columns of earlier stages."""
INDEX_FROM = 20_000
QUERIES = 256
SHOTS = 50_000
"""Fingerprints cached for comparison, about 6 kB each."""
EMBEDDINGS = ("openclip", "conse")


def nearest_pairs(vectors_ND: NDArray[np.float32], most: int) -> NDArray[np.int64]:
    """Pairs (i, j), i < j, in which one is among the `most` nearest of the other; shape (pairs, 2), ascending."""
    count = len(vectors_ND)
    if count <= most + 1:
        return np.asarray(list(combinations(range(count), 2)), dtype=np.int64).reshape(-1, 2)
    import lancedb
    from lancedb.index import IvfFlat

    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors_ND.ravel(), pa.float32()), vectors_ND.shape[1])
    found = []
    with tempfile.TemporaryDirectory(prefix="rushes-duplicate-") as folder:
        table = lancedb.connect(folder).create_table("clips", pa.table({"row": np.arange(count), "vector": column}))
        if count > INDEX_FROM:
            table.create_index("vector", config=IvfFlat(distance_type="l2", num_partitions=int(count**0.5)))
        for start in range(0, count, QUERIES):
            query = table.search(list(vectors_ND[start : start + QUERIES]), vector_column_name="vector").limit(most + 1)
            answer = query.nprobes(20).select(["row", "_distance"]).to_arrow()
            a = start + answer["query_index"].to_numpy().astype(np.int64)
            b = answer["row"].to_numpy().astype(np.int64)
            low, high = np.minimum(a, b)[a != b], np.maximum(a, b)[a != b]
            found.append(np.unique(low * count + high))
    codes = np.unique(np.concatenate(found))
    return np.stack([codes // count, codes % count], axis=1)


def stars(
    order: Sequence[int],
    alike: Mapping[int, Mapping[int, float]],
    compare: Callable[[int, int], float],
    least: float,
) -> dict[int, tuple[int, float]]:
    """Groups around the best clip: member to (clip to keep, similarity to it).

    Args:
        order: All clips, the best first.
        alike: For each clip the clips known to have at least `least`, with their similarity.
        compare: Similarity of two clips.
        least: Minimum similarity of a member to the clip to keep.
    """
    found: dict[int, tuple[int, float]] = {}
    stays: set[int] = set()
    for best in order:
        if best in found:
            continue
        stays.add(best)
        asked, ahead = {best}, sorted(alike.get(best, ()))
        while ahead:  # also copies of copies, if they are similar to the best themselves
            member = ahead.pop()
            if member in asked:
                continue
            asked.add(member)
            if member not in found and member not in stays and (value := compare(best, member)) >= least:
                found[member] = (best, value)
                ahead += sorted(set(alike[member]) - asked)
    return found


@dataclass
class Duplicate:
    """Groups of copies: the id of the clip to keep, and the similarity of the others to it, from `similarity` to 1.

    Attributes:
        similarity: Minimum similarity of two copies, (0, 1].
        best: Which member to keep: the highest by the first of these that differs. Columns, products of columns, and
            `duration_s` and `pixels`; `-name` for the lowest. Columns that the run does not have are ignored.
        candidates: Number of nearest clips that each clip is compared with.
    """

    similarity: float = 0.75
    best: tuple[str, ...] = ("aesthetic*sharpness", "duration_s", "pixels")
    candidates: int = 32

    columns: ClassVar[dict[str, pa.DataType]] = {
        "duplicate_group": pa.string(),
        "duplicate_of": pa.string(),
        "duplicate_similarity": pa.float32(),
    }
    version: ClassVar[int] = 1
    whole: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the options."""
        if not 0 < self.similarity <= 1:
            raise ValueError(f"similarity of Duplicate is {self.similarity}; it must be above 0 and at most 1")
        if self.candidates < 1:
            raise ValueError(f"candidates of Duplicate is {self.candidates}; it must be at least 1")

    @property
    def reads(self) -> tuple[str, ...]:
        """The fingerprints, and if the run has them the embeddings and the columns in `best`."""
        named = dict.fromkeys(name for entry in self.best for name in _factors(entry) if name not in OWN)
        return ("content_digest", "fingerprint", "fingerprint_step_s", *(f"{name}?" for name in (*EMBEDDINGS, *named)))

    def setup(self) -> None:
        """Nothing to load."""

    def __call__(self, clips: list[Clip]) -> list[dict[str, Any]]:
        """One row per clip, from all clips of the run at once: `clip_id` and the three columns."""
        known = [clip for clip in clips if clip.columns.get("fingerprint")]
        ranked = sorted(known, key=lambda clip: clip.clip_id)
        for key in reversed(list(self._keys(ranked))):
            ranked.sort(key=key)
        whole = _exact(ranked)  # every clip to the best with the same content
        near = self._near([clip for clip in ranked if whole[clip.clip_id] is clip])
        rows: dict[str, dict[str, Any]] = {}
        for clip in ranked:
            stays, value = near.get(whole[clip.clip_id].clip_id, (whole[clip.clip_id].clip_id, 1.0))
            alone = stays == clip.clip_id
            rows[clip.clip_id] = {
                "duplicate_group": stays,
                "duplicate_of": None if alone else stays,
                "duplicate_similarity": 0.0 if alone else value,
            }
        empty = dict.fromkeys(self.columns)
        return [{"clip_id": clip.clip_id, **rows.get(clip.clip_id, empty)} for clip in clips]

    def _near(self, best_first: list[Clip]) -> dict[str, tuple[str, float]]:
        """Near copies among clips of different content: clip id to (id of the clip to keep, similarity)."""
        kept = sorted(best_first, key=lambda clip: clip.clip_id)
        shot = lru_cache(maxsize=SHOTS)(lambda i: _shot(kept[i]))
        alike: dict[int, dict[int, float]] = {}
        for a, b in self._pairs(kept, shot):
            if (value := min(1.0, similarity(shot(a), shot(b)))) >= self.similarity:
                alike.setdefault(a, {})[b] = value
                alike.setdefault(b, {})[a] = value

        def compare(a: int, b: int) -> float:
            known = alike.get(a, {}).get(b)
            return min(1.0, similarity(shot(min(a, b)), shot(max(a, b)))) if known is None else known

        place = {clip.clip_id: i for i, clip in enumerate(kept)}
        found = stars([place[clip.clip_id] for clip in best_first], alike, compare, self.similarity)
        return {kept[i].clip_id: (kept[best].clip_id, value) for i, (best, value) in found.items()}

    def _pairs(self, kept: list[Clip], shot: Callable[[int], Shot]) -> Iterable[tuple[int, int]]:
        """The pairs worth comparing, each once."""
        if not kept:
            return
        codes = [nearest_pairs(np.stack([shot(i).vector for i in range(len(kept))]), self.candidates)]
        for name in EMBEDDINGS:
            have = [i for i, clip in enumerate(kept) if clip.columns.get(name) is not None]
            if have:
                vectors = np.stack([np.asarray(kept[i].columns[name], dtype=np.float32) for i in have])
                codes.append(np.asarray(have, dtype=np.int64)[nearest_pairs(vectors, self.candidates)])
                break
        for a, b in np.unique(np.concatenate(codes), axis=0):
            yield int(a), int(b)

    def _keys(self, clips: list[Clip]) -> Iterator[Any]:
        """Sort keys in the order of `best`; a clip without a value sorts last."""
        for entry in self.best:
            sign = 1.0 if entry.startswith("-") else -1.0
            names = [n for n in _factors(entry) if n in OWN or any(c.columns.get(n) is not None for c in clips)]
            if names:

                def key(clip: Clip, names: list[str] = names, sign: float = sign) -> tuple[bool, float]:
                    values = [OWN[name](clip) if name in OWN else clip.columns.get(name) for name in names]
                    numbers = [float(value) for value in values if value is not None]
                    return len(numbers) < len(names), sign * math.prod(numbers)

                yield key


def _factors(entry: str) -> list[str]:
    return [name.strip() for name in entry.removeprefix("-").split("*")]


def _exact(best_first: list[Clip]) -> dict[str, Clip]:
    """Clip id to the best clip with the same content, which may be the clip itself."""
    by_digest: dict[str, Clip] = {}
    return {clip.clip_id: by_digest.setdefault(str(clip.columns["content_digest"]), clip) for clip in best_first}


def _shot(clip: Clip) -> Shot:
    grid_TP = np.frombuffer(clip.columns["fingerprint"], dtype=np.uint8).reshape(-1, CELLS)
    return Shot(grid_TP, float(clip.columns["fingerprint_step_s"]))
