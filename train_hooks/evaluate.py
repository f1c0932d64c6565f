"""What samples are worth: colours that drift, CLIPSIM and FVD.

The latter two need weights, which are used where the user has them and never fetched.

Shapes: N videos, T frames, C = 3, H and W in pixels, 0..1.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from train_hooks.errors import TrainError

FVD_FEWEST = 2  # videos on either side; below a few hundred the figure says little


def colour_drift(sampled: Sequence[Tensor], real_C: Tensor) -> float:
    """The largest difference of a channel's mean, of all samples (T, C, H, W) together, to the trained clips' mean; 0..1.

    Finetuned models darken or oversaturate long before anything else goes wrong (finetrainers issue 353, CogVideo issue 750).
    """
    mean_C = torch.stack([video.mean(dim=(0, 2, 3)) for video in sampled]).mean(dim=0)
    return (mean_C - real_C).abs().max().item()


class ClipSim:
    """CLIPSIM (Wu et al. 2021, arXiv 2104.14806): mean cosine similarity of a prompt and the frames, by CLIP from a folder of transformers.

    Raises TrainError when the folder cannot be read.
    """

    def __init__(self, folder: str) -> None:
        from transformers import CLIPModel, CLIPProcessor

        try:
            self._model: Any = CLIPModel.from_pretrained(folder).eval().requires_grad_(False)
            self._processor: Any = CLIPProcessor.from_pretrained(folder)
        except (OSError, ValueError) as error:
            raise TrainError(f"clip_weights: {folder} cannot be read: {str(error).splitlines()[0]}") from None

    @torch.no_grad()
    def __call__(self, videos: Sequence[Tensor], prompts: Sequence[str]) -> float:
        """The mean over videos (T, C, H, W)."""
        scores = []
        for video, prompt in zip(videos, prompts, strict=True):
            given = self._processor(
                text=[prompt], images=list(video), return_tensors="pt", padding=True, truncation=True, do_rescale=False
            )
            found = self._model(**given)
            image, text = (torch.nn.functional.normalize(e, dim=-1) for e in (found.image_embeds, found.text_embeds))
            scores.append((image @ text.T).mean().item())
        return sum(scores) / len(scores)


class Fvd:
    """FVD (Unterthiner et al. 2018, arXiv 1812.01717) on the features of an I3D as TorchScript, such as StyleGAN-V's `i3d_torchscript.pt`.

    It is called as that one: videos (N, C, T, H, W), 0..255, with rescale, resize and return_features. Raises TrainError when it cannot be read.
    """

    def __init__(self, path: str) -> None:
        if not Path(path).is_file():
            raise TrainError(f"fvd_weights: there is no file {path}")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore", FutureWarning
                )  # TorchScript is on its way out, and this I3D is published as such
                self._features: Any = torch.jit.load(path).eval()
        except RuntimeError as error:
            raise TrainError(f"fvd_weights: {path} is no TorchScript: {str(error).splitlines()[0]}") from None

    @torch.no_grad()
    def __call__(self, sampled: Sequence[Tensor], real: Sequence[Tensor]) -> float | None:
        """The distance of two sets of videos (T, C, H, W), or None with fewer than two in one of them."""
        if min(len(sampled), len(real)) < FVD_FEWEST:
            return None
        found = [
            self._features(
                torch.stack(list(videos)).transpose(1, 2) * 255, rescale=True, resize=True, return_features=True
            )
            for videos in (sampled, real)
        ]
        return frechet_distance(*found)


def frechet_distance(a_ND: Tensor, b_ND: Tensor) -> float:
    """|mean difference|^2 + tr(A + B - 2 sqrt(A B)) of two sets of features, each fitted by a normal distribution (Dowson & Landau 1982)."""
    a, b = a_ND.double(), b_ND.double()
    cov_a, cov_b = torch.atleast_2d(torch.cov(a.T)), torch.atleast_2d(torch.cov(b.T))
    root_a = _root(cov_a)
    crossed = torch.linalg.eigvalsh(root_a @ cov_b @ root_a).clamp(min=0).sqrt().sum()
    distance = (a.mean(0) - b.mean(0)).square().sum() + cov_a.trace() + cov_b.trace() - 2 * crossed
    return float(distance)


def _root(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    root: Tensor = vectors * values.clamp(min=0).sqrt() @ vectors.T
    return root
