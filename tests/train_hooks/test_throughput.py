"""Progress lines: one every `log_every` steps, and one at least every QUIET_S seconds."""

import torch

from train_hooks import throughput
from train_hooks.micro_batch import Tally
from train_hooks.recipe_files import load_recipe
from train_hooks.throughput import QUIET_S, Throughput


class Loader:
    wait_s = 0.0


class Machine:
    device = torch.device("cpu")
    world = 1


def test_a_line_is_overdue_after_ten_seconds_and_does_not_reset_the_counters(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(throughput.time, "monotonic", lambda: now[0])
    counted = Throughput(load_recipe("tiny", {"batch": "2"}), Loader(), Machine(), {}, 10, 80)
    tally = Tally(torch.tensor([[1.0, 3.0], [0.1, 0.9], [1.0, 1.0]], dtype=torch.float64))
    counted.add(tally, "80x48x8")
    assert not counted.overdue()
    now[0] += QUIET_S
    assert counted.overdue()
    assert counted.line(1) == "step 1/80  loss 2.0000  10.00 s/step"
    assert not counted.overdue()
    now[0] += 2
    counted.add(tally, "80x48x8")
    line, values = counted.report(2)
    assert line == "step 2/80  loss 2.0000  6.00 s/step"
    assert values["samples_per_s"] == 4 / 12
    counted.add(tally, "80x48x8")
    now[0] += 1
    assert counted.line(3) == "step 3/80  loss 2.0000  1.00 s/step"
