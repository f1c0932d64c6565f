"""How many workers a step gets: what it asks for, and what the nodes of the cluster have room for.

Nothing here knows Ray: curate/cluster/runner.py says what the nodes are, and starts the pool.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from curate.errors import RunError

_Count = Annotated[int, Field(ge=1)]


def _checked(given: Any) -> Any:
    """Says in one sentence what pydantic would say once for each kind that it might have been."""
    numbers = list(given) if isinstance(given, list | tuple) else [given]
    if given is not None and (
        len(numbers) != (2 if isinstance(given, list | tuple) else 1)
        or not all(type(n) is int and n >= 1 for n in numbers)
        or numbers != sorted(numbers)
    ):
        raise ValueError("must be a number of workers as in 4, or the fewest and the most as in [1, 8]")
    return tuple(numbers) if isinstance(given, list) else given


Workers = Annotated[_Count | tuple[_Count, _Count] | None, BeforeValidator(_checked)]
"""`4`: at most so many. `[1, 8]`: begins with the first, grows to the second while there is work. None: as many as fit."""
Node = Mapping[str, float]
"""What a node has, in Ray's words: `CPU`, `GPU`, `memory` (bytes)."""


@dataclass(frozen=True)
class Resources:
    """What one worker of a pool takes, and how many there should be."""

    workers: int | tuple[int, int] | None = None
    cpus: float = 1.0
    gpus: float = 0.0
    memory_gb: float | None = None


class NoRoomError(RunError):
    """No node that is up has room for one worker. On a cluster, one may be on its way."""


@dataclass(frozen=True)
class Pool:
    """A pool never has fewer workers than `least` nor more than `most`, and begins with `first`.

    `expected` is how many it will come to have, as far as one can tell: a range is taken at its word, the rest is what fits now.
    """

    least: int
    first: int
    most: int
    expected: int


def plan(resources: Resources, n_units: int, nodes: Sequence[Node], is_own: bool) -> Pool:
    """The pool for that many units of work, on the nodes that are up.

    In a Ray of this process alone (`is_own`) no other node can join, and the pool has one size. On a cluster it gives back workers that
    starve, down to one or to the lower bound, and grows onto nodes that come later. Raises NoRoomError.
    """
    now = sum(room(node, resources) for node in nodes)
    if not now:
        raise NoRoomError(_too_large(resources, nodes))
    asked = resources.workers
    low, high = asked if isinstance(asked, tuple) else (1, asked or n_units)
    if is_own:
        size = min(high, now, n_units)
        return Pool(size, size, size, size)
    if not (resources.cpus or resources.gpus or isinstance(asked, tuple)):
        high = min(high, now)  # what takes nothing would fit without end
    most = min(high, n_units)
    least = min(low, most)
    if isinstance(asked, tuple):
        return Pool(least, least, most, most)
    return Pool(least, max(least, min(now, most)), most, min(now, most))


def room(node: Node, resources: Resources) -> int:
    """Workers that fit on an empty node. A worker with a part of a GPU has it on one GPU."""
    fits = [int(node.get("CPU", 0) / resources.cpus + 1e-6) if resources.cpus else _free(node, resources)]
    if 0 < resources.gpus < 1:
        fits.append(int(node.get("GPU", 0) + 1e-6) * int(1 / resources.gpus + 1e-6))
    elif resources.gpus:
        fits.append(int(node.get("GPU", 0) / resources.gpus + 1e-6))
    if resources.memory_gb:
        fits.append(int(node.get("memory", 0) / (resources.memory_gb * 2**30) + 1e-6))
    return min(fits)


def shape(resources: Resources, cpu: str, gpu: str) -> dict[str, float]:
    """What one worker takes, under the names that a part of Ray has for CPUs and GPUs; memory in bytes."""
    wanted = {cpu: resources.cpus}
    if resources.gpus:
        wanted[gpu] = resources.gpus
    if resources.memory_gb:
        wanted["memory"] = int(resources.memory_gb * 2**30)
    return wanted


def _free(node: Node, resources: Resources) -> int:
    """Workers that take no CPU: as many as the node has CPUs, or as its GPUs allow."""
    return 2**31 if resources.gpus else max(1, int(node.get("CPU", 1)))


def _too_large(resources: Resources, nodes: Sequence[Node]) -> str:
    """One sentence on what a worker takes and no node has."""
    parts = [
        ("GPU", resources.gpus, 1.0, "GPU"),
        ("CPU", resources.cpus, 1.0, "CPU"),
        ("memory", (resources.memory_gb or 0) * 2**30, 2.0**30, "GB of memory"),
    ]
    for key, wanted, scale, unit in parts:
        largest = max((node.get(key, 0) for node in nodes), default=0)
        if wanted > largest + 1e-6:
            told = f"a stage asks for {wanted / scale:g} {unit}, and the largest node of this Ray cluster has"
            return f"{told} {largest / scale:.3g}"
    takes = ", ".join(f"{wanted / scale:g} {unit}" for _, wanted, scale, unit in parts if wanted)
    return f"a stage asks for {takes} at once, and no node of this Ray cluster has all of that"
