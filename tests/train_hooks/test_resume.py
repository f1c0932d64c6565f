"""A resumed training equals the uninterrupted one (tests 8, 9, 10, 21)."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.project import environment
from tests.servers import free_port
from tests.train_hooks.trainings import SMALL, ignoring_sigterm, run, stop_after
from tests.train_hooks.worlds import write_shards
from train_hooks.checkpoint import Checkpoints, saved
from train_hooks.errors import TrainError
from train_hooks.out_folder import FOLDER
from train_hooks.recipe_files import load_recipe

ONE_THREAD = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
}  # several processes, each with as many threads as there are cores, spin for minutes
STAGES = """
extends: tiny_modelscope
steps: 7
stages:
  - {stage: first, steps: 4, trainable: temporal, lr: 3.0e-3}
  - {stage: second, steps: 3, trainable: all, lr: 1.0e-3, frames: 2, batch: 3, image_rank_share: 0.5}
"""


@pytest.fixture(scope="module")
def shards(square_rows, tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("resume") / "shards", square_rows[:5])


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """Two stages (other weights, frames, batch, lr; stills), an epoch's end in each, two pieces a step, an average, dropout."""
    path = tmp_path_factory.mktemp("recipe") / "stages.yaml"
    path.write_text(STAGES)
    small = {key: value for key, value in SMALL.items() if key not in ("frames", "batch")}
    made = load_recipe(str(path), {**small, "micro_batch": "1", "ema_decay": "0.9", "min_snr_gamma": "5"})
    return replace(made, frames=3, batch=2)


@pytest.fixture(scope="module")
def whole(recipe, shards, tmp_path_factory):
    return run(recipe, shards, tmp_path_factory.mktemp("whole") / "out")


def same(one, other):
    assert one.losses == other.losses
    assert one.weights == other.weights
    assert one.ema == other.ema


@pytest.mark.parametrize(
    "step", [pytest.param(step, marks=[] if step == 4 else pytest.mark.slow) for step in range(1, 7)]
)
def test_resume_is_bit_exact_at_every_step(step, recipe, shards, whole, tmp_path):
    """Tests 8 and 21: weights, average, losses and clips; across an epoch's end, a switch of stages, and in the middle of both."""
    out = tmp_path / "out"
    with ignoring_sigterm():
        first = run(recipe, shards, out, stop_after(step))
    assert first.training.stopped_by == signal.SIGTERM
    assert first.training.state.step == step
    second = run(recipe, shards, out)
    assert f"resuming at step {step}" in "\n".join(second.lines)
    same(second, whole)
    assert first.clips + second.clips == whole.clips


def test_the_switch_comes_at_its_step(recipe, whole, shards, tmp_path):
    """Test 21: batch and frames change at step 4, and what a stage does not train stays as it is, bit by bit."""
    assert [len(clips) for clips in whole.clips] == [2, 2, 2, 2, 3, 3, 3]
    stages = [row["stage"] for row in whole.training.metrics.table().to_pylist()]
    assert stages == ["first"] * 4 + ["second"] * 3
    lrs = [row["lr"] for row in whole.training.metrics.table().to_pylist()]
    assert lrs[4] == pytest.approx(1e-3 / 5)  # a warm-up of its own
    optimizer = {}
    for step in (4, 7):
        with ignoring_sigterm():
            done = run(recipe, shards, tmp_path / str(step), stop_after(step) if step < 7 else None)
        optimizer[step] = next(iter(saved(tmp_path / str(step) / FOLDER)))
        assert done.training.state.step == step
    from safetensors.torch import load_file

    early = load_file(optimizer[4] / "optimizer.safetensors")
    late = load_file(optimizer[7] / "optimizer.safetensors")
    counts = {key: value.item() for key, value in late.items() if key.startswith("step/")}
    assert set(counts.values()) <= {3.0, 7.0}  # moments of weights that stay trained are kept
    assert all(counts[key] == 7.0 for key in early if key.startswith("step/"))


@pytest.mark.slow  # six processes that import torch; test_ray_train has two ranks in the quick suite
def test_the_number_of_ranks_changes_no_clip(shards, tmp_path):
    """Test 9: equal clips in every step, equal losses within 1e-6, on 1, 2 and 4 ranks: 2 ranks are stopped after two steps, and 4 resume."""
    settings = {**SMALL, "batch": "4", "micro_batch": "1", "steps": "4", "image_rank_share": "0.25"}
    alone = run(load_recipe("tiny_modelscope", settings), shards, tmp_path / "alone")
    two = ranks(2, tmp_path / "many", shards, {**settings, "stop": "2"})
    four = ranks(4, tmp_path / "many", shards, settings)
    assert {one["step"] for one in two} == {2}
    assert all(one["clips"] == alone.clips[:2] for one in two)
    assert all(one["clips"] == alone.clips[2:] for one in four)
    for one in (*two, *four):
        assert one["losses"] == pytest.approx(alone.losses[: len(one["losses"])], abs=1e-6)
    assert {len(one["losses"]) for one in four} == {4}
    assert len({one["weights"] for one in four}) == 1


def ranks(world: int, out: Path, shards: Path, settings: dict[str, str]) -> list[dict]:
    script = Path(__file__).with_name("ranks.py")
    out.mkdir(exist_ok=True)
    port = free_port()
    children = [
        subprocess.Popen(
            [sys.executable, str(script), str(port), str(rank), str(world), str(shards), str(out / "out"), json.dumps(settings)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ONE_THREAD,
        )
        for rank in range(world)
    ]  # fmt: skip
    try:
        outputs = [child.communicate(timeout=300) for child in children]
    finally:
        for child in children:
            child.kill()
    assert [child.returncode for child in children] == [0] * world, outputs[0][1] + outputs[-1][1]
    return [json.loads(out.splitlines()[-1]) for out, _ in outputs]


@pytest.mark.parametrize(
    "attempts", [1, pytest.param(int(os.environ.get("RUSHES_KILLS", "2")), marks=pytest.mark.slow)]
)
def test_a_kill_while_saving_leaves_the_last_intact_checkpoint(attempts, shards, tmp_path):
    """Test 10: kill -9 at random moments; what is there afterwards is whole, and the training ends as if nothing had been."""
    settings = {**SMALL, "steps": "12", "checkpoint_every": "1"}
    undisturbed = run(load_recipe("tiny_modelscope", settings), shards, tmp_path / "whole")
    out = tmp_path / "many"
    script = Path(__file__).with_name("ranks.py")
    kills = 0
    for attempt in range(attempts):
        child = subprocess.Popen(
            [sys.executable, str(script), "-", "0", "1", str(shards), str(out), json.dumps(settings)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ONE_THREAD,
        )  # fmt: skip
        assert child.stdout is not None
        if any(line.startswith(f"step {3 * attempt % 9 + 1}/") for line in child.stdout):
            time.sleep(0.007 * attempt % 0.1)
            child.kill()
            kills += 1
        child.communicate(timeout=120)
        for path in saved(out / FOLDER):
            Checkpoints(out, 1, {}, print)._read(path)  # every checkpoint that can be seen is whole
    assert kills >= 1
    same(run(load_recipe("tiny_modelscope", settings), shards, out), undisturbed)


def test_a_damaged_checkpoint_is_not_used(shards, tmp_path):
    settings = {**SMALL, "steps": "4", "checkpoint_every": "2", "checkpoint_keep": "2"}
    recipe = load_recipe("tiny_modelscope", settings)
    whole = run(recipe, shards, tmp_path / "out")
    _, newer = saved(tmp_path / "out" / FOLDER)
    raw = bytearray((newer / "weights.safetensors").read_bytes())
    raw[-1] ^= 1
    (newer / "weights.safetensors").write_bytes(raw)
    again = run(recipe, shards, tmp_path / "out")
    assert "weights.safetensors is not the file that was saved; the one before it is used" in "\n".join(again.lines)
    same(again, whole)
    for path in saved(tmp_path / "out" / FOLDER):
        (path / "checkpoint.json").write_text("{")
    with pytest.raises(TrainError, match=r"none of the checkpoints in .* is intact"):
        run(recipe, shards, tmp_path / "out")


def test_a_full_disk_loses_a_checkpoint_but_not_the_training(shards, tmp_path, monkeypatch):
    settings = {**SMALL, "steps": "4", "checkpoint_every": "2"}
    from train_hooks import checkpoint

    real, calls = checkpoint.save_file, []

    def full(tensors, path):
        calls.append(path)
        if len(calls) == 1:
            raise OSError(28, "No space left on device")
        real(tensors, path)

    monkeypatch.setattr(checkpoint, "save_file", full)
    done = run(load_recipe("tiny_modelscope", settings), shards, tmp_path / "out")
    assert "No space left on device; training continues" in "\n".join(done.lines)
    assert [path.name for path in saved(tmp_path / "out" / FOLDER)] == ["step-00000004"]
    assert [p.name for p in (tmp_path / "out" / FOLDER).iterdir() if p.name.startswith(".")] == []
    shutil.rmtree(tmp_path / "out")
    monkeypatch.setattr(
        checkpoint, "save_file", lambda tensors, path: (_ for _ in ()).throw(OSError(28, "No space left"))
    )
    with pytest.raises(TrainError, match=r"the checkpoint could not be written to .*No space left"):
        run(load_recipe("tiny_modelscope", settings), shards, tmp_path / "out")


@pytest.mark.slow  # a process that imports torch; the kill above has one too
def test_a_running_process_can_be_asked_to_stop(square_rows, tmp_path):
    """Ctrl-C, which a terminal sends to the loader's process too: the step is finished and saved, and one sentence says so."""
    shards = write_shards(tmp_path / "a 🎬 b", square_rows[:2])
    settings = {**SMALL, "steps": "2000", "workers": "1"}
    arguments = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    child = subprocess.Popen(
        [sys.executable, "-c", "from curate.cli import main; main()", "train", "--shards", str(shards), "--out", "out 🎬", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment() | {"PYTHONUNBUFFERED": "1"}, cwd=tmp_path,
        start_new_session=True,
    )  # fmt: skip
    assert child.stdout is not None
    assert any(line.startswith("step 2/") for line in child.stdout)
    os.killpg(child.pid, signal.SIGINT)
    _, stderr = child.communicate(timeout=60)
    assert child.returncode == 128 + signal.SIGINT, stderr
    (checkpoint,) = saved(tmp_path / "out 🎬" / FOLDER)
    step = int(checkpoint.name.removeprefix("step-"))
    assert (
        stderr
        == f"rushes: stopped after step {step} of 2000; out 🎬 has a checkpoint: the same command resumes there\n"
    )
    assert len(pq.read_table(tmp_path / "out 🎬" / "metrics.parquet")) == step
