"""What a finished training is worth, so that several can be compared: losses on clips that none was trained on, and samples.

The losses are taken on the same (clip, noise level, noise) cells for every training, whatever its seed, so that two of them can be subtracted
cell by cell. Samples come from the same prompts and seeds.

Shapes: T frames, C = 3 channels, H and W in pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from train_hooks.batch import Encoder
from train_hooks.conditioning import MotionBuckets
from train_hooks.errors import TrainError
from train_hooks.evaluate import ClipSim, Fvd
from train_hooks.feed import Feed, as_float
from train_hooks.heldout import grid_losses
from train_hooks.objectives import schedule
from train_hooks.pictures import write_video
from train_hooks.recipe import Recipe
from train_hooks.rng import Rng
from train_hooks.sample import Ask, open_folder, sample
from train_hooks.shard_index import ShardClip, ShardIndex, read_index
from train_hooks.stage_feed import feed_of

DRAWS = 2  # noise samples for each clip and level; ours
SEED = 0  # of the judge's noise and windows: never a training's own
_JUDGE = -5  # the judge's step for `Rng`; training, grid and sampling use others


@dataclass(frozen=True)
class Prompt:
    """What is sampled: words, the seed, and for image-to-video the clip whose first frame is shown."""

    text: str
    seed: int
    clip_id: str = ""


class Judge:
    """A finished training beside the clips that it is judged on.

    Raises TrainError where the folder is no finished training, or the clips are not in the shards.
    """

    def __init__(self, folder: Path, shards: str | Path, motion_quantiles: Sequence[float] = ()) -> None:
        self.recipe, self.base, self.net = open_folder(folder)
        self.index = read_index(shards)
        self.shards = shards
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        for part in (self.base.vae, self.base.text_encoder, self.base.image_encoder, self.net.unet):
            if part is not None:
                part.to(device)
        self._encoder = Encoder(self.base, MotionBuckets(tuple(motion_quantiles)))

    def losses(self, clip_ids: Sequence[str]) -> dict[str, list[float]]:
        """Of each clip its losses, level by level, DRAWS for each; a clip that cannot be decoded is left out."""
        feed = _feed(self.recipe, self.shards, self.index, clip_ids)
        still = replace(feed_recipe(self.recipe), caption_dropout=0.0, image_dropout=0.0, sample_posterior=False)
        places = {
            clip_id: i for i, clip_id in enumerate(clip_ids)
        }  # so that each has its own noise, whatever fails beside it
        scheduler = schedule(self.recipe)
        found: dict[str, list[float]] = {}
        samples = []
        for clip in feed.train:
            try:
                samples.append(feed.read(clip, epoch=0))
            except TrainError:
                continue
        at_once = self.recipe.micro_batch or self.recipe.batch  # what a training step has memory for
        for first in range(0, len(samples), at_once):
            part = samples[first : first + at_once]
            rng = Rng(SEED, _JUDGE, [places[one.clip_id] for one in part])
            batch = self._encoder.batch(still, part, [], rng)
            rows = torch.cat([grid_losses(still, self.net, scheduler, batch, rng) for _ in range(DRAWS)])
            found |= {one.clip_id: rows[:, i].tolist() for i, one in enumerate(part)}
        return found

    def sample(self, prompts: Sequence[Prompt], folder: Path) -> list[Tensor]:
        """Samples every prompt, writes `00.mp4`, `01.mp4`, ... and returns the videos (T, C, H, W), 0..1."""
        folder.mkdir(parents=True, exist_ok=True)
        videos = []
        for i, prompt in enumerate(prompts):
            first = self._first_frame(prompt.clip_id) if self.recipe.image_condition != "none" else None
            videos.append(
                sample(self.recipe, self.base, self.net, Ask(prompt.text, prompt.seed, first_frame_CHW=first))
            )
            write_video(videos[-1], self.recipe.fps, folder / f"{i:02d}.mp4")
        return videos

    def scores(self, videos: Sequence[Tensor], prompts: Sequence[Prompt], real_ids: Sequence[str]) -> dict[str, float]:
        """CLIPSIM and FVD of the samples, where the recipe names weights for them (`clip_weights`, `fvd_weights`)."""
        found: dict[str, float] = {}
        if self.recipe.clip_weights:
            found["clipsim"] = ClipSim(self.recipe.clip_weights)(videos, [prompt.text for prompt in prompts])
        if self.recipe.fvd_weights:
            feed = _feed(self.recipe, self.shards, self.index, real_ids)
            real = [feed.window(clip, 0, feed.sizes[0])[0].float() / 255 for clip in feed.train]
            distance = Fvd(self.recipe.fvd_weights)(videos, real)
            if distance is not None:
                found["fvd"] = distance
        return found

    def _first_frame(self, clip_id: str) -> Tensor:
        feed = _feed(self.recipe, self.shards, self.index, [clip_id])
        return as_float(feed.window(feed.train[0], 0, feed.sizes[0]._replace(frames=1))[0][0])


def feed_recipe(recipe: Recipe) -> Recipe:
    """The recipe for clips that are looked at once: all of them, one window each, drawn by the judge's seed."""
    return replace(recipe, seed=SEED, heldout_share=0.0, tagged_frames=False, images_per_video=0, image_folder="")


def usable(recipe: Recipe, shards: str | Path) -> tuple[list[ShardClip], dict[str, str], ShardIndex]:
    """The clips that are long enough for a recipe's own size, why each of the others is not, and the index of all."""
    feed = feed_of(feed_recipe(recipe), shards)
    return feed.train, feed.left_out, feed.index


def _feed(recipe: Recipe, shards: str | Path, index: ShardIndex, clip_ids: Sequence[str]) -> Feed:
    return feed_of(feed_recipe(recipe), shards, index.only(clip_ids, "the judge"))
