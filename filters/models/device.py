"""Device and precision of a network: `auto` is the GPU if there is one, in bf16 if it supports that, else fp16; fp32 on the CPU."""

from typing import Any, Literal

Precision = Literal["auto", "fp32", "fp16", "bf16"]


def resolved(device: str, precision: Precision) -> tuple[str, Precision]:
    """The device and the precision with `auto` replaced."""
    import torch

    found = device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    if precision == "auto":
        on_gpu: Precision = "bf16" if found.startswith("cuda") and torch.cuda.is_bf16_supported() else "fp16"
        precision = "fp32" if found == "cpu" else on_gpu
    return found, precision


def dtype_of(precision: Precision) -> Any:
    """The torch dtype of a precision other than `auto`."""
    import torch

    return {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]
