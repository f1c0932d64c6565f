"""An open_clip model of ViT-L/14's architecture, small and randomly initialised: the tests have no CLIP weights."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

TINY = {
    "embed_dim": 48,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}


def build(
    folder: Path, config: dict[str, Any] | None = None, change: Callable[[Any], None] = lambda net: None
) -> tuple[Path, Any]:
    """Writes a folder in the hub's format (configuration and safetensors) and `<folder>.json`; returns that file and the model."""
    import open_clip
    import torch
    from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
    from safetensors.torch import save_file

    config = config or TINY
    folder.mkdir(parents=True, exist_ok=True)
    file = folder.with_suffix(".json")
    file.write_text(json.dumps(config))
    torch.manual_seed(3)
    kind = open_clip.CoCa if "multimodal_cfg" in config else open_clip.CLIP
    net = kind(**{name: value for name, value in config.items() if name != "custom_text"}).eval()
    change(net)
    preprocess = {"mean": OPENAI_DATASET_MEAN, "std": OPENAI_DATASET_STD}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    state = {name: tensor.contiguous() for name, tensor in net.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    return file, net
