"""AdamW in one parameter group, the learning rate of a step, the average of the weights, and AdamW for weights in bfloat16.

A step of Adam is often smaller than the distance between two bfloat16 numbers, and rounded to the nearest it is lost. Rounded up or down by
chance, in proportion to the distance (stochastic rounding), it arrives in the mean: 4 bytes less for each weight than with a float32 master.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from train_hooks.recipe import Recipe

BETAS, EPS = (0.9, 0.999), 1e-8  # torch's defaults, which diffusers' training scripts keep
LEAST_LR = 0.1  # share of the peak that a cosine ends at; ours


def make_optimizer(weights: Iterable[Tensor], stage: Recipe) -> torch.optim.Optimizer:
    """AdamW over these weights in one group, fused on a GPU."""
    listed = list(weights)
    if stage.bf16_weights:
        return AdamWBf16(listed, lr=stage.lr, weight_decay=stage.weight_decay, seed=stage.seed)
    fused = listed[0].is_cuda
    return torch.optim.AdamW(
        listed, lr=stage.lr, betas=BETAS, eps=EPS, weight_decay=stage.weight_decay, fused=fused or None
    )


def lr_factor(step: int, stage: Recipe) -> float:
    """Share of the peak learning rate at a step of a stage: a linear warm-up, then the peak, or half a cosine down to a tenth."""
    if step < stage.lr_warmup_steps:
        return (step + 1) / stage.lr_warmup_steps
    if stage.lr_decay == "constant":
        return 1.0
    share = (step - stage.lr_warmup_steps) / max(1, stage.steps - 1 - stage.lr_warmup_steps)
    return LEAST_LR + (1 - LEAST_LR) * 0.5 * (1 + math.cos(math.pi * share))


@torch.no_grad()
def update_ema(ema: dict[str, Tensor], unet: Any, decay: float, step: int) -> None:
    """Moves the average of the trained weights; in the first steps faster, by (1 + step) / (10 + step) (as TensorFlow's). Nothing at 0."""
    if not decay:
        return
    weights = {key: value for key, value in unet.named_parameters() if value.requires_grad or key in ema}
    for key in weights.keys() - ema.keys():
        ema[key] = weights[key].detach().float().clone()
    kept = min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_([ema[key] for key in weights], [w.detach().float() for w in weights.values()], 1 - kept)


class AdamWBf16(torch.optim.Optimizer):
    """AdamW (Loshchilov & Hutter 2019) whose weights are bfloat16: moments and arithmetic in float32, the result rounded stochastically.

    The rounding of a step is a function of (seed, step).
    """

    def __init__(self, weights: list[Tensor], lr: float, weight_decay: float, seed: int) -> None:
        super().__init__(weights, {"lr": lr, "weight_decay": weight_decay, "betas": BETAS, "eps": EPS})
        self.seed = seed

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step for all weights with a gradient."""
        for group in self.param_groups:
            weights = [w for w in group["params"] if w.grad is not None]
            if not weights:
                continue
            for w in weights:
                if not self.state[w]:
                    zeros = torch.zeros_like(w, dtype=torch.float32)
                    self.state[w] |= {"step": torch.zeros(()), "exp_avg": zeros, "exp_avg_sq": zeros.clone()}
            grads = [w.grad.float() for w in weights]
            means = [self.state[w]["exp_avg"] for w in weights]
            squares = [self.state[w]["exp_avg_sq"] for w in weights]
            beta1, beta2 = group["betas"]
            torch._foreach_lerp_(means, grads, 1 - beta1)
            torch._foreach_mul_(squares, beta2)
            torch._foreach_addcmul_(squares, grads, grads, 1 - beta2)
            for w, mean, square in zip(weights, means, squares, strict=True):
                n = self.state[w]["step"] = self.state[w]["step"] + 1
                count = float(n)
                deviation = (square / (1 - beta2**count)).sqrt_().add_(group["eps"])
                exact = w.float().mul_(1 - group["lr"] * group["weight_decay"])
                exact.addcdiv_(mean, deviation, value=-group["lr"] / (1 - beta1**count))
                w.copy_(round_stochastically(exact, self._generator(w, int(count))))

    def _generator(self, weight: Tensor, count: int) -> torch.Generator:
        """A stream for one weight and step: the number of the weight is its place in the group."""
        if not hasattr(self, "_places"):
            self._places = {id(w): i for i, w in enumerate(self.param_groups[0]["params"])}
        seed = (self.seed * 1_000_003 + count) * 1_000_003 + self._places[id(weight)]
        return torch.Generator(device=weight.device).manual_seed(seed % 2**63)


def round_stochastically(exact: Tensor, generator: torch.Generator) -> Tensor:
    """Float32 -> bfloat16, up with the probability of the distance: the mean of many roundings is the number itself.

    bfloat16 is the upper half of a float32. Adding a random lower half carries into the upper one with just that probability.
    """
    low = torch.randint(0, 1 << 16, exact.shape, generator=generator, device=exact.device, dtype=torch.int32)
    bits = exact.contiguous().view(torch.int32) + low
    rounded = (bits & -65536).view(torch.float32)  # the lower 16 bits to zero
    return torch.where(exact.isfinite(), rounded, exact).to(torch.bfloat16)
