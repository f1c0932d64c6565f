"""The number of workers of a step: what it asks for, limited by what fits on the nodes of the cluster.

Nothing here imports Ray: curate/cluster/runner.py lists the nodes and starts the pool.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from curate.errors import RunError

_Count = Annotated[int, Field(ge=1)]


def _checked(given: Any) -> Any:
    """Reports an invalid value in one sentence, where pydantic has one for each member of the union."""
    numbers = list(given) if isinstance(given, list | tuple) else [given]
    if given is not None and (
        len(numbers) != (2 if isinstance(given, list | tuple) else 1)
        or not all(type(n) is int and n >= 1 for n in numbers)
        or numbers != sorted(numbers)
    ):
        raise ValueError("must be a number of workers such as 4, or a minimum and a maximum such as [1, 8]")
    return tuple(numbers) if isinstance(given, list) else given


Workers = Annotated[_Count | tuple[_Count, _Count] | None, BeforeValidator(_checked)]
"""`4`: up to 4 workers. `[1, 8]`: starts with 1 and grows to 8 while there is work. None: as many as fit."""
Node = Mapping[str, float]
"""The resources of a node under Ray's names: `CPU`, `GPU`, `memory` (bytes)."""


@dataclass(frozen=True)
class Resources:
    """The resources of one worker of a pool, and the number of workers."""

    workers: int | tuple[int, int] | None = None
    cpus: float = 1.0
    gpus: float = 0.0
    memory_gb: float | None = None


class NoRoomError(RunError):
    """No running node has room for one worker. On a cluster, one may still be starting."""


@dataclass(frozen=True)
class Pool:
    """The size of a pool: minimum `least`, maximum `most`, `first` at the start.

    `expected` is the predicted size: the maximum of a range that was given, otherwise what fits now.
    """

    least: int
    first: int
    most: int
    expected: int


def plan(resources: Resources, n_units: int, nodes: Sequence[Node], is_own: bool) -> Pool:
    """The pool for `n_units` units of work on the running nodes.

    In a local Ray of this process (`is_own`) no other node can join, and the size is fixed. On a cluster the pool releases idle workers, down to
    one or to the minimum, and grows onto nodes that join later. Raises NoRoomError.
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
        high = min(high, now)  # a worker without resources would fit any number of times
    most = min(high, n_units)
    least = min(low, most)
    if isinstance(asked, tuple):
        return Pool(least, least, most, most)
    return Pool(least, max(least, min(now, most)), most, min(now, most))


def room(node: Node, resources: Resources) -> int:
    """Workers that fit on an empty node. A worker with a fraction of a GPU uses one GPU."""
    fits = [int(node.get("CPU", 0) / resources.cpus + 1e-6) if resources.cpus else _free(node, resources)]
    if 0 < resources.gpus < 1:
        fits.append(int(node.get("GPU", 0) + 1e-6) * int(1 / resources.gpus + 1e-6))
    elif resources.gpus:
        fits.append(int(node.get("GPU", 0) / resources.gpus + 1e-6))
    if resources.memory_gb:
        fits.append(int(node.get("memory", 0) / (resources.memory_gb * 2**30) + 1e-6))
    return min(fits)


def shape(resources: Resources, cpu: str, gpu: str) -> dict[str, float]:
    """The resources of one worker, with the given names for CPUs and GPUs (Ray's APIs differ); memory in bytes."""
    wanted = {cpu: resources.cpus}
    if resources.gpus:
        wanted[gpu] = resources.gpus
    if resources.memory_gb:
        wanted["memory"] = int(resources.memory_gb * 2**30)
    return wanted


def _free(node: Node, resources: Resources) -> int:
    """Number of workers without CPUs: the node's CPUs, or no limit where GPUs limit them."""
    return 2**31 if resources.gpus else max(1, int(node.get("CPU", 1)))


def _too_large(resources: Resources, nodes: Sequence[Node]) -> str:
    """Which resource of a worker no node has, in one sentence."""
    parts = [
        ("GPU", resources.gpus, 1.0, "GPU"),
        ("CPU", resources.cpus, 1.0, "CPU"),
        ("memory", (resources.memory_gb or 0) * 2**30, 2.0**30, "GB of memory"),
    ]
    for key, wanted, scale, unit in parts:
        largest = max((node.get(key, 0) for node in nodes), default=0)
        if wanted > largest + 1e-6:
            asked = f"a stage asks for {wanted / scale:g} {unit}"
            return f"{asked}, and the largest node of this Ray cluster has {largest / scale:.3g}"
    takes = ", ".join(f"{wanted / scale:g} {unit}" for _, wanted, scale, unit in parts if wanted)
    return f"a stage asks for {takes} at once, and no node of this Ray cluster has all of that"
