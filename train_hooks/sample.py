"""One video from a finished folder, to look at: `sample.mp4`, and `sample.png` with the real clip's frames below.

Shapes: T frames, H and W in pixels, C = 3; pixels are 0..1 here, as diffusers pipelines give them.
"""

from fractions import Fraction
from pathlib import Path

import av
import torch
from diffusers import TextToVideoSDPipeline
from PIL import Image
from torch import Tensor

from train_hooks.recipe import Recipe

SHOWN_WIDTH_PX = 384  # frames are enlarged by a whole factor to at least this width; ours
GAP_PX = 4


def sample(folder: Path, prompt: str, recipe: Recipe) -> Tensor:
    """Loads the folder as its users will and samples one video from the recipe's seed, `frames_TCHW` in 0..1."""
    pipeline = TextToVideoSDPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    frames_1THWC = pipeline(
        prompt,
        height=recipe.height_px,
        width=recipe.width_px,
        num_frames=recipe.frames,
        num_inference_steps=recipe.sample_steps,
        guidance_scale=recipe.guidance,
        generator=torch.Generator().manual_seed(recipe.seed),
        output_type="np",
    ).frames
    return torch.from_numpy(frames_1THWC[0]).permute(0, 3, 1, 2).float()


def write_mp4(frames_TCHW: Tensor, fps: float, path: Path) -> None:  # noqa: N803
    """Writes H.264, yuv420p, enlarged bicubically so that it can be watched."""
    factor = -(-SHOWN_WIDTH_PX // frames_TCHW.shape[-1])
    large = torch.nn.functional.interpolate(frames_TCHW, scale_factor=factor, mode="bicubic").clamp(0, 1)
    part = path.with_suffix(".part")
    with av.open(str(part), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width = large.shape[-2:]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "16"}
        for frame_CHW in large:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(_bytes_HWC(frame_CHW).numpy(), format="rgb24")))
        container.mux(stream.encode())
    part.replace(path)


def write_sheet(sampled_TCHW: Tensor, real_TCHW: Tensor, path: Path) -> None:  # noqa: N803
    """Writes a PNG of two rows, one column per frame: the sampled frames above, the real clip's below.

    Nearest, twice the size.
    """
    rows = [
        torch.cat([torch.nn.functional.pad(f, (0, GAP_PX, 0, GAP_PX), value=1.0) for f in r], -1)
        for r in (sampled_TCHW, real_TCHW)
    ]
    sheet_CHW = torch.cat(rows, dim=-2).repeat_interleave(2, -1).repeat_interleave(2, -2)
    part = path.with_suffix(".part")
    Image.fromarray(_bytes_HWC(sheet_CHW).numpy()).save(part, format="png")
    part.replace(path)


def _bytes_HWC(frame_CHW: Tensor) -> Tensor:  # noqa: N802, N803
    return (frame_CHW.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous()
