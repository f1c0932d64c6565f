"""A BERT encoder in NumPy, float32: for a query of one sentence, without the seconds that importing torch takes.

The values are those of the torch model of the same weights to within 1e-5 (tests/annotate/test_minilm.py). For many texts torch is faster.

N texts, L tokens, H heads, D = hidden size.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def _erf(x: Array) -> Array:
    """The error function; the standard library's, since NumPy has none."""
    return np.asarray(np.vectorize(math.erf, otypes=[np.float32])(x), dtype=np.float32)


class Bert:
    """A tokenizer and an encoder from a folder with `config.json`, `tokenizer.json` and `model.safetensors`."""

    def __init__(self, folder: Path, max_tokens: int) -> None:
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer

        self.config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if self.config["model_type"] != "bert" or self.config["hidden_act"] != "gelu":
            raise ValueError(f"{folder} does not hold a BERT model with GELU")
        self.weights: dict[str, Array] = load_file(folder / "model.safetensors")
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(max_tokens)

    def __call__(self, text: str) -> Array:
        """The last hidden state of one text, shape (1, L, D)."""
        ids = self.tokenizer.encode(text).ids
        table = "embeddings.{}_embeddings.weight".format
        x_LD = self.weights[table("word")][ids] + self.weights[table("position")][: len(ids)]
        x_LD = self._norm(x_LD + self.weights[table("token_type")][0], "embeddings")
        for layer in range(self.config["num_hidden_layers"]):
            x_LD = self._layer(x_LD, f"encoder.layer.{layer}")
        return x_LD[None]

    def _layer(self, x_LD: Array, at: str) -> Array:
        heads = self.config["num_attention_heads"]
        n, width = x_LD.shape
        q_HLE, k_HLE, v_HLE = (
            self._dense(x_LD, f"{at}.attention.self.{name}").reshape(n, heads, width // heads).transpose(1, 0, 2)
            for name in ("query", "key", "value")
        )
        scores_HLL = q_HLE @ k_HLE.transpose(0, 2, 1) / np.float32(math.sqrt(width // heads))
        scores_HLL = np.exp(scores_HLL - scores_HLL.max(axis=-1, keepdims=True))
        mixed_HLE = scores_HLL / scores_HLL.sum(axis=-1, keepdims=True) @ v_HLE
        mixed_LD = self._dense(mixed_HLE.transpose(1, 0, 2).reshape(n, width), f"{at}.attention.output.dense")
        x_LD = self._norm(x_LD + mixed_LD, f"{at}.attention.output")
        inner = self._dense(x_LD, f"{at}.intermediate.dense")
        inner = inner * np.float32(0.5) * (1 + _erf(inner / np.float32(math.sqrt(2))))
        return self._norm(x_LD + self._dense(inner, f"{at}.output.dense"), f"{at}.output")

    def _dense(self, x: Array, at: str) -> Array:
        return np.asarray(x @ self.weights[f"{at}.weight"].T + self.weights[f"{at}.bias"], dtype=np.float32)

    def _norm(self, x: Array, at: str) -> Array:
        mean, variance = x.mean(axis=-1, keepdims=True), x.var(axis=-1, keepdims=True)
        unit = (x - mean) / np.sqrt(variance + np.float32(self.config["layer_norm_eps"]))
        return np.asarray(unit * self.weights[f"{at}.LayerNorm.weight"] + self.weights[f"{at}.LayerNorm.bias"])
