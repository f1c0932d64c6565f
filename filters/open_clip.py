"""OpenClip: what a CLIP model sees in the first, middle and last thumbnail, stored once for every stage that asks.

Unit: vectors of length 1, float32, as many numbers as the model has (768 for ViT-L/14); the cosine of two is [-1, 1],
higher is more alike. `Aesthetic`, `CaptionSimilarity`, `ScreenContent`, `Duplicate` and the index read these columns:
the encoder runs once on a frame. ("clip" alone always means a piece of video; the model is "openclip".)

Source: CLIP (Radford et al. 2021, arXiv 2103.00020) through open_clip; first, middle and last frame as in SVD (arXiv
2311.15127, 3.1). The picture goes in as in open_clip's own evaluation: bicubic (Pillow's, which averages when it
shrinks), the centre cut out, scaled by mean and deviation.

OpenAI's weights were trained with QuickGELU, and a model built without it loads them and answers wrongly without a
word. The configuration that lies beside the weights (`open_clip_config.json`, as in every repository of the hub's timm
and laion collections) therefore decides; only for weights without one does the configuration called `model`.

The same value whatever the batch. On the CPU one clip goes through the model at a time: what stands beside it cannot
change a bit. On a GPU passes have one fixed size, `GPU_FRAMES`, the last one filled up with zeros, so that the same
kernels run on every frame; float32 is what the CPU computes; by how much bf16 and fp16 differ from it was not measured (no GPU at hand).

N frames, H height, W width in pixels, C = 3 channels, D numbers of a vector.
"""

import difflib
import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.clip import Clip

GPU_FRAMES = 48
FRAMES = ("first", "middle", "last")
Precision = Literal["auto", "fp32", "fp16", "bf16"]


def config_of(model: str) -> dict[str, Any]:
    """The configuration called `model`, or of a file of that path; read without importing torch.

    Raises:
        ValueError: there is no such configuration.
        ModuleNotFoundError: a name is given and the package open_clip is not installed.
    """
    if model.endswith(".json"):
        file = Path(model).expanduser()
        if not file.is_file():
            raise ValueError(f"model '{model}': there is no such file")
        return dict(json.loads(file.read_text()))
    spec = importlib.util.find_spec("open_clip")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'open_clip'", name="open_clip")
    folder = Path(spec.submodule_search_locations[0]) / "model_configs"
    if not (folder / f"{model}.json").is_file():
        near = difflib.get_close_matches(model, [path.stem for path in folder.glob("*.json")], n=1)
        raise ValueError(f"open_clip has no model '{model}'" + (f"; did you mean {near[0]}?" if near else ""))
    return dict(json.loads((folder / f"{model}.json").read_text()))


def vector_type(model: str) -> pa.DataType:
    """The Arrow type of one vector of that model."""
    return pa.list_(pa.float32(), int(config_of(model)["embed_dim"]))


def unit(vectors_ND: NDArray[np.generic]) -> NDArray[np.float32]:
    """The vectors scaled to length 1, float32, shape (N, D). Raises ValueError where there is none, or no number."""
    vectors: NDArray[np.float32] = np.asarray(vectors_ND, dtype=np.float32)
    norms_N1 = np.linalg.norm(vectors, axis=-1, keepdims=True)
    if not (np.isfinite(norms_N1).all() and (norms_N1 > 0).all()):
        raise ValueError("the model's answer is not a finite vector")
    return np.asarray(vectors / norms_N1, dtype=np.float32)


def model_picture(
    frame_HWC: NDArray[np.uint8],
    size_px: int,
    *,
    interpolation: str = "bicubic",
    mode: str = "shortest",
) -> NDArray[np.uint8]:
    """The frame as the model sees it before scaling: `size_px` square, RGB 0..255.

    `shortest` brings the short side to `size_px` and cuts out the centre, `squash` (SigLIP) gives up the proportions:
    to the last bit what open_clip's own transform gives.
    """
    from PIL import Image

    how = Image.Resampling.BICUBIC if interpolation == "bicubic" else Image.Resampling.BILINEAR
    picture = Image.fromarray(frame_HWC)
    if mode == "squash":
        return np.asarray(picture.resize((size_px, size_px), how), dtype=np.uint8)
    width_px, height_px = picture.size
    long_px = int(size_px * max(width_px, height_px) / min(width_px, height_px))
    new_px = (size_px, long_px) if width_px <= height_px else (long_px, size_px)
    left, top = (round((side_px - size_px) / 2.0) for side_px in new_px)
    whole_HWC = np.asarray(picture.resize(new_px, how), dtype=np.uint8)
    return whole_HWC[top : top + size_px, left : left + size_px]


@dataclass
class Encoder:
    """A loaded open_clip model with all that is needed to feed it."""

    net: Any
    device: Any
    dtype: Any
    dim: int
    size_px: int
    interpolation: str
    mode: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    tokenize: Any

    @property
    def on_cpu(self) -> bool:
        """Whether the model runs on the CPU."""
        return str(self.device).startswith("cpu")

    def picture(self, frame_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The frame as this model sees it before scaling."""
        return model_picture(frame_HWC, self.size_px, interpolation=self.interpolation, mode=self.mode)

    def pixels(self, pictures_NHWC: NDArray[np.uint8]) -> Any:
        """Pictures of the model's own size as it takes them, on its device, shape (N, 3, H, W)."""
        import torch

        pixels_NCHW = torch.from_numpy(pictures_NHWC).to(self.device, non_blocking=True).permute(0, 3, 1, 2).float()
        mean, std = (torch.tensor(v, device=self.device).view(1, 3, 1, 1) for v in (self.mean, self.std))
        return ((pixels_NCHW / 255.0 - mean) / std).to(self.dtype, memory_format=torch.contiguous_format)

    def encode_images(self, pictures_NHWC: NDArray[np.uint8]) -> Any:
        """Model's answer for pictures of its own size, still on its device, shape (N, D), not scaled to length 1."""
        import torch

        with torch.inference_mode():
            return self.net.encode_image(self.pixels(pictures_NHWC)).float()

    def encode_texts(self, texts: Sequence[str]) -> Any:
        """Model's answer for texts, still on its device, shape (N, D), not scaled to length 1."""
        import torch

        with torch.inference_mode():
            return self.net.encode_text(self.tokenize(list(texts)).to(self.device)).float()


def load(model: str, weights: str, precision: Precision = "auto", device: str = "auto") -> Encoder:
    """Loads an open_clip model from a folder or a file; nothing is fetched.

    Raises ValueError when the weights are of another model than `model`.
    """
    import open_clip
    import torch

    path, dim = Path(weights), int(config_of(model)["embed_dim"])
    device = device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    if precision == "auto":
        on_gpu: Precision = "bf16" if device.startswith("cuda") and torch.cuda.is_bf16_supported() else "fp16"
        precision = "fp32" if device == "cpu" else on_gpu
    if path.is_dir() and (path / "open_clip_config.json").is_file():
        name, checkpoint = f"local-dir:{path}", None
    else:
        if model.endswith(".json"):
            open_clip.add_model_config(model)
        name = Path(model).stem if model.endswith(".json") else model
        checkpoint = str(path if path.is_file() else open_clip.factory._find_checkpoint_in_dir(path))
    net = open_clip.create_model(name, checkpoint, precision=precision, device=device, require_pretrained=True).eval()
    how = net.visual.preprocess_cfg
    size_px = how["size"] if isinstance(how["size"], int) else how["size"][0]
    if how["resize_mode"] not in ("shortest", "squash") or how["size"] not in (size_px, (size_px, size_px)):
        raise ValueError(f"model '{model}' wants pictures resized in a way ('{how['resize_mode']}') we do not do")
    dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    made = Encoder(
        net,
        device,
        dtype,
        dim,
        size_px,
        how["interpolation"],
        how["resize_mode"],
        tuple(how["mean"]),
        tuple(how["std"]),
        open_clip.get_tokenizer(name),
    )
    blank = np.zeros((1, size_px, size_px, 3), dtype=np.uint8)
    if (found := int(made.encode_images(blank).shape[-1])) != dim:
        raise ValueError(f"the weights give vectors of {found} numbers, model '{model}' has {dim}: they do not match")
    return made


@dataclass
class OpenClip:
    """Unit-norm CLIP vectors of the first, middle and last thumbnail, and their mean scaled to length 1 again.

    A clip of one thumbnail has that frame's vector in every column; a frame is never encoded twice.

    Attributes:
        model: Name of an open_clip configuration, or a JSON file of that form. It fixes how long the vectors are.
        weights: Folder with `open_clip_config.json` and a checkpoint, or a checkpoint (safetensors, PyTorch).
        precision: `auto` is bf16 on a GPU that has it, else fp16; fp32 on the CPU.
        device: `auto` is the GPU where there is one.
    """

    model: str = "ViT-L-14"
    weights: str = "hub:timm/vit_large_patch14_clip_224.openai"
    precision: Precision = "auto"
    device: str = "auto"

    _encoder: Encoder | None = field(default=None, init=False, repr=False, compare=False)

    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ()
    searched: ClassVar[str] = "openclip"

    @property
    def columns(self) -> dict[str, pa.DataType]:
        """Four vectors, as long as the model's."""
        return {f"openclip{suffix}": vector_type(self.model) for suffix in ("_first", "_middle", "_last", "")}

    def setup(self) -> None:
        """Load the model from its folder; nothing is fetched."""
        cv2.setNumThreads(1)
        self._encoder = load(self.model, self.weights, self.precision, self.device)

    def embed_images(self, frames: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Embeddings of any pictures, RGB 0..255, each (H, W, 3), to search with; shape (N, D), unit norm."""
        if (encoder := self._encoder) is None:
            raise RuntimeError("call setup() before embed_images()")
        pictures_NHWC = np.stack([encoder.picture(frame) for frame in frames])
        return unit(encoder.encode_images(pictures_NHWC).cpu().numpy())

    def embed_texts(self, texts: list[str]) -> NDArray[np.float32]:
        """Embeddings of texts, to search with; shape (N, D), unit norm."""
        if (encoder := self._encoder) is None:
            raise RuntimeError("call setup() before embed_texts()")
        return unit(encoder.encode_texts(texts).cpu().numpy())

    def __call__(self, clips: list[Clip]) -> list[dict[str, Any]]:
        """One row per clip: `clip_id` and the four vectors.

        Raises:
            RuntimeError: called before `setup`.
            ValueError: the model's answer for a clip is not finite.
        """
        if (encoder := self._encoder) is None:
            raise RuntimeError("call setup() before OpenClip is called")
        if not encoder.on_cpu:
            return self._on_gpu(encoder, clips)
        rows = []
        for clip in clips:
            pictures = [encoder.picture(frame) for frame in distinct_frames(clip)]
            rows.append(_row(clip, encoder.encode_images(np.stack(pictures)).numpy()))
        return rows

    def _on_gpu(self, encoder: Encoder, clips: list[Clip]) -> list[dict[str, Any]]:
        """Passes of one fixed size; while one runs, the pictures of the next are cut and resized."""
        frames = [frame for clip in clips for frame in distinct_frames(clip)]
        parts = []
        for start in range(0, len(frames), GPU_FRAMES):
            some = frames[start : start + GPU_FRAMES]
            pictures_NHWC = np.zeros((GPU_FRAMES, encoder.size_px, encoder.size_px, 3), dtype=np.uint8)
            for picture_HWC, frame in zip(pictures_NHWC, some, strict=False):
                picture_HWC[:] = encoder.picture(frame)
            parts.append(encoder.encode_images(pictures_NHWC)[: len(some)])
        vectors = iter([vector for part in parts for vector in part.cpu().numpy()])
        return [_row(clip, np.stack([next(vectors) for _ in range(min(3, len(clip.jpegs)))])) for clip in clips]


def distinct_frames(clip: Clip) -> list[NDArray[np.uint8]]:
    """First, middle and last thumbnail, each frame once: three, or as many as there are."""
    return (
        [clip.first, clip.middle, clip.last] if len(clip.jpegs) > 2 else [clip.first, clip.last][: len(clip.jpegs) or 1]
    )


def _row(clip: Clip, vectors_ND: NDArray[np.float32]) -> dict[str, Any]:
    """The row from the vectors of a clip's distinct frames."""
    try:
        units_ND = unit(vectors_ND)
        three_3D = units_ND[[0, len(units_ND) // 2, len(units_ND) - 1]]
        mean_D = unit(three_3D.mean(axis=0))
    except ValueError as error:
        raise ValueError(f"clip {clip.clip_id}: {error}") from error
    return {
        "clip_id": clip.clip_id,
        **{f"openclip_{name}": vector for name, vector in zip(FRAMES, three_3D, strict=True)},
        "openclip": mean_D,
    }
