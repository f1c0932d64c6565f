from dataclasses import replace

import numpy as np
import pytest

from filters import Duplicate, Fingerprint
from filters.duplicate import nearest_pairs, stars
from tests.filters import copies


@pytest.fixture(scope="module")
def run(make_clip):
    """Four rooms with two takes each; all copies of the first take of every room; ids are room, take, kind."""
    fingerprint = Fingerprint()
    clips = []
    for room in range(4):
        for take in range(2):
            frames = copies.scene(take, room=room)
            kinds = {"original": copies.thumbnails, **(copies.KINDS if take == 0 else {})}
            clips += [make_clip(of(frames), clip_id=f"{room}-{take}-{name}") for name, of in kinds.items()]
    return [with_columns(clip, row) for clip, row in zip(clips, fingerprint(clips), strict=True)]


def with_columns(clip, row, **more):
    columns = {**clip.columns, **{name: value for name, value in row.items() if name != "clip_id"}, **more}
    return replace(clip, jpegs=(), columns=columns)


def rows_of(clips, **options):
    stage = Duplicate(**options)
    stage.setup()
    return {row["clip_id"]: row for row in stage(clips)}


def test_copies_are_grouped_and_takes_of_one_scene_are_not(run):
    rows = rows_of(run)
    groups = {row["duplicate_group"] for row in rows.values()}
    assert len(groups) == 8
    for clip_id, row in rows.items():
        assert row["duplicate_group"][:3] == clip_id[:3]
        stays = row["duplicate_group"] == clip_id
        assert row["duplicate_of"] == (None if stays else row["duplicate_group"])
        assert row["duplicate_similarity"] == 0.0 if stays else 0.75 <= row["duplicate_similarity"] <= 1


def test_vector_search_finds_the_same_pairs_as_exhaustive_comparison(run):
    assert rows_of(run, candidates=12) == rows_of(run, candidates=1000)


def test_exact_copies_are_found_by_content(run):
    first = run[0]
    again = replace(first, clip_id="9-exact")
    row = rows_of([first, again], similarity=1.0)["9-exact"]
    assert row == {
        "clip_id": "9-exact",
        "duplicate_group": first.clip_id,
        "duplicate_of": first.clip_id,
        "duplicate_similarity": 1.0,
    }


@pytest.mark.parametrize(
    ("best", "stays"),
    [
        (("aesthetic*sharpness",), "0-0-cropped"),
        (("aesthetic",), "0-0-marked"),
        (("-aesthetic",), "0-0-cropped"),
        (("missing", "pixels"), "0-0-original"),
        (("-pixels",), "0-0-all"),
        ((), "0-0-all"),
    ],
    ids=["product", "one_column", "lowest_first", "column_not_there", "smallest", "by_id"],
)
def test_best_clip_is_kept_not_the_first(run, best, stays):
    scores = {"0-0-marked": (6.0, 1.0), "0-0-cropped": (4.0, 9.0), "0-0-encoded": (None, 100.0)}
    clips = []
    for clip in run:
        if clip.clip_id.startswith("0-0"):
            aesthetic, sharpness = scores.get(clip.clip_id, (5.0, 1.0))
            pixels = {"0-0-all": 100, "0-0-original": 900}.get(clip.clip_id, 400)
            sized = replace(clip, width_px=pixels, height_px=1)
            clips.append(with_columns(sized, {}, aesthetic=aesthetic, sharpness=sharpness))
    assert {row["duplicate_group"] for row in rows_of(clips, best=best).values()} == {stays}


def test_reads_follow_best():
    assert Duplicate(best=("-blockiness*motion", "pixels")).reads == (
        "content_digest", "fingerprint", "fingerprint_step_s", "openclip?", "conse?", "blockiness?", "motion?",
    )  # fmt: skip


def test_groups_do_not_depend_on_the_order_of_clips(run):
    shuffled = [run[i] for i in np.random.default_rng(0).permutation(len(run))]
    assert rows_of(run) == rows_of(shuffled)
    assert [row["clip_id"] for row in Duplicate()(shuffled)] == [clip.clip_id for clip in shuffled]


def test_embeddings_add_candidates(run, monkeypatch):
    """With one candidate by fingerprint, a copy can be missed that its embedding finds."""
    seen = []
    stage = Duplicate(candidates=1)
    real = nearest_pairs
    monkeypatch.setattr("filters.duplicate.nearest_pairs", lambda *given: seen.append(given[0].shape) or real(*given))
    vectors = np.random.default_rng(1).normal(size=(len(run), 16)).astype(np.float32)
    some = [with_columns(clip, {}, openclip=None if i == 3 else vectors[i].tolist()) for i, clip in enumerate(run)]
    assert len(stage(some)) == len(run)
    assert seen == [(len(run), 128), (len(run) - 1, 16)]


def test_clip_without_a_fingerprint_has_nulls_and_no_clips_give_no_rows(run):
    bare = replace(run[0], clip_id="bare", columns={"fingerprint": None, "content_digest": None})
    rows = rows_of([bare, run[1]])
    assert rows["bare"] == {
        "clip_id": "bare",
        "duplicate_group": None,
        "duplicate_of": None,
        "duplicate_similarity": None,
    }
    assert rows[run[1].clip_id]["duplicate_of"] is None
    assert Duplicate()([]) == []


@pytest.mark.parametrize("count", [0, 1, 2, 50, 300])
def test_nearest_pairs_equal_a_full_search(count):
    vectors = np.random.default_rng(count).normal(size=(count, 8)).astype(np.float32)
    pairs = nearest_pairs(vectors, 4)
    assert (pairs[:, 0] < pairs[:, 1]).all()
    assert len(np.unique(pairs, axis=0)) == len(pairs)
    if count > 2:
        gaps = np.linalg.norm(vectors[:, None] - vectors[None], axis=-1)
        wanted = {(min(i, j), max(i, j)) for i in range(count) for j in np.argsort(gaps[i])[1:5].tolist()}
        assert {tuple(pair) for pair in pairs.tolist()} == wanted


def test_chain_with_different_ends_is_more_than_one_group():
    alike = {0: {1: 0.9}, 1: {0: 0.9, 2: 0.9}, 2: {1: 0.9}}
    ends = {(0, 1): 0.9, (1, 2): 0.9, (0, 2): 0.5}
    found = stars([0, 2, 1], alike, lambda a, b: ends[min(a, b), max(a, b)], 0.8)
    assert found == {1: (0, 0.9)}
    ends[0, 2] = 0.85
    assert stars([0, 2, 1], alike, lambda a, b: ends[min(a, b), max(a, b)], 0.8) == {1: (0, 0.9), 2: (0, 0.85)}


@pytest.mark.parametrize(
    ("options", "message"),
    [({"similarity": 0}, "similarity of Duplicate is 0"), ({"candidates": 0}, "candidates of Duplicate is 0")],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Duplicate(**options)
