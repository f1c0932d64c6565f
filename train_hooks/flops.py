"""How much arithmetic a training step is, and what the card could do: for TFLOP/s and MFU.

Counted are the convolutions, matrix products and attentions of one forward and backward pass, as they are run, two operations for each
multiply-add, and nothing for what checkpointing computes again (model FLOPs utilisation, Chowdhery et al. 2022, appendix B).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

PEAK_TFLOPS = {
    "H200": 989.0, "H100 PCIe": 756.0, "H100": 989.0, "A100": 312.0, "L40S": 362.0, "L40": 181.0, "RTX 4090": 165.2, "A10G": 70.0,
}  # fmt: skip
"""Dense bfloat16 peaks of NVIDIA's data sheets, by a part of the device's name. (A large matrix product reaches 790 on an H200.)"""


def counted(work: Callable[[], Any]) -> float:
    """Floating-point operations of some work."""
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def peak_tflops(device: torch.device) -> float | None:
    """The peak of this card, or None where it is not known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAK_TFLOPS.items() if part in name), None)


class Saved:
    """Bytes of the activations that are kept for the backward pass of what runs inside; weights do not count."""

    def __init__(self, weights: Any) -> None:
        self._weights = {w.untyped_storage().data_ptr() for w in weights}
        self._seen: dict[int, int] = {}
        self._hooks: Any = None

    @property
    def bytes(self) -> int:
        """Bytes so far, each piece of memory once."""
        return sum(self._seen.values())

    def __enter__(self) -> "Saved":
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor)
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._hooks.__exit__(*error)

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._weights:
            self._seen[storage.data_ptr()] = storage.nbytes()
        return tensor
