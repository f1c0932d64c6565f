"""Which clips a step trains on: a pure function of (seed, step), whatever the number of ranks and workers, and with nothing left over.

Every epoch is a permutation of all clips. Walking through it, each clip joins the queue of its bucket, and a queue that holds a batch becomes
the next step. What remains in the queues at the end of an epoch stays at their head in the next. So each bucket sees its own clips once in each
of its epochs, and a step is found without going through those before it:

- bucket b with n_b clips has put floor(e n_b / batch) batches into the first e epochs, which gives the epoch of a step by bisection;
- its k-th batch are places k batch ... (k + 1) batch - 1 of its permutations, one after the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

EPOCHS_KEPT = 64  # permutations kept in memory; ours


@dataclass(frozen=True)
class StepClips:
    """The bucket of a step, and its (clip number, epoch of that clip) pairs."""

    bucket: int
    clips: tuple[tuple[int, int], ...]


class Order:
    """The order of clips whose buckets are given: `bucket_of[i]` is the bucket of clip i.

    Raises ValueError without clips.
    """

    def __init__(self, bucket_of: Sequence[int], batch: int, seed: int) -> None:
        if not bucket_of:
            raise ValueError("there are no clips to order")
        self.bucket_of = np.asarray(bucket_of)
        self.batch, self.seed = batch, seed
        self.sizes = np.bincount(self.bucket_of)
        self._permutation = lru_cache(EPOCHS_KEPT)(self._permute)
        self._emitted = lru_cache(EPOCHS_KEPT)(self._emit)
        self._of_bucket = lru_cache(EPOCHS_KEPT * len(self.sizes))(self._restrict)

    def at(self, step: int) -> StepClips:
        """The clips of a step."""
        epoch = self.epoch_of(step)
        bucket, k = self._emitted(epoch)[step - self.steps_before(epoch)]
        size = int(self.sizes[bucket])
        pairs = []
        for position in range(k * self.batch, (k + 1) * self.batch):
            own_epoch, place = divmod(position, size)
            pairs.append((int(self._of_bucket(bucket, own_epoch)[place]), own_epoch))
        return StepClips(bucket, tuple(pairs))

    def members(self, bucket: int) -> NDArray[np.int64]:
        """The numbers of a bucket's clips."""
        return np.flatnonzero(self.bucket_of == bucket)

    def steps_before(self, epoch: int) -> int:
        """Steps that are full before an epoch begins."""
        return int((epoch * self.sizes // self.batch).sum())

    def epoch_of(self, step: int) -> int:
        """The epoch in which a step is filled."""
        low, high = 0, 1
        while self.steps_before(high) <= step:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.steps_before(middle) <= step else (low, middle)
        return low

    def _permute(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.bucket_of))

    def _restrict(self, bucket: int, epoch: int) -> NDArray[np.int64]:
        """The bucket's clips, in the order of the epoch."""
        permuted = self._permutation(epoch)
        own: NDArray[np.int64] = permuted[self.bucket_of[permuted] == bucket]
        return own

    def _emit(self, epoch: int) -> list[tuple[int, int]]:
        """(bucket, number of its batch) for each step that is filled in an epoch."""
        waiting = epoch * self.sizes % self.batch
        number = epoch * self.sizes // self.batch
        found = []
        for bucket in self.bucket_of[self._permutation(epoch)]:
            waiting[bucket] += 1
            if waiting[bucket] == self.batch:
                found.append((int(bucket), int(number[bucket])))
                waiting[bucket] = 0
                number[bucket] += 1
        return found
