"""Progress of a training: loss by noise level, samples and operations per second, time spent waiting for data, memory."""

import math
import time
from collections.abc import Mapping

import psutil
import torch

from train_hooks.flops import peak_tflops
from train_hooks.loader import Loader
from train_hooks.machine import Machine
from train_hooks.metrics import level_means
from train_hooks.micro_batch import Tally
from train_hooks.recipe import Recipe

QUIET_S = 10.0  # a progress line at least this often, whatever `log_every` is; ours


class Throughput:
    """Counts the steps since the last report.

    `flops`: of one clip, by the size of its bucket; `n_clips`: of the feed; `n_steps`: of the whole training.
    """

    def __init__(
        self, stage: Recipe, loader: Loader, machine: Machine, flops: Mapping[str, float], n_clips: int, n_steps: int
    ) -> None:
        self.stage, self.loader, self.machine, self.flops = stage, loader, machine, flops
        self.n_clips, self.n_steps = n_clips, n_steps
        self._reset()

    def _reset(self) -> None:
        self._losses: list[float] = []
        self._levels: list[float] = []
        self._steps = 0
        self._flops = 0.0
        self._wait_s = self.loader.wait_s
        self._began_s = self._logged_s = time.monotonic()

    def add(self, tally: Tally, size: str) -> None:
        """Adds a step on a bucket of this size. Losses that are not finite do not count."""
        known = [(loss, level) for loss, level in zip(tally.losses, tally.levels, strict=True) if math.isfinite(loss)]
        self._losses += [loss for loss, _ in known]
        self._levels += [level for _, level in known]
        self._steps += 1
        self._flops += self.flops.get(size, 0.0) * self.stage.batch

    def overdue(self) -> bool:
        """Whether the last line is QUIET_S ago."""
        return time.monotonic() - self._logged_s >= QUIET_S

    def line(self, done: int) -> str:
        """A line for the screen after `done` steps: the mean loss and the time of a step since the last report."""
        self._logged_s = time.monotonic()
        loss = sum(self._losses) / max(1, len(self._losses))
        step_s = max(1e-9, self._logged_s - self._began_s) / self._steps
        return f"step {done}/{self.n_steps}  loss {loss:.4f}  {step_s:.2f} s/step"

    def report(self, done: int) -> tuple[str, dict[str, float | None]]:
        """The line and the values for the metrics after `done` steps; then counts from zero."""
        line = self.line(done)
        seconds = max(1e-9, self._logged_s - self._began_s)
        device, world = self.machine.device, self.machine.world
        peak = peak_tflops(device)
        tflops = self._flops / seconds / 1e12 or None
        values: dict[str, float | None] = {
            **level_means(self._levels, self._losses),
            "samples_per_s": self._steps * self.stage.batch / seconds,
            "tflops": tflops,
            "mfu": tflops / peak / world if tflops and peak else None,
            "wait_share": (self.loader.wait_s - self._wait_s) / seconds,
            "memory_gb": _memory_gb(device),
            "epoch": done * self.stage.batch / self.n_clips,
        }
        self._reset()
        return line, values


def _memory_gb(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return float(psutil.Process().memory_info().rss) / 2**30
