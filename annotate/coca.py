"""Coca: a caption of the middle frame by CoCa, one sentence about what is visible.

Source: CoCa (Yu et al. 2022, arXiv 2205.01917) in open_clip's implementation, finetuned on COCO captions
(`mscoco_finetuned_laion2B-s13B-b90k`); SVD captions the middle frame with it (arXiv 2311.15127, 3.1) and samples this caption
half of the time. Beam search with open_clip's defaults: six beams, 5 to 30 tokens, scores divided by length. open_clip's
`generate` does not run: it needs a class that transformers 5 removed. It also uses diverse groups of beams; ours has one group.

Not tested with a trained CoCa: the tests use a small, randomly initialised model of the same architecture.
The CPU runs one clip at a time, so that a caption does not depend on the batch; a GPU runs passes of `batch_size` clips.

N clips, B beams, L tokens, V tokens of the vocabulary.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from annotate.models.caption import Answer, columns_with_tags, row_with_tags
from annotate.models.frames import spread
from annotate.models.generate import Halving, Written
from curate.clip import Clip
from filters.models.device import Precision
from filters.models.openclip import Encoder, load

START, END = 49406, 49407
"""Ids of CLIP's tokens around a text."""
LEAST_TOKENS = 5


def beam_search(
    likelihood: Callable[[Any], Any], n: int, beams: int, least: int, most: int, device: Any = "cpu"
) -> list[Written]:
    """The likeliest texts, by the mean log-likelihood of their tokens.

    Args:
        likelihood: (N * B, L) token ids to (N * B, V) log-probabilities of the next token.
        n: Number of texts.
        beams: Number of prefixes kept of each text.
        least: Minimum tokens before a text may end, its start token included (as open_clip does).
        most: Maximum tokens, its start token included; a longer text is truncated.
        device: Device of the token ids.
    """
    import torch

    ids = torch.full((n * beams, 1), START, dtype=torch.long, device=device)
    scores_NB = torch.full((n, beams), -torch.inf, device=device)
    scores_NB[:, 0] = 0.0
    ended: list[list[tuple[float, list[int]]]] = [[] for _ in range(n)]
    for length in range(1, most):
        next_NBV = likelihood(ids).view(n, beams, -1).float()
        if length < least:
            next_NBV[..., END] = -torch.inf
        total_NBV = scores_NB[:, :, None] + next_NBV
        best, at = total_NBV.view(n, -1).topk(2 * beams)  # at most `beams` of them end, so at least `beams` remain
        beam, token = at // next_NBV.shape[-1], at % next_NBV.shape[-1]
        rows, kept = [], []
        for i, (values, from_beams, tokens) in enumerate(
            zip(best.tolist(), beam.tolist(), token.tolist(), strict=True)
        ):
            open_beams: list[tuple[float, int, int]] = []
            for value, from_beam, new in zip(values, from_beams, tokens, strict=True):
                if new == END:
                    if len(open_beams) < beams and np.isfinite(value):
                        ended[i].append((value / length, ids[i * beams + from_beam].tolist()))
                elif len(open_beams) < beams:
                    open_beams.append((value, i * beams + from_beam, new))
            kept.append([value for value, _, _ in open_beams])
            rows += [(row, new) for _, row, new in open_beams]
        chosen = torch.tensor(rows, device=device)
        ids = torch.cat([ids[chosen[:, 0]], chosen[:, 1:]], dim=1)
        scores_NB = torch.tensor(kept, device=device)
        if all(_is_settled(done, float(scores_NB[i, 0]), length, beams) for i, done in enumerate(ended)):
            break
    return [_best(done, ids[i * beams].tolist(), float(scores_NB[i, 0])) for i, done in enumerate(ended)]


def _is_settled(ended: list[tuple[float, list[int]]], open_score: float, length: int, beams: int) -> bool:
    """Whether `beams` texts have ended and no open one scores better now."""
    return len(ended) >= beams and sorted(score for score, _ in ended)[-beams] >= open_score / (length + 1)


def _best(ended: list[tuple[float, list[int]]], open_tokens: list[int], score: float) -> Written:
    if ended:
        best, tokens = max(ended, key=lambda text: text[0])
        if best >= score / len(open_tokens):
            return Written(tokens[1:], 0, "stop")
    return Written(open_tokens[1:], 0, "length")


@dataclass
class Coca:
    """A caption of the middle frame by CoCa, one sentence about what is visible.

    Attributes:
        model: Name of an open_clip configuration of a CoCa, or a JSON file of that form.
        weights: Folder with `open_clip_config.json` and a checkpoint, or a checkpoint.
        beams: Number of beams of the search; 1 always takes the likeliest token.
        max_tokens: Maximum length of a caption, [6, 76].
        tag_frames: Number of frames, evenly spread, that get a caption of their own in `tagged_frames` (ZeroScope: 3).
        precision: `auto` is bf16 on a GPU that supports it, else fp16; fp32 on the CPU.
        device: `auto` is the GPU if there is one.
    """

    model: str = "coca_ViT-L-14"
    weights: str = "hub:laion/mscoco_finetuned_CoCa-ViT-L-14-laion2B-s13B-b90k"
    beams: int = 6
    max_tokens: int = 30
    tag_frames: int = 0
    precision: Precision = "auto"
    device: str = "auto"

    _encoder: Encoder | None = field(default=None, init=False, repr=False, compare=False)
    _halving: Halving = field(default_factory=Halving, init=False, repr=False, compare=False)

    version: ClassVar[int] = 1
    batch_size: ClassVar[int] = 32

    def __post_init__(self) -> None:
        """Check the options."""
        if self.beams < 1:
            raise ValueError(f"beams of Coca is {self.beams}; it must be at least 1")
        if not LEAST_TOKENS < self.max_tokens <= 76:
            raise ValueError(f"max_tokens of Coca is {self.max_tokens}; it must be from {LEAST_TOKENS + 1} to 76")
        if self.tag_frames < 0:
            raise ValueError(f"tag_frames of Coca is {self.tag_frames}; it must be 0 or more")

    @property
    def columns(self) -> dict[str, pa.DataType]:
        """The columns of a captioner, and `tagged_frames` if frames are tagged."""
        return columns_with_tags(self.tag_frames)

    def setup(self) -> None:
        """Load the model from its folder; nothing is downloaded. Raises ValueError if it is not a CoCa."""
        self._encoder = load(self.model, self.weights, self.precision, self.device)
        if not hasattr(self._encoder.net, "text_decoder"):
            raise ValueError(
                f"model '{self.model}' is not a CoCa: it has no text decoder; use a model such as coca_ViT-L-14"
            )

    def __call__(self, clips: list[Clip]) -> list[dict[str, Any]]:
        """One row per clip: `clip_id` and the columns; `error` if the clip alone does not fit the GPU.

        Raises:
            RuntimeError: called before `setup`.
        """
        tags = [(clip, i) for clip in clips for i in spread(len(clip.jpegs), self.tag_frames)]
        answers = self._answers([clip.middle for clip in clips] + [clip.frames_THWC[i] for clip, i in tags])
        tags_of: dict[str, list[tuple[int, Answer | None]]] = {clip.clip_id: [] for clip in clips}
        for (clip, i), answer in zip(tags, answers[len(clips) :], strict=True):
            tags_of[clip.clip_id].append((i, answer))
        return [
            row_with_tags(clip, answer, tags_of[clip.clip_id] if self.tag_frames else None)
            for clip, answer in zip(clips, answers[: len(clips)], strict=True)
        ]

    def _answers(self, frames: Sequence[NDArray[np.uint8]]) -> list[Answer | None]:
        if (encoder := self._encoder) is None:
            raise RuntimeError("call setup() before Coca is called")
        if encoder.on_cpu:
            return [answer for frame in frames for answer in self._write([frame])]
        return self._halving.run(frames, self._write)

    def _write(self, frames: Sequence[NDArray[np.uint8]]) -> list[Answer]:
        """Captions of frames, in one pass."""
        import torch

        encoder = self._encoder
        assert encoder is not None
        began = time.perf_counter()
        with torch.inference_mode():
            pixels = encoder.pixels(np.stack([encoder.picture(frame) for frame in frames]))
            seen = encoder.net(pixels)
            latent, embs = (
                seen[name].repeat_interleave(self.beams, dim=0) for name in ("image_features", "image_embs")
            )

            def likelihood(ids: Any) -> Any:
                out = encoder.net(None, ids, image_latent=latent, image_embs=embs, output_labels=False)
                return out["logits"][:, -1].float().log_softmax(-1)

            written = beam_search(
                likelihood, len(frames), self.beams, LEAST_TOKENS, self.max_tokens + 1, encoder.device
            )
        seconds = (time.perf_counter() - began) / len(frames)
        decode = encoder.tokenize.decode
        return [Answer(decode(row.tokens), 0, len(row.tokens), row.finish_reason, 1, seconds) for row in written]
