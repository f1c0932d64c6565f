from dataclasses import replace

import cv2
import numpy as np
import pytest

from curate.clip import ThumbnailError
from filters import Fingerprint
from filters.fingerprint import grid_of
from filters.models.shot import CELLS, Shot, alignments, similarity
from tests.filters import copies


@pytest.fixture(scope="module")
def scene():
    """Frames of a static camera, 20 a second, with two moving objects; each seed is another take."""
    return copies.scene


def shot(frames, step_s=0.5):
    return Shot(grid_of(np.stack(frames)), step_s)


@pytest.mark.parametrize("kind", list(copies.KINDS))
def test_copy_is_separated_from_another_take_of_the_same_scene(scene, kind):
    original, other = scene(1), scene(2)
    copy = copies.KINDS[kind](original)
    first = shot(copies.thumbnails(original))
    assert similarity(first, shot(copy)) > 0.74
    assert similarity(shot(copies.thumbnails(other)), shot(copy)) < 0.6


def test_shot_equals_itself(scene):
    same = shot(copies.thumbnails(scene(1)))
    assert similarity(same, same) == pytest.approx(1, abs=1e-2)  # what noise could have changed is not held for certain


def test_half_of_a_shot_matches_it_and_less_is_not_compared(scene):
    frames = copies.thumbnails(scene(1))
    assert similarity(shot(frames), shot(frames[2:6])) > 0.8
    assert similarity(shot(frames[2:6]), shot(frames)) > 0.8
    assert similarity(shot(frames), shot(frames[:2])) == -1.0


def test_still_shots_are_compared_by_looks_only(textured):
    still = [np.ascontiguousarray(textured[:360, :640])] * 6
    noisy = [
        np.clip(f + np.random.default_rng(i).normal(0, 4, f.shape), 0, 255).astype(np.uint8)
        for i, f in enumerate(still)
    ]
    other = [np.ascontiguousarray(textured[300:660, 500:1140])] * 6
    assert similarity(shot(still), shot(noisy)) > 0.9
    assert similarity(shot(still), shot(other)) < 0.3


def test_still_picture_is_not_a_copy_of_the_same_view_with_motion(scene):
    moving = copies.thumbnails(scene(1))
    assert similarity(shot(moving), shot([moving[0]] * 8)) < 0.6


@pytest.mark.parametrize(
    ("length_a", "length_b", "step"),
    [(8, 8, 1.0), (8, 6, 1.25), (20, 12, 1.0), (2, 2, 1.0), (1, 1, 1.0), (32, 32, 1.0), (5, 10, 0.5)],
)
def test_alignments_cover_the_minimum_overlap(length_a, length_b, step):
    whole, part, counts = alignments(length_a, length_b, step)
    at = whole + part
    assert whole.shape == part.shape == counts.shape
    assert (at >= 0).all() and (at <= length_a - 1).all()  # noqa: PT018
    assert (part >= 0).all() and (part <= 1).all()  # noqa: PT018
    assert counts.sum(axis=1).min() * max(1.25, step * 1.25) >= 0.75 * min(length_a, length_b * step) - 1e-6


def test_row_has_64_bytes_per_thumbnail_and_their_step(make_clip, textured):
    frames = [textured[:90, 20 * i :][:, :160] for i in range(5)]
    (row,) = Fingerprint()([make_clip(frames, fps=4)])
    assert set(row) == {"clip_id", *Fingerprint.columns}
    assert len(row["fingerprint"]) == 5 * CELLS
    assert row["fingerprint_step_s"] == 0.25
    assert len(row["content_digest"]) == 32


def test_equal_digests_are_equal_thumbnails(make_clip, textured):
    frames = [textured[:90, 20 * i :][:, :160] for i in range(3)]
    rows = Fingerprint()(
        [make_clip(f, clip_id=str(i)) for i, f in enumerate((frames, frames, frames[:2], frames[::-1]))]
    )
    digests = [row["content_digest"] for row in rows]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


@pytest.mark.parametrize("frame", [np.zeros((90, 160, 3), np.uint8), np.full((4, 3, 3), 255, np.uint8)])
@pytest.mark.parametrize("count", [1, 3])
def test_black_tiny_and_single_frames_have_a_fingerprint(make_clip, frame, count):
    (row,) = Fingerprint()([make_clip([frame] * count)])
    same = Shot(np.frombuffer(row["fingerprint"], np.uint8).reshape(-1, CELLS), row["fingerprint_step_s"])
    assert len(same) == count
    assert np.isfinite(same.vector).all()
    assert similarity(same, same) == pytest.approx(1, abs=1e-5)


def test_broken_thumbnail_names_the_reason(make_clip, textured):
    clip = make_clip([textured[:90, :160]])
    with pytest.raises(ThumbnailError, match="cannot be decoded"):
        Fingerprint()([replace(clip, jpegs=(b"no picture",))])


def test_value_depends_on_neither_order_nor_batch(make_clip, textured):
    stage = Fingerprint()
    stage.setup()
    clips = [make_clip([textured[i * j :, 30 * i :][:90, :160] for j in range(3)], clip_id=f"c{i}") for i in range(5)]
    together = {row["clip_id"]: row for row in stage(clips)}
    assert together == {row["clip_id"]: row for clip in reversed(clips) for row in stage([clip])}


def test_grid_is_the_mean_luma_of_the_cells():
    frame = np.zeros((80, 160, 3), np.uint8)
    frame[:10, :20] = (255, 0, 0)
    frame[70:, 140:] = 255
    (cells,) = grid_of(frame[None])
    assert cells[0] == cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)[0, 0] == 76
    assert cells[-1] == 255
    assert cells[1:-1].max() == 0
