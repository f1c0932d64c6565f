"""A pipeline file that ends with `train:`: from footage to weights in one command, and back into a measure of the run."""

import json
from pathlib import Path

import pandas as pd
import pytest

from curate.cli import train
from curate.config import pipeline_file
from curate.dataset.run import Run
from curate.errors import UsageError
from tests.project import SMALLEST_RECIPE, Rushes, moving
from tests.videos import write_video

PIPELINE = """\
run: run
sources: footage
scan: {min_clip_s: 1.0, max_clip_s: 2.0}
measure:
  - use: tests.stages.Brightness
caption:
  - use: tests.stages.Says
shards: {short_side_px: 64}
train:
  recipe: mine.yaml
  set: {steps: 3, batch: 2, heldout_every: 0}
"""
RECIPE = f"{SMALLEST_RECIPE}heldout_share: 0\n"


def test_what_training_needs_is_looked_for_before_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pipeline.yaml").write_text(PIPELINE.replace("mine.yaml", "tiny"))
    run = Run(str(tmp_path / "run"), pipeline_file.load(tmp_path / "pipeline.yaml"))
    train.check_finetune(run)
    monkeypatch.setattr(train, "NEEDED", ("no_such_package",))
    with pytest.raises(UsageError, match="training needs the package 'no_such_package'"):
        train.check_finetune(run)
    with pytest.raises(UsageError, match=r"set an output folder with  train\.out"):
        train.check_finetune(Run("s3://bucket/run", pipeline_file.load(tmp_path / "pipeline.yaml")))


def test_one_command_goes_from_footage_to_weights_and_the_losses_come_back(tmp_path: Path, rushes: Rushes) -> None:
    (tmp_path / "footage").mkdir()
    write_video(tmp_path / "footage" / "a.mp4", moving(150, 1), 25, gop=25)
    (tmp_path / "pipeline.yaml").write_text(PIPELINE)
    done = rushes("run", cwd=tmp_path)
    assert done.code == 2
    assert "there is no recipe" in done.err
    assert not (tmp_path / "run").exists()  # reported before anything runs

    (tmp_path / "mine.yaml").write_text(RECIPE)
    done = rushes("run", cwd=tmp_path)
    assert done.code == 0, done.err
    out = tmp_path / "run" / "train" / "mine"
    record = json.loads((out / "train.json").read_text())
    assert len(record["losses"]["per_step"]) == 3
    kept = Run.open(tmp_path / "run").selection().clip_ids
    assert set(record["clips"]["used"]) | set(record["clips"]["left_out"]) == set(kept)
    again = rushes("run", cwd=tmp_path)
    assert "nothing to do: everything was done before" in again.out
    assert "holds this training, finished" in again.out

    losses = out / "clip_losses.parquet"
    measure = f"  - use: tests.stages.Brightness\n  - {{use: filters.TrainLoss, weights: 'dir:{losses}'}}\n"
    text = PIPELINE.partition("train:")[0].replace("  - use: tests.stages.Brightness\n", measure)
    (tmp_path / "pipeline.yaml").write_text(text)
    done = rushes("run", cwd=tmp_path)
    assert done.code == 0, done.err
    seen = Run.open(tmp_path / "run").clips(columns=["train_loss", "train_loss_draws", "never_learned"])
    stored = pd.read_parquet(losses).set_index("clip_id")
    assert set(record["clips"]["used"]) == set(stored.index)
    for row in seen.to_dict("records"):
        if row["clip_id"] in stored.index:
            assert abs(row["train_loss"] - stored.loc[row["clip_id"], "train_loss"]) < 1e-6
            assert row["train_loss_draws"] == stored.loc[row["clip_id"], "train_loss_draws"]
        else:
            assert pd.isna(row["train_loss"])
        assert row["never_learned"] is False or row["never_learned"] == False  # noqa: E712
