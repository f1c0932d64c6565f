"""Samples during training: the same prompts and seeds every time, as a video and a sheet of frames, with their metrics."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from train_hooks.base import Base
from train_hooks.evaluate import ClipSim, Fvd, colour_drift
from train_hooks.net import Net
from train_hooks.pictures import write_sheet, write_video
from train_hooks.recipe import Recipe
from train_hooks.sample import Ask, sample


@dataclass
class Sheets:
    """`asks` are sampled, one row of the sheet each; `real` are videos of the shards (T, C, H, W), 0..1, to compare with."""

    recipe: Recipe
    base: Base
    net: Net
    asks: Sequence[Ask]
    real: Sequence[torch.Tensor]
    folder: Path

    def __post_init__(self) -> None:
        self._clipsim = ClipSim(self.recipe.clip_weights) if self.recipe.clip_weights else None
        self._fvd = Fvd(self.recipe.fvd_weights) if self.recipe.fvd_weights else None

    def make(self, step: int) -> dict[str, float | None]:
        """Writes `step-00000500.mp4` and `.png`, and returns colour drift, CLIPSIM and FVD; None what there are no weights for."""
        training = self.net.unet.training
        videos = [sample(self.recipe, self.base, self.net, ask).cpu() for ask in self.asks]
        self.net.unet.train(training)
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"step-{step:08d}"
        write_video(torch.cat(videos, dim=-1), self.recipe.fps, path.with_suffix(".mp4"))
        write_sheet(videos, path.with_suffix(".png"))
        real = [video.mean(dim=(0, 2, 3)) for video in self.real]
        prompts = [ask.prompt for ask in self.asks]
        return {
            "colour_drift": colour_drift(videos, torch.stack(real).mean(dim=0)) if real else None,
            "clipsim": self._clipsim(videos, prompts) if self._clipsim is not None else None,
            "fvd": self._fvd(videos, self.real) if self._fvd is not None else None,
        }
