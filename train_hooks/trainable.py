"""Which weights are trained: all, the temporal or the spatial ones, attention alone, or a LoRA beside them.

Weights that came with the base may learn more slowly than the new ones: their gradients are multiplied (ModelScope's trainer: by 0.5).
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from train_hooks.errors import TrainError
from train_hooks.inflate import NEW_KEYS
from train_hooks.recipe import Recipe

LORA_TARGETS = ("to_q", "to_k", "to_v", "to_out.0")  # the linear layers of attention, as diffusers' LoRA scripts


def is_temporal(key: str) -> bool:
    """Whether a parameter is one that inflation adds."""
    return any(word in key for word in NEW_KEYS)


def is_spatial(key: str) -> bool:
    """Whether a parameter came with the image UNet."""
    return not is_temporal(key)


def is_attention(key: str) -> bool:
    """Whether a parameter belongs to an attention, spatial or temporal, but not to its block's feed-forward or norms."""
    return ".attn" in key


WHERE: dict[str, Callable[[str], bool]] = {
    "all": lambda key: True,
    "temporal": is_temporal,
    "spatial": is_spatial,
    "attention": is_attention,
}


def choose(unet: Any, recipe: Recipe) -> dict[str, Tensor]:
    """Freezes what is not trained, adds the LoRA where the recipe asks for one, and returns what is, by name.

    Raises TrainError when nothing is left to train.
    """
    if recipe.trainable == "lora":
        if not any("lora_" in key for key, _ in unet.named_parameters()):
            add_lora(unet, recipe.lora_rank, recipe.lora_layers)
        wanted = {key for key, _ in unet.named_parameters() if "lora_" in key}
    else:
        wanted = {key for key, _ in unet.named_parameters() if WHERE[recipe.trainable](key)}
    for key, parameter in unet.named_parameters():
        parameter.requires_grad_(key in wanted)
    if not wanted:
        raise TrainError(f"trainable '{recipe.trainable}' leaves nothing to train in this UNet")
    return {key: parameter for key, parameter in unet.named_parameters() if key in wanted}


def add_lora(unet: Any, rank: int, where: str) -> None:
    """Puts a LoRA (Hu et al. 2021) of this rank beside the attention of one part of the UNet, through peft; it starts as no change.

    Rank 16 on temporal attention is SVD's camera LoRA (appendix D). Raises TrainError where peft is not installed or nothing matches.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ModuleNotFoundError:
        raise TrainError("trainable 'lora' needs the package peft:  pip install 'rushes[train]'") from None
    names = [
        name for name, module in unet.named_modules()
        if isinstance(module, torch.nn.Linear) and name.endswith(LORA_TARGETS) and is_attention(f"{name}.") and WHERE[where](f"{name}.")
    ]  # fmt: skip
    if not names or rank < 1:
        raise TrainError(f"there is no attention for a LoRA of rank {rank} on the {where} layers of this UNet")
    inject: Any = inject_adapter_in_model
    config: Any = LoraConfig
    inject(config(r=rank, lora_alpha=rank, target_modules=names), unet)


def merge_lora(unet: Any) -> dict[str, Tensor]:
    """Merges the LoRA into its weights and removes it from the UNet; returns it, by the names that diffusers loads.

    Empty where the UNet has no LoRA.
    """
    if not any("lora_" in key for key in unet.state_dict()):
        return {}
    from peft.tuners.lora import LoraLayer
    from peft.utils import get_peft_model_state_dict

    lora = {key: value.detach().clone() for key, value in get_peft_model_state_dict(unet).items()}
    for name, module in list(unet.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge()
            parent, _, last = name.rpartition(".")
            owner = unet.get_submodule(parent)
            owner._modules[last] = module.get_base_layer()
    return lora


def load_lora(unet: Any, lora: Mapping[str, Tensor]) -> None:
    """Adds a LoRA, as `merge_lora` returned it or as saved in `lora/`, to a UNet.

    The pipelines of diffusers 0.42 do not load LoRAs into video UNets.
    """
    from peft import LoraConfig, inject_adapter_in_model
    from peft.utils import set_peft_model_state_dict

    weights = {key.removeprefix("unet."): value for key, value in lora.items()}
    names = sorted({key.rpartition(".lora_")[0] for key in weights})
    rank = next(value.shape[0] for key, value in weights.items() if ".lora_A." in key)
    inject: Any = inject_adapter_in_model
    config: Any = LoraConfig
    inject(config(r=rank, lora_alpha=rank, target_modules=names), unet)
    set_peft_model_state_dict(unet, weights)


def scale_inherited(unet: Any, factor: float) -> Callable[[], None]:
    """From now on multiplies the gradients of the weights that came with the base; returns what ends it."""
    inherited = [p for key, p in unet.named_parameters() if not is_temporal(key) and p.requires_grad]
    hooks = [p.register_hook(lambda grad: grad * factor) for p in inherited] if factor != 1.0 else []

    def end() -> None:
        for hook in hooks:
            hook.remove()

    return end
