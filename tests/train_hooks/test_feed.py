import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.train_hooks.worlds import COLOURS, clip_row, encode, square_frames
from train_hooks.errors import TrainError
from train_hooks.feed import Feed
from train_hooks.frames import fit, frame_indices, too_short
from train_hooks.order import Order
from train_hooks.shard_index import ShardClip, read_index
from train_hooks.size import Size


def feed(shards, **changes):
    own = {"width_px": 32, "height_px": 24, "frames": 4} | changes
    size = Size(*(own.pop(key) for key in ("width_px", "height_px", "frames")))
    values = {"sizes": [size], "fps": 4.0, "batch": 3, "windows_per_clip": 2, "heldout_share": 0.0, "seed": 0}
    return Feed(shards, **(values | own))


@pytest.mark.parametrize(("n_clips", "batch"), [(10, 3), (4, 4), (3, 7)])
def test_order_visits_every_clip_once_per_epoch_and_runs_on_across_its_end(n_clips, batch):
    order = Order([0] * n_clips, batch, seed=1)
    seen = [pair for step in range(4 * n_clips) for pair in order.at(step).clips]
    for epoch in range(4):
        clips = [clip for clip, e in seen[epoch * n_clips : (epoch + 1) * n_clips] if e == epoch]
        assert sorted(clips) == list(range(n_clips))


def test_order_is_a_pure_function_of_seed_and_step():
    buckets = [0, 1, 1, 0, 2, 1, 0, 0, 0, 1]
    late_first = [Order(buckets, 3, seed=1).at(step) for step in (9, 2, 5)]
    whole = Order(buckets, 3, seed=1)
    assert late_first == [[whole.at(step) for step in range(10)][i] for i in (9, 2, 5)]
    other = Order(buckets, 3, seed=2)
    assert [whole.at(s) for s in range(4)] != [other.at(s) for s in range(4)]


def test_samples_are_a_pure_function_of_seed_and_step(make_shards, square_rows):
    shards = make_shards(square_rows)
    forward, backward = feed(shards), feed(shards)
    ahead = [forward.samples(step) for step in range(6)]
    for step in reversed(range(6)):
        for a, b in zip(ahead[step], backward.samples(step), strict=True):
            assert a.clip_id == b.clip_id
            assert torch.equal(a.video_CTHW, b.video_CTHW)


def test_a_sample_shows_its_own_clip(make_shards, square_rows):
    """Colour, caption and id belong together, and the square moves to the right."""
    for step in range(4):
        for sample in feed(make_shards(square_rows, rows_per_file=5)).samples(step):
            row = next(row for row in square_rows if row["clip_id"] == sample.clip_id)
            assert sample.caption == row["caption"]
            colour = torch.tensor(COLOURS[sample.caption.split()[1]]) / 127.5 - 1
            assert sample.video_CTHW.shape == (3, 4, 24, 32)
            distance_THW = (sample.video_CTHW - colour[:, None, None, None]).abs().sum(0)
            centres = [float((frame < 0.5).nonzero()[:, 1].float().mean()) for frame in distance_THW]
            assert centres == sorted(centres)
            assert centres[-1] - centres[0] > 4


@pytest.mark.parametrize(
    ("fps", "at_fps", "frames", "expected"),
    [
        pytest.param(24.0, 8.0, 4, [0, 3, 6, 9], id="every third"),
        pytest.param(30.0, 4.0, 4, [0, 8, 15, 22], id="rounded in time, not accumulated"),
        pytest.param(23.976, 23.976, 3, [0, 1, 2], id="as it is"),
        pytest.param(24.0, 24.0, 1, [0], id="one frame"),
    ],
)
def test_frames_are_even_in_time(fps, at_fps, frames, expected):
    assert frame_indices(fps, 100, frames, at_fps, draw=0.0) == expected
    assert frame_indices(fps, 100, frames, at_fps, draw=0.999999)[-1] == 99


def test_exactly_long_enough_is_used():
    clip = ShardClip("c", "f", 0, 0, fps=24.0, n_frames=10)
    assert too_short(clip, 4, 8.0) is None
    assert "10 frames" not in (too_short(clip, 4, 8.0) or "")
    assert "too short: 9 frames at 24 fps, and 4 at 8 fps need 10" in str(too_short(replace(clip, n_frames=9), 4, 8.0))
    assert "2 frames per second" in str(too_short(replace(clip, fps=2.0), 4, 8.0))


def test_short_side_fits_and_the_centre_is_kept():
    frame = np.zeros((40, 100, 3), np.uint8)
    frame[:, 30:70] = 255  # the middle 40 of 100 columns: what a square crop keeps
    assert fit(frame, 20, 20).float().mean() > 250
    assert fit(frame, 20, 20).shape == (3, 20, 20)
    assert fit(np.full((33, 57, 3), 7, np.uint8), 64, 40).unique().tolist() == [7]


def test_every_clip_is_accounted_for(make_shards, square_rows):
    short = clip_row("short", square_rows[0]["mp4"], 2, "x")
    unnamed = {**clip_row("unnamed", square_rows[0]["mp4"], 24, None)}
    made = feed(make_shards([*square_rows, short, unnamed]), heldout_share=0.25)
    assert set(made.left_out) == {"short"}
    assert len(made.heldout) == 2
    ids = [clip.clip_id for clip in (*made.train, *made.heldout)] + list(made.left_out)
    assert sorted(ids) == sorted([row["clip_id"] for row in square_rows] + ["short", "unnamed"])
    assert made.n_without_caption == 1
    assert len(made.reached(1)) == 3
    assert made.reached(100) == {clip.clip_id for clip in made.train}


def test_the_held_out_clips_do_not_depend_on_the_order_of_the_shards(make_shards, square_rows, tmp_path):
    first = {clip.clip_id for clip in feed(make_shards(square_rows), heldout_share=0.3).heldout}
    second = {clip.clip_id for clip in feed(make_shards(square_rows[::-1]), heldout_share=0.3).heldout}
    assert first == second
    assert len(first) == 2


def test_a_folder_without_index_is_refused(tmp_path):
    with pytest.raises(TrainError, match=r"has no index\.json"):
        read_index(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"shards": [{}]}', '{"shards": 3}'])
def test_a_broken_index_is_refused(tmp_path, text):
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(TrainError, match="cannot be read as a shards index"):
        read_index(tmp_path)


def test_no_clips_is_one_sentence(make_shards, square_rows):
    with pytest.raises(TrainError, match=r"there is nothing to train on: .* holds no clips"):
        read_index(make_shards([]))
    with pytest.raises(TrainError, match="there is nothing to train on: none of the 8 clips can be used"):
        feed(make_shards(square_rows), frames=400)


def test_a_missing_or_broken_shard_is_named(make_shards, square_rows):
    shards = make_shards(square_rows)
    (shards / "shard-00000.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(TrainError, match=r"shard-00000\.parquet cannot be read"):
        read_index(shards)
    (shards / "shard-00000.parquet").unlink()
    with pytest.raises(TrainError, match=r"names shard-00000\.parquet, which is not there"):
        read_index(shards)


def test_a_shard_without_a_column_is_named(make_shards, square_rows):
    import pyarrow.parquet as pq

    shards = make_shards(square_rows)
    path = shards / "shard-00000.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["caption"]), path)
    with pytest.raises(TrainError, match="has no column caption"):
        read_index(shards)


@pytest.mark.parametrize(
    "mp4",
    [
        pytest.param(b"", id="empty"),
        pytest.param(None, id="null"),
        pytest.param(b"not a video" * 50, id="text"),
        pytest.param(encode(square_frames((9, 9, 9), 24))[:900], id="cut off"),
        pytest.param(encode(square_frames((9, 9, 9), 6)), id="fewer frames than promised"),
    ],
)
def test_a_corrupt_clip_is_named(make_shards, mp4):
    bad = feed(make_shards([clip_row("broken7", mp4, 24, "x")]))
    with pytest.raises(TrainError, match=r"clip broken7 in shard-00000\.parquet cannot be decoded: ") as caught:
        bad.samples(0)
    assert "\n" not in str(caught.value)


def test_the_digest_is_that_of_the_index(make_shards, square_rows):
    shards = make_shards(square_rows)
    before = read_index(shards)
    index = json.loads((shards / "index.json").read_text())
    (shards / "index.json").write_text(json.dumps({**index, "seconds": 2.0}))
    after = read_index(shards)
    assert after.sha256 != before.sha256
    assert after.content_sha256 == before.content_sha256  # the clips are the same
