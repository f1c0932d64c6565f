"""Random numbers of a training step: each clip of the step has a stream of its own, a function of (seed, step, place in the batch).

So no generator state is saved to resume exactly, and the number of ranks and of micro-batches changes nothing. Only dropout uses torch's own
generator, which is seeded for each micro-batch (`seed_dropout`).

All numbers come from the CPU's generator and are moved from there, so that every device sees the same.
"""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def stream(*of: int) -> int:
    """A seed for the numbers given, in order."""
    digest = hashlib.sha256(":".join(map(str, of)).encode()).digest()
    return int.from_bytes(digest[:7], "big")


def seed_dropout(seed: int, step: int, place: int) -> None:
    """Seeds torch's own generators for the micro-batch that begins at a place."""
    torch.manual_seed(stream(seed, step, place, -1))


class Rng:
    """Random numbers for the clips at some places of a step's batch; every call continues their streams."""

    def __init__(self, seed: int, step: int, places: Sequence[int]) -> None:
        self.places = tuple(places)
        self._generators = [torch.Generator().manual_seed(stream(seed, step, place)) for place in places]

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers, (B, *shape)."""
        return torch.stack([torch.randn(shape, generator=g) for g in self._generators])

    def uniform(self, *shape: int) -> Tensor:
        """Numbers in [0, 1), (B, *shape)."""
        return torch.stack([torch.rand(shape, generator=g) for g in self._generators])
