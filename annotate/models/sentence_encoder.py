"""The encoder of all-MiniLM-L6-v2 in NumPy: vectors of a few short texts without importing torch (0.4 CPU s in place of 8).

A BERT encoder (Devlin et al. 2018, arXiv 1810.04805) with post-layer normalization and exact GELU, in float32; mean over the tokens, unit norm.
Equal to the torch model to 1e-5 (tests/annotate/test_minilm.py). Meant for queries: for many captions torch is faster.

N texts, L tokens, D = 384 numbers, H = 12 heads.
"""

import json
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
MAX_TOKENS = 256
_erf = np.frompyfunc(math.erf, 1, 1)


class SentenceEncoder:
    """The model in a folder with config.json, model.safetensors and tokenizer.json."""

    def __init__(self, folder: str | Path) -> None:
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer

        config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
        self.n_layers, self.n_heads = int(config["num_hidden_layers"]), int(config["num_attention_heads"])
        self.epsilon = float(config["layer_norm_eps"])
        self._tensors = load_file(Path(folder) / "model.safetensors")
        self._tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(MAX_TOKENS)

    def __call__(self, text: str) -> F32:
        """The vector of one text, shape (D,), unit norm; tokens after the 256th are not read."""
        x_LD = self._embed(np.asarray(self._tokenizer.encode(text).ids))
        for layer in range(self.n_layers):
            x_LD = self._layer(x_LD, f"encoder.layer.{layer}.")
        mean_D = x_LD.mean(axis=0)
        return np.asarray(mean_D / np.linalg.norm(mean_D), dtype=np.float32)

    def _embed(self, ids_L: NDArray[np.int64]) -> F32:
        tensors = self._tensors
        words_LD = tensors["embeddings.word_embeddings.weight"][ids_L]
        positions_LD = tensors["embeddings.position_embeddings.weight"][: len(ids_L)]
        types_D = tensors["embeddings.token_type_embeddings.weight"][0]
        return self._norm(words_LD + positions_LD + types_D, "embeddings.LayerNorm")

    def _layer(self, x_LD: F32, prefix: str) -> F32:
        n, d = x_LD.shape
        heads = [
            self._dense(x_LD, f"{prefix}attention.self.{name}").reshape(n, self.n_heads, -1).transpose(1, 0, 2)
            for name in ("query", "key", "value")
        ]
        query_HLd, key_HLd, value_HLd = heads
        scores_HLL = query_HLd @ key_HLd.transpose(0, 2, 1) / np.float32(math.sqrt(query_HLd.shape[-1]))
        weights_HLL = np.exp(scores_HLL - scores_HLL.max(axis=-1, keepdims=True))
        weights_HLL /= weights_HLL.sum(axis=-1, keepdims=True)
        mixed_LD = (weights_HLL @ value_HLd).transpose(1, 0, 2).reshape(n, d)
        x_LD = self._norm(
            x_LD + self._dense(mixed_LD, f"{prefix}attention.output.dense"), f"{prefix}attention.output.LayerNorm"
        )
        hidden = self._dense(x_LD, f"{prefix}intermediate.dense")
        gelu = np.asarray(hidden * 0.5 * (1.0 + _erf(hidden / math.sqrt(2.0)).astype(np.float32)), dtype=np.float32)
        return self._norm(x_LD + self._dense(gelu, f"{prefix}output.dense"), f"{prefix}output.LayerNorm")

    def _dense(self, x_LD: F32, name: str) -> F32:
        return np.asarray(x_LD @ self._tensors[f"{name}.weight"].T + self._tensors[f"{name}.bias"], dtype=np.float32)

    def _norm(self, x_LD: F32, name: str) -> F32:
        centred = x_LD - x_LD.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + self.epsilon)
        return np.asarray(scaled * self._tensors[f"{name}.weight"] + self._tensors[f"{name}.bias"], dtype=np.float32)
