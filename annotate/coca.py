"""Coca: a caption of the middle frame by CoCa, one sentence about what is seen.

Source: CoCa (Yu et al. 2022, arXiv 2205.01917) as open_clip has it, finetuned on COCO captions
(`mscoco_finetuned_laion2B-s13B-b90k`); SVD captions the middle frame with it (arXiv 2311.15127, 3.1) and draws this caption
half of the time. Beam search with open_clip's own defaults: six beams, at least 5 and at most 30 tokens, scores divided
by length. open_clip's `generate` cannot be used: it needs a class that transformers 5 no longer has; and it makes the
beams of three groups differ, ours are plain.

No trained CoCa could be had where this was tested: a small randomly initialised one of the same architecture was.
One clip at a time on the CPU, so that a caption does not depend on the batch; on a GPU in passes of `batch_size` clips.

N clips, B beams, L tokens, V tokens of the vocabulary.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from annotate.caption import COLUMNS, TAGGED_FRAMES, Answer, tagged
from annotate.frames import spread
from annotate.generate import TOO_LARGE, Halving, Written
from curate.clip import Clip
from filters.open_clip import Encoder, Precision, load

START, END = 49406, 49407
"""Ids of CLIP's tokens around a text."""
LEAST_TOKENS = 5


def beam_search(
    likelihood: Callable[[Any], Any], n: int, beams: int, least: int, most: int, device: Any = "cpu"
) -> list[Written]:
    """The likeliest texts, by the mean of their tokens' log-likelihoods.

    Args:
        likelihood: (N * B, L) token ids to (N * B, V) logarithms of the next token's probability.
        n: how many texts.
        beams: how many beginnings of each are kept.
        least: tokens before a text may end, its start counted (as open_clip does).
        most: tokens at which it is cut, its start counted.
        device: where token ids lie.
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
        best, at = total_NBV.view(n, -1).topk(2 * beams)  # so many that `beams` of them go on, whatever ends
        beam, token = at // next_NBV.shape[-1], at % next_NBV.shape[-1]
        rows, kept = [], []
        for i, (values, from_beams, tokens) in enumerate(
            zip(best.tolist(), beam.tolist(), token.tolist(), strict=True)
        ):
            going: list[tuple[float, int, int]] = []
            for value, from_beam, new in zip(values, from_beams, tokens, strict=True):
                if new == END:
                    if len(going) < beams and np.isfinite(value):
                        ended[i].append((value / length, ids[i * beams + from_beam].tolist()))
                elif len(going) < beams:
                    going.append((value, i * beams + from_beam, new))
            kept.append([value for value, _, _ in going])
            rows += [(row, new) for _, row, new in going]
        chosen = torch.tensor(rows, device=device)
        ids = torch.cat([ids[chosen[:, 0]], chosen[:, 1:]], dim=1)
        scores_NB = torch.tensor(kept, device=device)
        if all(_is_settled(done, float(scores_NB[i, 0]), length, beams) for i, done in enumerate(ended)):
            break
    return [_best(done, ids[i * beams].tolist(), float(scores_NB[i, 0])) for i, done in enumerate(ended)]


def _is_settled(ended: list[tuple[float, list[int]]], going: float, length: int, beams: int) -> bool:
    """Whether enough texts have ended and none that goes on is better now."""
    return len(ended) >= beams and sorted(score for score, _ in ended)[-beams] >= going / (length + 1)


def _best(ended: list[tuple[float, list[int]]], going: list[int], score: float) -> Written:
    if ended:
        best, tokens = max(ended, key=lambda text: text[0])
        if best >= score / len(going):
            return Written(tokens[1:], 0, "stop")
    return Written(going[1:], 0, "length")


@dataclass
class Coca:
    """A caption of the middle frame by CoCa, one sentence about what is seen.

    Attributes:
        model: Name of an open_clip configuration of a CoCa, or a JSON file of that form.
        weights: Folder with `open_clip_config.json` and a checkpoint, or a checkpoint.
        beams: How many beginnings are followed; 1 always takes the likeliest token.
        max_tokens: How long a caption may be, [6, 76].
        tag_frames: How many frames, evenly spread, get a caption of their own in `tagged_frames` (ZeroScope: 3).
        precision: `auto` is bf16 on a GPU that has it, else fp16; fp32 on the CPU.
        device: `auto` is the GPU where there is one.
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
        """What every captioner has, and the tagged frames where they are asked for."""
        return {**COLUMNS, **({"tagged_frames": TAGGED_FRAMES} if self.tag_frames else {})}

    def setup(self) -> None:
        """Load the model from its folder; nothing is fetched. Raises ValueError where it is no CoCa."""
        self._encoder = load(self.model, self.weights, self.precision, self.device)
        if not hasattr(self._encoder.net, "text_decoder"):
            raise ValueError(f"model '{self.model}' is no CoCa: it has no text decoder")

    def __call__(self, clips: list[Clip]) -> list[dict[str, Any]]:
        """One row per clip: `clip_id` and what `annotate.caption` lists; `error` where a clip alone is too large for the GPU.

        Raises:
            RuntimeError: called before `setup`.
        """
        tags = [(clip, i) for clip in clips for i in spread(len(clip.jpegs), self.tag_frames)]
        answers = self._answers([clip.middle for clip in clips] + [clip.frames_THWC[i] for clip, i in tags])
        said: dict[str, list[Any]] = {clip.clip_id: [] for clip in clips}
        for (clip, i), answer in zip(tags, answers[len(clips) :], strict=True):
            said[clip.clip_id].append(answer and tagged(clip, i, answer.text))
        rows = []
        for clip, answer in zip(clips, answers[: len(clips)], strict=True):
            if answer is None or None in said[clip.clip_id]:
                rows.append({"clip_id": clip.clip_id, "error": TOO_LARGE})
            else:
                more = {"tagged_frames": said[clip.clip_id]} if self.tag_frames else {}
                rows.append(answer.row(clip.clip_id, **more))
        return rows

    def _answers(self, frames: Sequence[NDArray[np.uint8]]) -> list[Answer | None]:
        if (encoder := self._encoder) is None:
            raise RuntimeError("call setup() before Coca is called")
        if encoder.on_cpu:
            return [answer for frame in frames for answer in self._write([frame])]
        return self._halving.run(frames, self._write)

    def _write(self, frames: Sequence[NDArray[np.uint8]]) -> list[Answer]:
        """Captions of pictures, in one pass."""
        import torch

        encoder = self._encoder
        assert encoder is not None
        began = time.perf_counter()
        with torch.inference_mode():
            pixels = encoder.pixels(np.stack([encoder.picture(frame) for frame in frames]))
            latent, embs = (made.repeat_interleave(self.beams, dim=0) for made in encoder.net._encode_image(pixels))

            def likelihood(ids: Any) -> Any:
                out = encoder.net(None, ids, image_latent=latent, image_embs=embs, output_labels=False)
                return out["logits"][:, -1].float().log_softmax(-1)

            written = beam_search(
                likelihood, len(frames), self.beams, LEAST_TOKENS, self.max_tokens + 1, encoder.device
            )
        seconds = (time.perf_counter() - began) / len(frames)
        decode = encoder.tokenize.decode
        return [Answer(decode(row.tokens), 0, len(row.tokens), row.finish_reason, 1, seconds) for row in written]
