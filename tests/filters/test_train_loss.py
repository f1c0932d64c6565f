"""Training losses as a measure of the run."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from filters import TrainLoss
from train_hooks.metrics import CLIPS, ClipLosses


def losses(tmp_path, draws):
    made = ClipLosses()
    for clip_id, level, loss, late in draws:
        made.add(clip_id, level, loss, late)
    pq.write_table(made.table(), tmp_path / "clip_losses.parquet")
    stage = TrainLoss(weights=str(tmp_path / "clip_losses.parquet"), fewest_draws=4)
    stage.setup()
    return stage


def measured(stage, make_clip, names):
    return dict(zip(names, stage([make_clip([np.zeros((8, 8, 3), np.uint8)], name) for name in names]), strict=True))


def test_never_learned_clips_are_marked(tmp_path, make_clip):
    learned = [("good", level, 1.0 - 0.5 * late, late) for level in (0.1, 0.9) for late in (False, True)] * 2
    stuck = [("bad", level, 2.0, late) for level in (0.1, 0.9) for late in (False, True)] * 2
    few = [("few", 0.5, 3.0, False), ("few", 0.5, 3.0, True)]
    names = ["good", "bad", "few", "unseen"]
    rows = measured(losses(tmp_path, learned + stuck + few), make_clip, names)
    assert rows["good"]["train_loss"] == pytest.approx(0.75)
    assert rows["good"]["train_gain"] == pytest.approx(0.5)
    assert [rows[name]["never_learned"] for name in names] == [False, True, False, False]
    assert rows["bad"]["train_loss_draws"] == 8
    assert rows["few"]["train_loss_2"] == pytest.approx(3.0)
    assert rows["few"]["train_loss_0"] is None
    assert all(rows["unseen"][name] is None for name in TrainLoss.columns if name != "never_learned")


def test_noise_levels_have_equal_weight(tmp_path, make_clip):
    """A clip sampled at noisy levels, where losses are large, does not appear harder than others."""
    draws = [("a", 0.1, 1.0, False), ("a", 0.9, 5.0, False), *[("b", 0.9, 5.0, False)] * 9, ("b", 0.1, 1.0, False)]
    rows = measured(losses(tmp_path, draws), make_clip, ["a", "b"])
    assert rows["a"]["train_loss"] == rows["b"]["train_loss"] == pytest.approx(3.0)


def test_wrong_file_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="name a training"):
        TrainLoss().check()
    pq.write_table(pa.table({"clip_id": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(ValueError, match=r"is not the clip_losses\.parquet of a training: it has no column train_loss"):
        TrainLoss(weights=str(tmp_path / "other.parquet")).setup()
    (tmp_path / "text").write_text("x")
    with pytest.raises(ValueError, match="cannot be read"):
        TrainLoss(weights=str(tmp_path / "text")).setup()
    with pytest.raises(RuntimeError, match="setup"):
        TrainLoss()([])


def test_clip_losses_resume_from_their_state():
    one, two = ClipLosses(), ClipLosses()
    one.add("a", 0.3, 1.5, False)
    two.restore(one.state())
    for each in (one, two):
        each.add("a", 0.3, 0.5, True)
    assert one.table() == two.table()
    assert one.table().schema == CLIPS
