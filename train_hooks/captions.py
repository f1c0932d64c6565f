"""Which caption a clip is trained with: one of its captioners', drawn by the mix, with measured facts written after it.

The mix and the facts are in the shards' `index.json` (from `shards: caption:` and `suffix:` of pipeline.yaml), so that
changing them writes no shard again:

    "captions": {"mix": {"coca": 0.5, "vlm": 0.25, "summary": 0.25},
                 "suffix": [{"add": ", with watermark", "when": {"watermark": {"above": 0.5}}}]}

Without a mix a clip has the caption in its column `caption`. Captioners without a caption of a clip are left out of its
mix, and the others' shares grow in proportion. Bounds are inclusive; a clip without a value fails the condition.

Source: SVD draws CoCa, its video captioner and the LLM at .5, .25, .25 (arXiv 2311.15127, Appendix C). Facts written
into captions, so that a prompt can ask for their opposite, are a practice of model makers (SDXL does it with sizes).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from train_hooks.errors import TrainError

Choices = tuple[tuple[str, float], ...]
"""The captions that a clip may be trained with, and the share of each; the shares sum to 1. Empty where it has none."""


@dataclass(frozen=True)
class CaptionPolicy:
    """What `index.json` says of captions.

    Attributes:
        mix: Captioner to share, above 0; they need not sum to 1. Empty: the column `caption` alone.
        suffix: Text to add, and the conditions under which: column to `above`, `below`, `is`.
    """

    mix: Mapping[str, float]
    suffix: tuple[tuple[str, Mapping[str, Mapping[str, Any]]], ...]

    @classmethod
    def of(cls, index: Mapping[str, Any]) -> "CaptionPolicy":
        """Reads it from an index.json that may be older than captions in it. Raises TrainError where it is no policy."""
        policy = index.get("captions") or {}
        try:
            mix = {str(name): float(share) for name, share in policy.get("mix", {}).items()}
            if not all(0 < share < math.inf for share in mix.values()):
                raise ValueError("a share is above 0")
            suffix = tuple((str(rule["add"]), dict(rule["when"])) for rule in policy.get("suffix", []))
        except (AttributeError, KeyError, TypeError, ValueError):
            raise TrainError(f"index.json: 'captions' is not a mix and suffixes: {policy!r}") from None
        return cls(mix, suffix)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the shards that it looks at."""
        captions = [f"caption_{name}" for name in self.mix] or ["caption"]
        return tuple(dict.fromkeys([*captions, *(column for _, when in self.suffix for column in when)]))

    def choices(self, row: Mapping[str, Any]) -> Choices:
        """The captions of one clip."""
        shares = {f"caption_{name}": share for name, share in self.mix.items()} or {"caption": 1.0}
        texts = [(row[column] or "", share) for column, share in shares.items()]
        whole = sum(share for text, share in texts if text)
        facts = [text for text, when in self.suffix if all(_holds(row[column], rule) for column, rule in when.items())]
        return tuple((with_facts(text, facts), share / whole) for text, share in texts if text)


def with_facts(text: str, facts: list[str]) -> str:
    """The caption with facts after it; one that begins with a comma goes before the full stop."""
    for fact in facts:
        text = f"{text[:-1]}{fact}." if text.endswith(".") and fact.startswith(",") else f"{text}{fact}"
    return text


def pick(choices: Choices, draw: float) -> str:
    """The caption that a number in [0, 1) selects; empty where a clip has no caption."""
    for text, share in choices:
        draw -= share
        if draw < 0:
            return text
    return choices[-1][0] if choices else ""


def _holds(value: Any, rule: Mapping[str, Any]) -> bool:
    if value is None:
        return False
    above, below, allowed = rule.get("above"), rule.get("below"), rule.get("is")
    if above is not None and not value >= above:
        return False
    if below is not None and not value <= below:
        return False
    return allowed is None or value in (allowed if isinstance(allowed, list) else [allowed])
