"""open_clip models: loading one from a folder, its input pictures, its vectors, shared by `OpenClip`, `ZeroShot`, `annotate.Coca` and others.

OpenAI's weights were trained with QuickGELU. A model built without it loads them without an error and gives wrong vectors. The configuration
that is stored beside the weights (`open_clip_config.json`, as in every repository of the hub's timm and laion collections) is therefore used;
the configuration called `model` is used only for weights without one.

Checked with open_clip_torch 3.3.0 (`tests/filters/test_open_clip.py`); pyproject.toml excludes releases from 4.0 on.

N frames, H height, W width in pixels, C = 3 channels, D numbers of a vector.
"""

import difflib
import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.clip import Clip
from filters.models.device import Precision, dtype_of, resolved

FRAMES = ("first", "middle", "last")
CHECKPOINTS = (
    *("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors"),
    *("open_clip_pytorch_model.bin", "open_clip_pytorch_model.pth"),
    *("model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth"),
)
"""Names that open_clip prefers when a folder holds several checkpoints, the most preferred first."""


def config_of(model: str) -> dict[str, Any]:
    """The configuration called `model`, or in the JSON file of that path; read without importing torch.

    Raises:
        ValueError: there is no such configuration.
        ModuleNotFoundError: `model` is a name and the package open_clip is not installed.
    """
    if model.endswith(".json"):
        file = Path(model).expanduser()
        if not file.is_file():
            raise ValueError(f"the file of model '{model}' does not exist")
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
    """The vectors scaled to length 1, float32, shape (N, D). Raises ValueError for a zero or non-finite vector."""
    vectors: NDArray[np.float32] = np.asarray(vectors_ND, dtype=np.float32)
    norms_N1 = np.linalg.norm(vectors, axis=-1, keepdims=True)
    if not (np.isfinite(norms_N1).all() and (norms_N1 > 0).all()):
        raise ValueError("the model's output is zero or not finite")
    return np.asarray(vectors / norms_N1, dtype=np.float32)


def model_picture(
    frame_HWC: NDArray[np.uint8],
    size_px: int,
    *,
    interpolation: str = "bicubic",
    mode: str = "shortest",
) -> NDArray[np.uint8]:
    """The frame as the model sees it before scaling: `size_px` square, RGB 0..255.

    `shortest` resizes the short side to `size_px` and crops the centre, `squash` (SigLIP) changes the aspect ratio. Equal to
    open_clip's own transform to the last bit.
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


def checkpoint_in(folder: Path) -> Path:
    """The checkpoint that open_clip itself would load from a folder: a name of CHECKPOINTS, else safetensors first, by name.

    Raises:
        ValueError: the folder has no safetensors or PyTorch file.
    """
    found = sorted(
        (file for kind in ("*.safetensors", "*.bin", "*.pth") for file in folder.glob(kind)),
        key=lambda file: (
            CHECKPOINTS.index(file.name) if file.name in CHECKPOINTS else len(CHECKPOINTS),
            file.suffix != ".safetensors",
            file,
        ),
    )
    if not found:
        raise ValueError(
            f"{folder} holds no checkpoint (.safetensors, .bin or .pth); give weights the checkpoint or its folder"
        )
    return found[0]


@dataclass
class Encoder:
    """A loaded open_clip model with its preprocessing."""

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
        """Pictures of the model's size as its input tensor, on its device, shape (N, 3, H, W)."""
        import torch

        pixels_NCHW = torch.from_numpy(pictures_NHWC).to(self.device, non_blocking=True).permute(0, 3, 1, 2).float()
        mean, std = (torch.tensor(v, device=self.device).view(1, 3, 1, 1) for v in (self.mean, self.std))
        return ((pixels_NCHW / 255.0 - mean) / std).to(self.dtype, memory_format=torch.contiguous_format)

    def encode_images(self, pictures_NHWC: NDArray[np.uint8]) -> Any:
        """The model's output for pictures of its size, on its device, shape (N, D), not scaled to length 1."""
        import torch

        with torch.inference_mode():
            return self.net.encode_image(self.pixels(pictures_NHWC)).float()

    def encode_texts(self, texts: Sequence[str]) -> Any:
        """The model's output for texts, on its device, shape (N, D), not scaled to length 1."""
        import torch

        with torch.inference_mode():
            return self.net.encode_text(self.tokenize(list(texts)).to(self.device)).float()


def load(model: str, weights: str, precision: Precision = "auto", device: str = "auto") -> Encoder:
    """Loads an open_clip model from a folder or a file; nothing is downloaded.

    Raises:
        ValueError: the weights do not belong to `model`, or the model resizes frames in an unsupported way.
    """
    import open_clip

    path, dim = Path(weights), int(config_of(model)["embed_dim"])
    device, precision = resolved(device, precision)
    if path.is_dir() and (path / "open_clip_config.json").is_file():
        name, checkpoint = f"local-dir:{path}", None
    else:
        if model.endswith(".json"):
            open_clip.add_model_config(model)
        name = Path(model).stem if model.endswith(".json") else model
        checkpoint = str(path if path.is_file() else checkpoint_in(path))
    net = open_clip.create_model(name, checkpoint, precision=precision, device=device, require_pretrained=True).eval()
    how = net.visual.preprocess_cfg
    size_px = how["size"] if isinstance(how["size"], int) else how["size"][0]
    if how["resize_mode"] not in ("shortest", "squash") or how["size"] not in (size_px, (size_px, size_px)):
        raise ValueError(
            f"model '{model}' resizes frames by '{how['resize_mode']}', which is not supported; use a model with shortest or squash"
        )
    encoder = Encoder(
        net,
        device,
        dtype_of(precision),
        dim,
        size_px,
        how["interpolation"],
        how["resize_mode"],
        tuple(how["mean"]),
        tuple(how["std"]),
        open_clip.get_tokenizer(name),
    )
    blank = np.zeros((1, size_px, size_px, 3), dtype=np.uint8)
    if (found := int(encoder.encode_images(blank).shape[-1])) != dim:
        raise ValueError(
            f"the weights give vectors of {found} numbers, model '{model}' has {dim}; set model and weights to the same model"
        )
    return encoder


def distinct_frames(clip: Clip) -> list[NDArray[np.uint8]]:
    """First, middle and last thumbnail, each frame once: up to three."""
    return (
        [clip.first, clip.middle, clip.last] if len(clip.jpegs) > 2 else [clip.first, clip.last][: len(clip.jpegs) or 1]
    )
