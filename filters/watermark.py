"""Watermark: likelihood of an owner's mark over the picture, [0, 1]; the maximum of up to three detectors.

- `edges` (no weights): a group of edges that stays exactly in place while the rest of the picture moves
  (`filters/models/still_edges.py`; the median gradient of Dekel et al., CVPR 2017). A logistic function of five numbers:
  the pixels of the group, the share of its edges that stay, their certainty, the share of the other edges that stay,
  and the number of other cells that are still.
- `text`: a line that reads like an agency, an address or a handle. Lines are those of `TextArea` that are an overlay or
  undecided, and the groups of still edges in the mean picture, where moving parts are blurred and a faint
  mark remains. The score is the recogniser's confidence, at most 0.98; times 0.9 if the picture is still, because a
  shop's sign can read like that too.
- `classifier`: an image classifier of your choice, the mean over the first, middle and last thumbnail.

Limits. In a clip without motion everything stays, so `edges` is near 0: a logo without text in
a tripod shot is found only by a classifier or from other clips of its source (`filters.SourceWatermark`, which
reads `watermark_edges`). Anything fixed to the camera (a windscreen, a helmet's rim) or followed by
it exactly looks like a mark. `edges` finds any overlay, subtitles and captions too; `watermark_by`, and `overlay_text` of
`TextArea`, separate them. Marks that move are not found.

Ours: the six constants, fitted on drawn marks (15 to 60 % opaque) over the tuning half of the footage and photographs.
On the other half AUC was 0.95 over all, 0.97 if the picture moves, and recall at 2 % false positives 0.91 for words, 0.88 for
tiles, 0.49 for logos without words (`benchmarks/filters_overlay.py`, `benchmarks/results/filters.md`).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Any, ClassVar

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.clip import Clip
from filters.models.image_classifier import ImageClassifier
from filters.models.picture import lit_area
from filters.models.still_edges import Group, groups, packed, still_edges
from filters.models.text_reader import Reader

OFFSET, PER_LOG_PIXEL, PER_OWN, PER_LOG_SURENESS, PER_REST, PER_LOG_ELSEWHERE = -9.0, 1.12, 1.31, 1.28, -1.17, -0.46
"""Of the logistic function. The offset is 1.3 lower than fitted, so that no clean clip of the tuning half reaches 0.5."""
AGENCIES = (
    *("shutterstock", "gettyimages", "istock", "alamy", "pond5", "adobestock", "depositphotos", "dreamstime", "123rf"),
    *(
        "videohive",
        "videoblocks",
        "storyblocks",
        "bigstock",
        "freepik",
        "canstockphoto",
        "envato",
        "artgrid",
        "dissolve.com",
    ),
)
ADDRESS = re.compile(r"www[.,]|https?:|\b[a-z0-9-]{2,}[.,](com|net|org|tv|io|co|de|fr|uk|eu|cn|ru|jp|in|info)\b")
HANDLE = re.compile(r"@[a-z0-9_.]{3,}")
OWNER = re.compile(r"[©®]|\(c\)|\bcopyright\b")
MARKED = 0.5
"""Minimum score of a mark; from here on its box and detector are reported."""
MAX_READ = 6
"""Maximum lines of `TextArea` read per clip, the largest first."""

Classifier = Callable[[NDArray[np.uint8]], float]
Line = tuple[NDArray[np.uint8], NDArray[np.float32], float]
"""A frame, the four corners of a line in it, and the factor of its score."""


def edge_score(group: Group) -> float:
    """Likelihood that one group of still edges is a mark, (0, 1)."""
    z = (
        OFFSET
        + PER_LOG_PIXEL * np.log(min(group.pixels, 3000.0))
        + PER_OWN * group.own
        + PER_LOG_SURENESS * np.log(min(group.sureness, 20.0))
        + PER_REST * group.rest
        + PER_LOG_ELSEWHERE * np.log1p(group.elsewhere)
    )
    return float(1 / (1 + np.exp(-z)))


def marks_owner(line: str) -> bool:
    """Whether a line reads like an agency, an address, a handle or a copyright notice; a long name may have a wrong letter."""
    text = line.lower()
    if ADDRESS.search(text) or HANDLE.search(text.replace(" ", "")) or OWNER.search(text):
        return True
    letters = re.sub(r"[^a-z0-9.]", "", text)
    for name in AGENCIES:
        if name in letters:
            return True
        if len(name) >= 8:
            windows = (letters[i : i + len(name)] for i in range(max(1, len(letters) - len(name) + 1)))
            if any(SequenceMatcher(None, name, window).ratio() >= 0.8 for window in windows):
                return True
    return False


def _in_shares(box_px: tuple[float, ...], shape: tuple[int, ...]) -> list[float]:
    height_px, width_px = shape[:2]
    left, top, right, bottom = box_px
    return [
        max(0.0, left / width_px),
        max(0.0, top / height_px),
        min(1.0, right / width_px),
        min(1.0, bottom / height_px),
    ]


@dataclass
class Watermark:
    """Likelihood of a watermark [0, 1], its box, its text, and which of `edges`, `text`, `classifier` found it.

    `watermark` is the maximum of the detectors, [0, 1]. `watermark_box` is [left, top, right, bottom] in shares of width
    and height, null below 0.5 or if a classifier found the mark. `watermark_text` is the line that reads like an owner's, null
    without such a line. `watermark_by` is null below 0.5. `watermark_edges` is a small map for
    `SourceWatermark`. A clip of one thumbnail has no still edges: its score is that of the other detectors, or 0.

    Attributes:
        weights: Image classifier in transformers' format (hub:owner/name@revision or dir:), with one label that contains "watermark"; optional.
        text_weights: PP-OCR text recogniser, ONNX; null reads no text. If `TextArea` has not run, only
            groups of still edges are read.
    """

    weights: str | None = None
    text_weights: str | None = "pip:rapidocr==3.10.0:rapidocr/models/PP-OCRv6_rec_small.onnx"

    _reader: Reader | None = field(default=None, init=False, repr=False, compare=False)
    _classify: Classifier | None = field(default=None, init=False, repr=False, compare=False)

    columns: ClassVar[dict[str, pa.DataType]] = {
        "watermark": pa.float32(),
        "watermark_box": pa.list_(pa.float32()),
        "watermark_text": pa.string(),
        "watermark_by": pa.string(),
        "watermark_edges": pa.binary(),
    }
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("text_boxes?", "text_kinds?")

    def setup(self) -> None:
        """Load the models that have weights; keep OpenCV to one thread: the engine runs workers in parallel."""
        cv2.setNumThreads(1)
        self._reader = Reader(self.text_weights) if self.text_weights else None
        self._classify = None
        if self.weights:
            import torch

            torch.set_num_threads(1)
            self._classify = watermark_score(ImageClassifier(self.weights))

    def __call__(self, clips: list[Clip]) -> list[dict[str, Any]]:
        """One row per clip: `clip_id` and the five columns."""
        return [{"clip_id": clip.clip_id, **self._measure(clip)} for clip in clips]

    def _measure(self, clip: Clip) -> dict[str, Any]:
        frames_THWC = clip.frames_THWC
        shape = frames_THWC.shape[1:3]
        detections: list[tuple[float, str, list[float] | None]] = [(0.0, "edges", None)]
        edges_map, found = None, []
        if len(frames_THWC) > 1:
            greys_THW = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames_THWC])
            edges = still_edges(greys_THW, lit_area(greys_THW))
            edges_map, found = packed(edges), groups(edges)
            detections += [(edge_score(group), "edges", _in_shares(group.box_px, shape)) for group in found]
        score, line, box = self._read(clip, frames_THWC, found)
        detections.append((score, "text", box))
        if self._classify:
            probabilities = [self._classify(frame) for frame in (clip.first, clip.middle, clip.last)]
            detections.append((float(np.mean(probabilities)), "classifier", None))
        best, by, box = max(detections, key=lambda detection: detection[0])
        return {
            "watermark": best,
            "watermark_box": box if best >= MARKED else None,
            "watermark_text": line,
            "watermark_by": by if best >= MARKED else None,
            "watermark_edges": edges_map,
        }

    def _read(
        self,
        clip: Clip,
        frames_THWC: NDArray[np.uint8],
        found: list[Group],
    ) -> tuple[float, str | None, list[float] | None]:
        """The best line that reads like an owner's: its score, its text, its box."""
        best: tuple[float, str | None, list[float] | None] = (0.0, None, None)
        if self._reader is None:
            return best
        for frame, box, trust in [*self._lines(clip, frames_THWC), *still_lines(frames_THWC, found)]:
            text, sure = self._reader.read(frame, box)
            score = min(sure, 0.98) * trust
            if score > best[0] and marks_owner(text):
                best = (score, text, _in_shares((*box.min(axis=0), *box.max(axis=0)), frame.shape))
        return best

    def _lines(self, clip: Clip, frames_THWC: NDArray[np.uint8]) -> list[Line]:
        boxes, kinds = clip.columns.get("text_boxes"), clip.columns.get("text_kinds")
        if boxes is None or kinds is None:
            return []
        middle = frames_THWC[len(frames_THWC) // 2]
        size: NDArray[np.float32] = np.array((middle.shape[1], middle.shape[0]), dtype=np.float32)
        corners = [np.asarray(box, dtype=np.float32).reshape(4, 2) * size for box in boxes]
        trust = {"overlay": 1.0, "still": 0.9}
        lines = [(middle, box, trust[kind]) for box, kind in zip(corners, kinds, strict=True) if kind in trust]
        return sorted(lines, key=lambda line: -float(cv2.contourArea(line[1])))[:MAX_READ]


def still_lines(frames_THWC: NDArray[np.uint8], found: list[Group]) -> list[Line]:
    """The groups that are wider than tall, as lines in the mean picture with stretched contrast."""
    lines: list[Line] = []
    for group in found:
        left, top, right, bottom = group.box_px
        if right - left < 1.5 * (bottom - top) or bottom - top < 6:
            continue
        mean = frames_THWC[:, top:bottom, left:right].mean(axis=(0, 3), dtype=np.float32)
        low, high = np.percentile(mean, (2, 98))
        grey = ((mean - low) * (255 / max(1.0, float(high - low)))).clip(0, 255).astype(np.uint8)
        picture = np.zeros(frames_THWC.shape[1:], dtype=np.uint8)
        picture[top:bottom, left:right] = grey[..., None]
        box: NDArray[np.float32] = np.array(
            [(left, top), (right, top), (right, bottom), (left, bottom)], dtype=np.float32
        )
        box += np.array([(2, 2), (-2, 2), (-2, -2), (2, -2)], dtype=np.float32)
        lines.append((picture, box, 1.0 if group.rest < 0.5 else 0.9))
    return lines


def watermark_score(classifier: ImageClassifier) -> Classifier:
    """A function from a frame to the probability of the classifier's watermark label.

    Raises:
        ValueError: not exactly one label names a watermark.
    """
    labels = {index: label.lower() for index, label in classifier.labels.items()}
    yes = [
        index
        for index, label in labels.items()
        if "watermark" in label and not re.match(r"(no|not|non|without|un)\W?", label)
    ]
    if len(yes) != 1:
        raise ValueError(
            f"the classifier in {classifier.folder} must have exactly one watermark label; it has {sorted(labels.values())}"
        )

    def score(frame_HWC: NDArray[np.uint8]) -> float:
        probability = float(classifier.probabilities(frame_HWC)[yes[0]])
        if not np.isfinite(probability):
            raise ValueError("the output of the watermark classifier is not finite")
        return probability

    return score
