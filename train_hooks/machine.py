"""Where a training runs: the device, its precision, and the ranks that share a batch.

accelerate finds them, whether torchrun, its own launcher or Ray Train began them.

Ranks sum their gradients once per step, after all micro-batches. DistributedDataParallel would do so after each, and deadlock where a rank has
more of them than another (smaller ones after memory ran out) or leaves a weight unused (on stills).
"""

from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor

from train_hooks.errors import TrainError
from train_hooks.recipe import Precision

GRADIENTS_AT_ONCE = 32 * 2**20  # numbers that are added up in one message; ours


class Machine:
    """This process' device, precision and rank. Raises TrainError where the precision cannot be had."""

    def __init__(self, precision: Precision) -> None:
        # accelerate keeps the first precision of a process for ever; a notebook may train twice.
        AcceleratorState._reset_state()
        self._began = not _initialized()
        try:
            mixed = "no" if precision == "fp32" else precision
            self.accelerator: Any = Accelerator(mixed_precision=mixed, cpu=not torch.cuda.is_available())
        except (ValueError, RuntimeError) as error:
            raise TrainError(f"precision '{precision}' cannot be had here: {str(error).splitlines()[0]}") from None
        self.device: torch.device = self.accelerator.device
        self.rank, self.world = (dist.get_rank(), dist.get_world_size()) if _initialized() else (0, 1)
        if self.device.type == "cuda":
            torch.set_float32_matmul_precision("high")  # the frozen encoders run in float32, as TensorFloat32

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes."""
        return self.rank == 0

    def share_weights(self, module: Any) -> None:
        """Gives every rank the weights of the first."""
        if self.world > 1:
            for value in module.state_dict().values():
                dist.broadcast(value, 0)

    def add_up(self, value: Tensor) -> Tensor:
        """The sum over all ranks, in place."""
        if self.world > 1:
            dist.all_reduce(value)
        return value

    def add_up_gradients(self, weights: list[Tensor]) -> None:
        """Every rank has the sum of all ranks' gradients; a weight that a rank did not use counts as zero there."""
        if self.world == 1:
            return
        grads = []
        for weight in weights:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
            grads.append(weight.grad)
        while grads:
            part, size = [], 0
            while grads and size < GRADIENTS_AT_ONCE:
                part.append(grads.pop())
                size += part[-1].numel()
            flat = torch.cat([grad.reshape(-1) for grad in part])
            dist.all_reduce(flat)
            for grad, summed in zip(part, flat.split([grad.numel() for grad in part]), strict=True):
                grad.copy_(summed.view_as(grad))

    def wait(self) -> None:
        """Waits until all ranks are here."""
        if self.world > 1:
            dist.barrier()

    def close(self) -> None:
        """Leaves the process group, if it was joined here."""
        if self._began and _initialized():
            dist.destroy_process_group()


def _initialized() -> bool:
    return dist.is_available() and dist.is_initialized()
