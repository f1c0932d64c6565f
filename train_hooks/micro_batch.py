"""Micro-batches of a step: their split over ranks, and the forward and backward pass of one.

Shapes: B clips, C latent channels, F frames and stills, h and w in latents; u_B one noise level for each clip.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from train_hooks.batch import Encoder, shows_images
from train_hooks.feed import Chunk, Feed, Loaded
from train_hooks.machine import Machine
from train_hooks.net import Net
from train_hooks.objectives import draw_levels, draw_noise, noised
from train_hooks.recipe import Recipe
from train_hooks.rng import Rng, seed_dropout


@dataclass(frozen=True)
class Tools:
    """The net, encoder, noise schedule and device of a training."""

    net: Net
    encoder: Encoder
    scheduler: Any
    machine: Machine


@dataclass(frozen=True)
class Tally:
    """For each clip of a batch: its loss, its noise level from 0 to 1, and 1 where it is the planned clip, 0 where a substitute."""

    rows: Tensor

    @classmethod
    def empty(cls, batch: int) -> "Tally":
        """For a batch before its first micro-batch."""
        return cls(torch.zeros(3, batch, dtype=torch.float64))

    @property
    def losses(self) -> list[float]:
        """By place in the batch."""
        return self.rows[0].tolist()

    @property
    def levels(self) -> list[float]:
        """By place in the batch."""
        return self.rows[1].tolist()

    @property
    def meant(self) -> list[bool]:
        """By place in the batch."""
        return [bool(value) for value in self.rows[2].tolist()]


def seen_step(stage: Recipe, step: int) -> int:
    """The step whose clips and random numbers are used: `step`, or with `overfit` one of the first."""
    return step % stage.overfit if stage.overfit else step


def micro_batch_size(stage: Recipe, world: int) -> int:
    """Clips of a micro-batch on each rank."""
    share = -(-stage.batch // world)
    return min(stage.micro_batch or share, share)


def micro_batches_of(stage: Recipe, feed: Feed, step: int, rank: int, world: int) -> list[Chunk]:
    """One rank's micro-batches of a step: every world-th of the batch."""
    seen, size = seen_step(stage, step), micro_batch_size(stage, world)
    firsts = range(0, stage.batch, size)
    return [
        feed.chunk(
            seen,
            range(first, min(first + size, stage.batch)),
            shows_images(seen, number, len(firsts), stage.image_rank_share),
            stage.images_per_video,
        )
        for number, first in enumerate(firsts)
        if number % world == rank
    ]


def split(loaded: Loaded, n: int) -> Iterator[Loaded]:
    """A loaded chunk in parts of at most n clips."""
    chunk, total = loaded.chunk, len(loaded.samples)
    each = len(loaded.stills) // total
    for first in range(0, total, n):
        part, pictures = slice(first, first + n), slice(first * each, (first + n) * each)
        own = replace(chunk, places=chunk.places[part], clips=chunk.clips[part], stills=chunk.stills[pictures])
        yield Loaded(own, loaded.samples[part], loaded.stills[pictures], loaded.broken)


def backward(stage: Recipe, micro_batch: Loaded, clip_ids: Sequence[str], tools: Tools, tally: Tally) -> None:
    """Forward and backward pass of one micro-batch: adds its share of the batch's mean loss to the gradients and its clips to the tally.

    `clip_ids`: the clips that the whole batch should have, by place.
    """
    chunk, machine = micro_batch.chunk, tools.machine
    places = list(chunk.places)
    rng = Rng(stage.seed, chunk.step, places)
    batch = tools.encoder.batch(stage, micro_batch.samples, micro_batch.stills, rng)
    noise_BCFhw = draw_noise(batch.latents_BCFhw.shape, stage.offset_noise, rng).to(machine.device)
    u_B = draw_levels(rng, stage.batch if stage.stratified_timesteps else 0).to(machine.device)
    draw = noised(stage, tools.scheduler, batch.latents_BCFhw, noise_BCFhw, u_B)
    seed_dropout(stage.seed, chunk.step, places[0])
    loss_B = batch.loss(stage, draw, tools.net(draw.input_BCTHW, draw.time_B, batch.conditions))
    machine.accelerator.backward(loss_B.sum() / stage.batch)
    tally.rows[0, places] = loss_B.detach().double().cpu()
    tally.rows[1, places] = draw.level_B.double().cpu()
    meant = [clip_ids[place] == clip_id for place, clip_id in zip(places, batch.clip_ids, strict=True)]
    tally.rows[2, places] = torch.tensor(meant).double()
