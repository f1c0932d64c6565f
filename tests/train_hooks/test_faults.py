"""Faults in a training: a corrupt clip or shard, a loss that is not finite, too little memory, a checkpoint of another training."""

import json
import shutil

import pytest
import torch

from tests.train_hooks.test_feed import feed
from tests.train_hooks.trainings import SMALL, run
from tests.train_hooks.worlds import clip_row, write_shards
from train_hooks import loop
from train_hooks.errors import TrainError
from train_hooks.frames import bucket_of
from train_hooks.loader import Loader
from train_hooks.order import Order
from train_hooks.recipe_files import load_recipe
from train_hooks.shard_index import ShardClip
from train_hooks.size import Size
from train_hooks.train import train

QUICK = {**SMALL, "vae_fit_steps": "0", "steps": "4", "sample_steps": "1"}


@pytest.fixture(scope="module")
def shards(square_rows, tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("faults") / "shards", square_rows)


# -- clips


def test_a_corrupt_clip_has_the_same_substitute_every_time_and_is_reported(square_rows, tmp_path):
    shards = write_shards(tmp_path / "shards", [*square_rows[:4], clip_row("broken", b"no", 24, "x")])
    done = [run(load_recipe("tiny_modelscope", QUICK), shards, tmp_path / str(i)) for i in range(2)]
    messages = [
        line for line in done[0].lines if line.startswith("clip broken in shard-00000.parquet cannot be decoded")
    ]
    assert len(messages) == 1
    assert messages[0].endswith("is used instead")
    assert done[0].losses == done[1].losses
    assert set(done[0].training.state.broken) == {"broken"}
    assert "broken" not in done[0].training.clip_losses.table()["clip_id"].to_pylist()
    # The first in order, with a caption of its own: it would be the one to be shown at the end.
    first = write_shards(tmp_path / "first", [clip_row("broken", b"no", 24, "x"), *square_rows[:4]])
    result = train("tiny_modelscope", first, tmp_path / "out", {**QUICK, "sample_every": "2"}, lambda line: None)
    assert "cannot be decoded" in result.left_out["broken"]
    assert result.n_clips_used == 4
    assert result.sample.is_file()


def test_a_corrupt_heldout_clip_affects_only_itself(square_rows, tmp_path):
    whole = feed(write_shards(tmp_path / "whole", square_rows), heldout_share=0.25)
    assert len(whole.heldout) == 2
    ill = whole.heldout[0].clip_id
    rows = [{**row, "mp4": b"no"} if row["clip_id"] == ill else row for row in square_rows]
    settings = {**QUICK, "heldout_share": "0.25"}
    result = train(
        "tiny_modelscope", write_shards(tmp_path / "shards", rows), tmp_path / "out", settings, lambda line: None
    )
    assert "cannot be decoded" in result.left_out[ill]
    assert result.n_clips_heldout == 1
    both = {clip.clip_id for clip in whole.heldout}
    rows = [{**row, "mp4": b"no"} if row["clip_id"] in both else row for row in square_rows]
    done = run(load_recipe("tiny_modelscope", settings), write_shards(tmp_path / "none", rows), tmp_path / "other")
    assert not both & set(done.training.grid_clips)  # trained ones are looked at instead


def test_more_than_one_in_a_hundred_ends_the_training(square_rows, tmp_path):
    rows = [*square_rows[:4], *(clip_row(f"broken{i}", b"no", 24, "x") for i in range(3))]
    shards = write_shards(tmp_path / "shards", rows)
    with pytest.raises(
        TrainError,
        match=r"[23] of 7 clips cannot be decoded, more than max_broken_share = 0\.01; `rushes shards verify",
    ):
        run(load_recipe("tiny_modelscope", QUICK), shards, tmp_path / "out")
    run(load_recipe("tiny_modelscope", {**QUICK, "max_broken_share": "0.9"}), shards, tmp_path / "other")


def test_loader_processes_read_the_same_and_pass_errors_on(shards, square_rows, tmp_path):
    made = feed(shards)
    chunks = [made.chunk(step, [0, 1]) for step in range(3)]
    loader = Loader(made, iter(chunks), 1)
    try:
        for chunk in chunks:
            loaded, plain = next(loader), made.load(chunk)
            assert loaded.chunk == chunk
            assert all(
                torch.equal(a.pixels_CTHW, b.pixels_CTHW) for a, b in zip(loaded.samples, plain.samples, strict=True)
            )
        assert loader.wait_s > 0
    finally:
        loader.close()
    bad = feed(write_shards(tmp_path / "bad", [clip_row("broken", b"no", 24, "x")]))
    loader = Loader(bad, iter([bad.chunk(0, [0])]), 1)
    try:
        with pytest.raises(TrainError, match=r"^clip broken in .* no other clip can be read in its place$"):
            next(loader)
    finally:
        loader.close()


# -- shards


def test_a_shard_that_is_not_the_one_that_was_written_is_refused(square_rows, tmp_path):
    shards = write_shards(tmp_path / "shards", square_rows)
    path = shards / "shard-00000.parquet"
    raw = bytearray(path.read_bytes())
    raw[100] ^= 1
    path.write_bytes(raw)
    with pytest.raises(TrainError, match=r"shard-00000\.parquet has another sha256 than index\.json says"):
        feed(shards)
    index = json.loads((shards / "index.json").read_text())
    index["shards"][0]["bytes"] += 1
    (shards / "index.json").write_text(json.dumps(index))
    with pytest.raises(TrainError, match="has another size than"):
        feed(shards)


def test_resuming_with_changed_inputs_is_refused_and_names_them(shards, square_rows, tmp_path):
    out = tmp_path / "out"
    train("tiny_modelscope", shards, out, QUICK, lambda line: None)
    other = tmp_path / "other"
    shutil.copytree(shards, other)

    def again(folder, **changes):
        return train("tiny_modelscope", folder, out, {**QUICK, **changes}, lambda line: None)

    assert again(other, workers="0", log_every="2").out == out  # the same clips under another name, and what may change
    index = json.loads((other / "index.json").read_text())
    (other / "index.json").write_text(
        json.dumps(index | {"captions": {"suffix": [{"add": "!", "when": {"motion": {"above": 0}}}]}})
    )
    with pytest.raises(TrainError, match=r"another training \(captions\.suffix: \[\] -> \[\[\"!\""):
        again(other)
    fewer = write_shards(tmp_path / "fewer", square_rows[:7])
    with pytest.raises(TrainError, match=r"another training \(shards\.clips: 8 -> 7; shards\.sha256: "):
        again(fewer)
    with pytest.raises(TrainError, match=r"another training \(recipe\.seed: 0 -> 1\)"):
        again(shards, seed="1")
    with pytest.raises(
        TrainError, match="step-00000004 is beyond the 3 steps of this recipe; set steps higher, or --restart"
    ):
        train("tiny_modelscope", shards, out, {**QUICK, "steps": "3"}, lambda line: None, allow_changes=True)
    (out / "train.json").write_text("{")
    assert again(shards).out == out  # written again from the checkpoint
    assert json.loads((out / "train.json").read_text())["recipe"]["steps"] == 4


# -- numbers and memory


def test_a_step_that_is_not_finite_is_skipped_and_five_in_a_row_end_it(shards, tmp_path, monkeypatch):
    real = loop.backward
    broken = {1}

    def backward(stage, micro_batch, clip_ids, tools, tally):
        real(stage, micro_batch, clip_ids, tools, tally)
        if micro_batch.chunk.step in broken:
            tally.rows[0, micro_batch.chunk.places[0]] = float("nan")

    monkeypatch.setattr(loop, "backward", backward)
    done = run(load_recipe("tiny_modelscope", QUICK), shards, tmp_path / "out")
    assert done.losses[1] is None
    assert done.training.state.skipped == [1]
    assert [
        line for line in done.lines if "the loss is not finite at step 1, on clips clip" in line and "skipped" in line
    ]
    assert done.training.metrics.table()["loss"].to_pylist() == done.losses
    broken |= set(range(20))
    with pytest.raises(TrainError, match=r"not finite at step 4, on clips clip\d; that was the 5th step in a row"):
        run(load_recipe("tiny_modelscope", {**QUICK, "steps": "9"}), shards, tmp_path / "other")


def test_too_large_a_step_ends_with_the_clips(shards, tmp_path):
    settings = {**QUICK, "steps": "30", "lr": "1e30", "grad_clip": "1e30", "lr_warmup_steps": "0"}
    with pytest.raises(
        TrainError,
        match=r"(loss|gradient) is not finite at step \d+, on clips clip\d.*; that was the 5th step in a row",
    ):
        run(load_recipe("tiny_modelscope", settings), shards, tmp_path / "out")


def test_where_memory_runs_out_the_pieces_get_smaller_and_the_batch_stays(shards, tmp_path, monkeypatch):
    settings = {**QUICK, "batch": "4", "image_rank_share": "0"}
    one_by_one = run(load_recipe("tiny_modelscope", {**settings, "micro_batch": "1"}), shards, tmp_path / "one")
    real = loop.backward

    def backward(stage, micro_batch, clip_ids, tools, tally):
        real(stage, micro_batch, clip_ids, tools, tally)
        if len(micro_batch.samples) > 1:  # gradients of this piece are there already: they must be forgotten
            raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(loop, "backward", backward)
    done = run(load_recipe("tiny_modelscope", settings), shards, tmp_path / "out")
    assert [line for line in done.lines if line.startswith("memory ran out on")] == [
        "memory ran out on 4 clips of 16x16x3 at once: 2 from now on, the batch size is unchanged",
        "memory ran out on 2 clips of 16x16x3 at once: 1 from now on, the batch size is unchanged",
    ]
    assert done.training.state.pieces == {"16x16x3": 1}
    assert (done.losses, done.weights) == (one_by_one.losses, one_by_one.weights)
    monkeypatch.setattr(loop, "backward", lambda *args: (_ for _ in ()).throw(torch.OutOfMemoryError("no memory")))
    with pytest.raises(TrainError, match="one clip of 16x16x3 does not fit into this device's memory"):
        run(load_recipe("tiny_modelscope", settings), shards, tmp_path / "other")


# -- buckets


@pytest.mark.parametrize("batch", [1, 3, 4])
def test_every_clip_of_every_bucket_comes_once_in_each_of_its_epochs(batch):
    """Test 11: leftovers are carried into the next epoch, never dropped, and no step mixes buckets."""
    buckets = [0] * 7 + [1] * 5 + [2] * 2
    order = Order(buckets, batch, seed=3)
    n = order.steps_before(12)
    assert n == sum(12 * size // batch for size in (7, 5, 2))
    seen = {0: [], 1: [], 2: []}
    for step in range(n):
        at = order.at(step)
        assert {buckets[clip] for clip, _ in at.clips} == {at.bucket}
        seen[at.bucket] += at.clips
    for bucket, pairs in seen.items():
        own = [clip for clip, b in enumerate(buckets) if b == bucket]
        for epoch in range(len(pairs) // len(own)):
            part = pairs[epoch * len(own) : (epoch + 1) * len(own)]
            assert sorted(clip for clip, _ in part) == own
            assert {e for _, e in part} == {epoch}
    assert len({order.at(step).bucket for step in range(8)}) > 1  # they take turns


def test_a_clip_goes_to_the_bucket_that_fits_it_best():
    sizes = [Size(64, 64, 16), Size(96, 64, 16), Size(64, 96, 16), Size(96, 64, 4), Size(192, 128, 16)]

    def of(width, height, n_frames):
        clip = ShardClip("c", "f", 0, 0, fps=8.0, n_frames=n_frames, width_px=width, height_px=height)
        return bucket_of(clip, sizes, 8.0)

    assert of(64, 64, 40) == 0
    assert of(640, 360, 40) == 4  # the nearest aspect ratio, and large enough for the larger
    assert of(150, 100, 40) == 1  # nothing is enlarged
    assert of(360, 640, 40) == 2
    assert of(640, 360, 10) == 3  # too short for the others
    assert of(640, 360, 3) is None


def test_a_training_on_buckets_uses_them_all(square_rows, tmp_path):
    rows = [{**row, "n_frames": 24 if i % 2 else 4} for i, row in enumerate(square_rows)]
    shards = write_shards(tmp_path / "shards", rows)
    settings = {**QUICK, "steps": "8", "buckets": "[32x16x3, 16x16x2]"}
    done = run(load_recipe("tiny_modelscope", settings), shards, tmp_path / "out")
    assert set(done.training.feeds[0].buckets) == {0, 2}
    assert {clip for clips in done.clips for clip in clips} == {row["clip_id"] for row in rows}
