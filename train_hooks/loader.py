"""Reading ahead: worker processes decode the next chunks while the net is busy with this one.

Workers are handed chunks in order and return bytes, already at the training size. They hold no state: where a training stands is its step
alone, and chunks that were read ahead may be thrown away.
"""

import signal
import time
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from train_hooks.errors import TrainError
from train_hooks.feed import Chunk, Feed, Loaded

AHEAD = 4  # chunks that each worker reads ahead; ours


class _Chunks(Dataset[Loaded | TrainError]):
    def __init__(self, feed: Feed) -> None:
        self.feed = feed

    def __getitem__(self, chunk: Any) -> Loaded | TrainError:
        try:
            return self.feed.load(chunk)
        except TrainError as error:  # as a value: torch would wrap it in the worker's traceback
            return error


class Loader:
    """The chunks given, with their samples, in order; `wait_s` is the time that was spent waiting for them.

    With 0 workers they are read when they are asked for. The workers are spawned: a script that trains needs `if __name__ == "__main__":`.
    Raises TrainError as `Feed.load`.
    """

    def __init__(self, feed: Feed, chunks: Iterable[Chunk], workers: int) -> None:
        self.wait_s = 0.0
        more: dict[str, Any] = {"prefetch_factor": AHEAD, "multiprocessing_context": "spawn"} if workers else {}
        loader = DataLoader(
            _Chunks(feed),
            batch_size=None,
            sampler=chunks,
            num_workers=workers,
            worker_init_fn=_begin_worker,
            pin_memory=False,
            **more,
        )
        self._loaded: Iterator[Loaded | TrainError] = iter(loader)

    def __next__(self) -> Loaded:
        began_s = time.monotonic()
        loaded = next(self._loaded)
        self.wait_s += time.monotonic() - began_s
        if isinstance(loaded, TrainError):
            raise loaded
        return loaded

    def close(self) -> None:
        """Ends the workers."""
        shutdown = getattr(self._loaded, "_shutdown_workers", None)
        if shutdown is not None:
            shutdown()


def _begin_worker(worker: int) -> None:
    """One thread each; and what a terminal or a scheduler sends to the whole group is for the training to answer, which ends its workers."""
    torch.set_num_threads(1)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
