"""Small randomly initialised checkpoints of real architectures, saved in the hub's format.

What they say is noise; how it is made is not.
"""

from pathlib import Path
from typing import Any

BYTES = 256
QWEN_CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXT_CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_tokenizer(special: tuple[str, ...], eos: str, pad: str, **more: Any) -> Any:
    """A token for every byte, followed by the special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token=eos, pad_token=pad, additional_special_tokens=list(special), **more
    )


def build_text(folder: Path, width: int = 32, layers: int = 2) -> Path:
    """A Llama of 2 layers with a chat template."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = byte_tokenizer(("<|im_start|>", "<|im_end|>", "<pad>"), "<|im_end|>", "<pad>")
    tokenizer.chat_template = TEXT_CHAT
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=2048, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, bos_token_id=None, initializer_range=0.5,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def build_vlm(folder: Path, width: int = 32, layers: int = 2, pixels: int = 6 * 28 * 28) -> Path:
    """A Qwen2.5-VL of 2 layers: pictures and videos with a pixel limit, two frames a patch."""
    import torch
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
    )

    special = (
        "<|im_start|>",
        "<|im_end|>",
        "<pad>",
        "<|vision_start|>",
        "<|vision_end|>",
        "<|image_pad|>",
        "<|video_pad|>",
    )
    tokenizer = byte_tokenizer(special, "<|im_end|>", "<pad>")
    size = {"shortest_edge": 28 * 28, "longest_edge": pixels}
    processor = Qwen2_5_VLProcessor(
        Qwen2VLImageProcessor(size=size), tokenizer, Qwen2VLVideoProcessor(size=size), chat_template=QWEN_CHAT
    )
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in special}
    torch.manual_seed(0)
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer), "hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": layers,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096,
            "rope_parameters": {
                "rope_type": "default", "mrope_section": [width // 32, width // 32, width // 16], "rope_theta": 10000.0,
            },
            "eos_token_id": ids["<|im_end|>"], "pad_token_id": ids["<pad>"], "bos_token_id": None,
        },
        vision_config={
            "depth": layers, "hidden_size": width, "num_heads": 2, "intermediate_size": 2 * width, "out_hidden_size": width,
            "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2, "fullatt_block_indexes": [layers - 1],
        },
        image_token_id=ids["<|image_pad|>"], video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"], vision_end_token_id=ids["<|vision_end|>"],
    )  # fmt: skip
    net = Qwen2_5_VLForConditionalGeneration(config)
    shake(net)
    net.generation_config.eos_token_id, net.generation_config.pad_token_id = ids["<|im_end|>"], ids["<pad>"]
    net.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


LLAVA_CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% elif part['type'] == 'video' %}<video>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build_llava(folder: Path) -> Path:
    """A LLaVA-OneVision of 2 layers: SigLIP and Qwen2, pictures squeezed into squares of 28 px, videos of equal length."""
    import torch
    from transformers import (
        LlavaOnevisionConfig,
        LlavaOnevisionForConditionalGeneration,
        LlavaOnevisionImageProcessor,
        LlavaOnevisionProcessor,
        LlavaOnevisionVideoProcessor,
    )

    special = ("<|im_start|>", "<|im_end|>", "<pad>", "<image>", "<video>")
    tokenizer = byte_tokenizer(special, "<|im_end|>", "<pad>")
    size, grid = {"height": 28, "width": 28}, [[28, 28], [28, 56], [56, 28]]
    processor = LlavaOnevisionProcessor(
        LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=grid),
        tokenizer,
        LlavaOnevisionVideoProcessor(size=size),
        num_image_tokens=4,
        vision_feature_select_strategy="full",
        chat_template=LLAVA_CHAT,
    )
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in special}
    torch.manual_seed(0)
    config = LlavaOnevisionConfig(
        vision_config={
            "model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 2, "image_size": 28, "patch_size": 14, "vision_use_head": False,
        },
        text_config={
            "model_type": "qwen2", "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 2048,
            "eos_token_id": ids["<|im_end|>"], "pad_token_id": ids["<pad>"], "bos_token_id": None,
        },
        image_token_index=ids["<image>"], video_token_index=ids["<video>"], image_token_id=ids["<image>"],
        video_token_id=ids["<video>"], vision_feature_select_strategy="full", vision_feature_layer=-1,
        image_grid_pinpoints=grid,
    )  # fmt: skip
    net = LlavaOnevisionForConditionalGeneration(config)
    shake(net)
    net.generation_config.eos_token_id, net.generation_config.pad_token_id = ids["<|im_end|>"], ids["<pad>"]
    net.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def shake(net: Any) -> None:
    """Scales up the initial weights; otherwise the model repeats one token and ignores its input."""
    import torch

    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, 2.0 * parameter[0].numel() ** -0.5)


COCA = {
    "embed_dim": 48,
    "custom_text": True,
    "multimodal_cfg": {"context_length": 76, "vocab_size": 49408, "width": 48, "heads": 2, "layers": 2},
    "vision_cfg": {
        "image_size": 64, "layers": 2, "width": 64, "patch_size": 16, "attentional_pool": True, "attn_pooler_heads": 2,
        "output_tokens": True,
    },
    "text_cfg": {
        "context_length": 76, "vocab_size": 49408, "width": 48, "heads": 2, "layers": 2, "embed_cls": True, "output_tokens": True,
    },
}  # fmt: skip


def build_coca(folder: Path, config: dict[str, Any] | None = None) -> Path:
    """A CoCa of 2 layers; `<folder>.json` is its configuration."""
    from tests.filters import tiny_openclip

    tiny_openclip.build(folder, config or COCA, shake)
    return folder
