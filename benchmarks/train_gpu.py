"""Training steps on one GPU: the fast layout against the plain diffusers loop, as ratios, alternately in one process.

    python benchmarks/train_gpu.py                       on a GPU: the full-size model, both sizes
    python benchmarks/train_gpu.py --small --device cpu  the same code at small size, on the CPU (its figures mean nothing)
    python benchmarks/train_gpu.py --no-compile          without torch.compile, which takes minutes for each size

The model is ModelScope's UNet3DConditionModel (1.41 billion parameters) with random weights; no network and no Ray are needed, only torch and
diffusers beside this repository. `plain` is the eager loop: bfloat16 autocast over float32 weights, torch's AdamW, precomputed latents and
text. `fast` is a recipe's `fast: true` with `compile: true`; the variants before it measure each part by itself.

1. Outputs and gradients of every variant are compared with the plain ones, in float32, on a small clip; of compiled ones at small size.
2. Plain and variant take steps in turn (forward, backward, clipping, AdamW), and the ratio of the medians is printed, with MFU by the FLOPs that
   the model needs (14.60 and 64.09 TFLOP a sample), without recomputation.
3. Peak memory at 576 x 320 x 24, batch 2, with selective checkpointing against without.

Targets: 1.6 times at 256 x 256 x 16, batch 8 (aim: 2.2); MFU 35 % of 790 TFLOP/s (aim: 45 %); memory .7 at 8 % more time.
"""

import argparse
import gc
import json
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch
from diffusers import UNet3DConditionModel

from train_hooks.checkpointing import checkpoint_activations
from train_hooks.fast import compile_blocks, speed_up
from train_hooks.optim import AdamWBf16

FULL: dict[str, Any] = {
    "block_out_channels": (320, 640, 1280, 1280), "cross_attention_dim": 1024, "attention_head_dim": 64, "layers_per_block": 2,
    "norm_num_groups": 32,
}  # fmt: skip
SMALL: dict[str, Any] = {
    "block_out_channels": (32, 64), "cross_attention_dim": 32, "attention_head_dim": 16, "layers_per_block": 1, "norm_num_groups": 8,
    "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"), "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D"),
}  # fmt: skip
PEAK_TFLOPS = 790.0  # what a large bfloat16 matrix product reaches on an H200 (training.md)
TFLOP = {"256x256x16": 14.60, "576x320x24": 64.09}
WARM_UP, STEPS = 2, 5


@dataclass
class Variant:
    """A way of taking training steps."""

    name: str
    layout: dict[str, Any] | None = None
    checkpointing: str = "none"
    compiled: bool = False
    fused: bool = False
    bf16_weights: bool = False
    steps_s: list[float] = field(default_factory=list)
    peak_gib: float = 0.0


PLAIN = Variant("plain")
FAST = Variant("fast", {}, fused=True, compiled=True)
NOTHING = {"temporal_conv": "conv3d", "short_attention": False, "channels_last": False}
PARTS = [
    Variant("channels_last", {**NOTHING, "channels_last": True}),
    Variant("temporal gemm", {**NOTHING, "temporal_conv": "gemm"}),
    Variant("temporal conv1d", {**NOTHING, "temporal_conv": "conv1d"}),
    Variant("short attention", {**NOTHING, "short_attention": True}),
    Variant("fused AdamW", NOTHING, fused=True),
    FAST,
    Variant("fast, bf16 weights", {}, fused=True, compiled=True, bf16_weights=True),
]


class Job:
    """A model, its optimizer, and one step. All jobs of a process share one set of weights' values."""

    def __init__(self, variant: Variant, sizes: dict[str, Any], device: torch.device) -> None:
        torch.manual_seed(0)
        self.variant, self.device = variant, device
        with device:
            self.unet = UNet3DConditionModel(**sizes)
        with torch.no_grad():
            for parameter in self.unet.parameters():
                if not parameter.any():
                    parameter.normal_(std=0.02)  # zeros would make half of the work trivial
        if variant.bf16_weights:
            self.unet.to(torch.bfloat16)
        if variant.layout is not None:
            speed_up(self.unet, **variant.layout)
        checkpoint_activations(self.unet, variant.checkpointing)
        if variant.compiled:
            compile_blocks(self.unet)
        self.unet.train()
        weights = list(self.unet.parameters())
        if variant.bf16_weights:
            self.optimizer: Any = AdamWBf16(weights, lr=1e-5, weight_decay=0.01, seed=0)
        else:
            self.optimizer = torch.optim.AdamW(
                weights, lr=1e-5, fused=(variant.fused and device.type == "cuda") or None
            )

    def step(self, given: tuple[torch.Tensor, ...]) -> None:
        """Forward, backward, clipping, AdamW."""
        noisy, t, text, target = given
        with torch.autocast(self.device.type, torch.bfloat16):
            answer = self.unet(noisy, t, text).sample
        (answer.float() - target).square().mean().backward()
        torch.nn.utils.clip_grad_norm_(self.unet.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def timed(self, given: tuple[torch.Tensor, ...]) -> None:
        """One step, noted."""
        synchronize(self.device)
        began_s = time.perf_counter()
        self.step(given)
        synchronize(self.device)
        self.variant.steps_s.append(time.perf_counter() - began_s)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def given_for(size: str, batch: int, width: int, device: torch.device) -> tuple[torch.Tensor, ...]:
    """Latents, noise levels, text and target for a size such as 256x256x16."""
    w, h, frames = map(int, size.split("x"))
    rng = torch.Generator(device=device).manual_seed(1)
    shape = (batch, 4, frames, h // 8, w // 8)
    noisy, target = (torch.randn(shape, generator=rng, device=device) for _ in range(2))
    text = torch.randn((batch, 77, width), generator=rng, device=device)
    return noisy, torch.full((batch,), 400, device=device), text, target


def check(variant: Variant, sizes: dict[str, Any], device: torch.device) -> dict[str, float]:
    """Outputs and gradients against the plain ones, float32, relative to the largest."""
    found = []
    for one in (PLAIN, Variant(variant.name, variant.layout, variant.checkpointing, variant.compiled)):
        job = Job(one, sizes, device)
        job.unet.eval()
        noisy, t, text, target = given_for("64x64x4", 1, sizes["cross_attention_dim"], device)
        answer = job.unet(noisy, t, text).sample
        (answer - target).square().mean().backward()
        grads = torch.cat([p.grad.flatten().cpu() for p in job.unet.parameters() if p.grad is not None])
        found.append((answer.detach().cpu(), grads))
        del job
        free(device)
    (plain, plain_grads), (other, grads) = found
    return {
        "output": ((plain - other).abs().max() / plain.abs().max()).item(),
        "gradients": ((plain_grads - grads).abs().max() / plain_grads.abs().max()).item(),
    }


def free(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def in_turn(
    one: Variant, other: Variant, sizes: dict[str, Any], size: str, batch: int, device: torch.device
) -> dict[str, Any]:
    """Both take steps in turn; ratio of the medians."""
    given = given_for(size, batch, sizes["cross_attention_dim"], device)
    one.steps_s, other.steps_s = [], []
    jobs = [Job(one, sizes, device), Job(other, sizes, device)]
    for job in jobs:
        for _ in range(WARM_UP):
            job.step(given)
    for _ in range(STEPS):
        for job in jobs:
            job.timed(given)
    seconds = [statistics.median(v.steps_s) for v in (one, other)]
    result: dict[str, Any] = {
        "size": size,
        "batch": batch,
        "plain": one.name,
        "other": other.name,
        "times_as_fast": seconds[0] / seconds[1],
    }
    if size in TFLOP:
        result["mfu"] = TFLOP[size] * batch / seconds[1] / PEAK_TFLOPS
        result["mfu_plain"] = TFLOP[size] * batch / seconds[0] / PEAK_TFLOPS
    del jobs
    free(device)
    return result


def memory(variant: Variant, sizes: dict[str, Any], size: str, batch: int, device: torch.device) -> float:
    """Peak GiB of a step."""
    free(device)
    job = Job(variant, sizes, device)
    given = given_for(size, batch, sizes["cross_attention_dim"], device)
    for _ in range(2):
        job.step(given)
    synchronize(device)
    peak = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else 0.0
    del job
    free(device)
    return peak


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--small", action="store_true", help="a small model and small clips: the same code, for the CPU"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--quick", action="store_true", help="the fast layout alone, without its parts")
    parser.add_argument("--no-compile", action="store_true", help="leaves out what torch.compile does")
    parser.add_argument("--no-check", action="store_true", help="leaves out the comparison of outputs and gradients")
    parser.add_argument("--one-size", action="store_true", help="the smaller clips alone")
    parser.add_argument("--json", type=Path, help="writes the figures there too, as they come")
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    if device.type == "cpu" and not options.small:
        parser.error("the full-size model needs a GPU; --small --device cpu tries the same code at small size")
    sizes = SMALL if options.small else FULL
    small, large = (("64x64x4", 2), ("96x64x6", 1)) if options.small else (("256x256x16", 8), ("576x320x24", 2))
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    figures: list[dict[str, Any]] = [{"device": name, "torch": torch.__version__, "small": options.small}]
    print(json.dumps(figures[0]))

    def report(row: dict[str, Any]) -> None:
        figures.append(row)
        print(json.dumps(row), flush=True)
        if options.json is not None:
            options.json.write_text(json.dumps(figures, indent=1) + "\n")

    variants = [FAST] if options.quick else PARTS
    if device.type == "cpu" or options.no_compile:
        variants = [v for v in variants if not v.compiled] or [Variant("fast, not compiled", {}, fused=True)]
    for variant in [] if options.no_check else variants:
        report({"check": variant.name, **check(variant, SMALL if variant.compiled else sizes, device)})
    for variant in variants:
        report(in_turn(PLAIN, variant, sizes, *small, device))
    if options.one_size:
        return
    fastest = FAST if FAST in variants else variants[-1]
    selective = Variant(f"{fastest.name}, selective", fastest.layout, "selective", fastest.compiled, fused=True)
    report(in_turn(PLAIN, fastest, sizes, *large, device))
    report(in_turn(fastest, selective, sizes, *large, device))
    peaks = {v.name: memory(v, sizes, *large, device) for v in (PLAIN, fastest, selective)}
    report({"peak_gib": peaks, "of_plain": peaks[selective.name] / peaks["plain"] if peaks["plain"] else None})


if __name__ == "__main__":
    main()
