"""The same training through Ray Train, on a real local cluster; a worker that is killed costs the steps since the last checkpoint."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from curate.cluster import runner
from tests.train_hooks.trainings import SMALL
from tests.train_hooks.worlds import write_shards
from train_hooks import ray_train
from train_hooks.errors import RecipeError, TrainError
from train_hooks.ray_train import train_on_ray
from train_hooks.train import train

STEPS = 10
WORKER = ray_train._worker
SETTINGS = {
    **SMALL,
    "steps": str(STEPS),
    "checkpoint_every": "4",
    "batch": "2",
    "micro_batch": "1",
    "sample_steps": "1",
}


@pytest.fixture(scope="module")
def ray():
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    runner.start()
    yield
    runner.stop()
    for number, handler in handlers.items():
        signal.signal(number, handler)


def dies_once(config: dict[str, Any]) -> None:
    """A normal worker, except that the first one to report step 6 is killed, after the driver received all its lines."""
    import ray

    mark = Path(config["call"]["out"]).with_name("killed")

    def train_and_die(recipe, shards, out, overrides, say, **options):
        def received(line: str) -> None:
            say(line)
            if line.startswith("step 6/") and not mark.exists():
                ray.get(config["ear"].say.remote("killed"))
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)

        return train(recipe, shards, out, overrides, received, **options)

    ray_train.train = train_and_die
    WORKER(config)


@pytest.mark.slow  # five processes import all of training, on two cores; without a kill: tests/curate/cli/test_train_step.py
@pytest.mark.ray_cluster
@pytest.mark.filterwarnings("ignore")  # Ray's own, while it starts
def test_a_killed_worker_costs_no_step_beyond_the_last_checkpoint(ray, square_rows, tmp_path, monkeypatch):
    shards = write_shards(tmp_path / "shards", square_rows)
    lines: list[str] = []
    say = lines.append
    with monkeypatch.context() as patched:
        patched.setattr(ray_train, "_worker", dies_once)
        result = train_on_ray("tiny_modelscope", shards, tmp_path / "out", SETTINGS, 2, 0, say)
    assert lines.count("killed") == 1
    begun = [line for line in lines if line.startswith("resuming at step ")]
    assert [int(line.split()[4]) for line in begun] == [4]  # the newest checkpoint when it died
    assert not list(tmp_path.glob(".out.ray"))
    alone = train("tiny_modelscope", shards, tmp_path / "alone", SETTINGS, lambda line: None)
    assert result.last_loss == pytest.approx(alone.last_loss, abs=1e-5)
    losses = {line.split("loss ")[0]: line for line in lines if line.startswith("step ")}
    assert len(losses) == STEPS

    with pytest.raises(TrainError, match="64 workers with 2 GPU each are asked for, and this Ray cluster has"):
        train_on_ray("tiny_modelscope", shards, tmp_path / "other", SETTINGS, 64, 2, say)
    with pytest.raises(RecipeError, match="unknown key"):
        train_on_ray("tiny_modelscope", shards, tmp_path / "other", {"nope": "1"}, 2, 0, say)
