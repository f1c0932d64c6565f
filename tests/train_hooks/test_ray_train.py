"""The same training through Ray Train, on a real local cluster; a worker that is killed costs the steps since the last checkpoint."""

import os
import signal
import threading
import time

import psutil
import pytest

from curate import runner
from tests.train_hooks.trainings import SMALL
from tests.train_hooks.worlds import write_shards
from train_hooks.errors import RecipeError, TrainError
from train_hooks.ray_train import train_on_ray
from train_hooks.train import train

STEPS = 16
"""Enough that the training has not ended when the kill comes."""
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


def _train_workers() -> list[psutil.Process]:
    return [p for p in psutil.Process().children(recursive=True) if "RayTrainWorker" in p.name()]


@pytest.mark.ray_cluster
@pytest.mark.filterwarnings("ignore")  # Ray's own, while it starts
def test_a_killed_worker_costs_no_step_beyond_the_last_checkpoint(ray, square_rows, tmp_path):
    shards = write_shards(tmp_path / "shards", square_rows)
    killed: list[int] = []
    said: list[str] = []
    say = said.append

    def kill_one() -> None:
        """As soon as there is a checkpoint. What the workers say may arrive when they have ended, and to look for them takes long."""
        deadline = time.monotonic() + 300
        while len(workers := _train_workers()) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        while not list((tmp_path / "out" / "checkpoints").glob("step-*")) and time.monotonic() < deadline:
            time.sleep(0.005)
        os.kill(workers[-1].pid, signal.SIGKILL)
        killed.append(workers[-1].pid)

    killer = threading.Thread(target=kill_one)
    killer.start()
    result = train_on_ray("tiny_modelscope", shards, tmp_path / "out", SETTINGS, 2, 0, say)
    killer.join()
    assert killed
    begun = [line for line in said if line.startswith("going on from step ")]
    assert len(begun) == 1
    step = int(begun[0].split()[4])
    assert step in range(4, STEPS, 4)  # the newest checkpoint when it died
    assert not list(tmp_path.glob(".out.ray"))
    alone = train("tiny_modelscope", shards, tmp_path / "alone", SETTINGS, lambda line: None)
    assert result.last_loss == pytest.approx(alone.last_loss, abs=1e-5)
    losses = {line.split("loss ")[0]: line for line in said if line.startswith("step ")}
    assert len(losses) == STEPS

    with pytest.raises(TrainError, match="64 workers with 2 GPU each are asked for, and this Ray cluster has"):
        train_on_ray("tiny_modelscope", shards, tmp_path / "other", SETTINGS, 64, 2, say)
    with pytest.raises(RecipeError, match="unknown key"):
        train_on_ray("tiny_modelscope", shards, tmp_path / "other", {"nope": "1"}, 2, 0, say)
