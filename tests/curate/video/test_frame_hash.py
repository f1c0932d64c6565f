"""Hashes: the same frame smaller, darker or compressed differs in a few bits, another picture in about half of them."""

import cv2
import numpy as np
import pytest

from curate.video.frame_hash import as_text, bits_apart, frame_hash, frame_hashes


def picture(seed: int, width: int = 320, height: int = 180) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 255, (height, width)).astype(np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 18), None, 16, 235, cv2.NORM_MINMAX)  # type: ignore[return-value]


def test_hashes_of_simple_pictures() -> None:
    ramp = np.tile(np.arange(90, dtype=np.uint8), (80, 1))
    assert frame_hash(ramp) == "f" * 16, "every cell is darker than its right neighbour"
    assert frame_hash(ramp[:, ::-1]) == "0" * 16
    half = np.concatenate([ramp[:40], ramp[40:, ::-1]])
    assert frame_hash(half) == "ffffffff00000000", "rows from the top, highest bit first"


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda p: cv2.resize(p, (160, 90), interpolation=cv2.INTER_AREA), id="half the size"),
        pytest.param(lambda p: cv2.resize(p, (72, 40), interpolation=cv2.INTER_LINEAR), id="sampled small"),
        pytest.param(lambda p: (p * 0.8).astype(np.uint8), id="darker"),
        pytest.param(
            lambda p: cv2.imdecode(cv2.imencode(".jpg", p, [cv2.IMWRITE_JPEG_QUALITY, 20])[1], cv2.IMREAD_GRAYSCALE),
            id="jpeg 20",
        ),
    ],
)
@pytest.mark.parametrize("seed", range(5))
def test_a_changed_version_of_a_frame_differs_in_few_bits(change: object, seed: int) -> None:
    assert bits_apart(frame_hash(picture(seed)), frame_hash(change(picture(seed)))) <= 6  # type: ignore[operator]


def test_hashes_of_other_frames_differ() -> None:
    hashes = [frame_hash(picture(seed)) for seed in range(20)]
    apart = [bits_apart(a, b) for i, a in enumerate(hashes) for b in hashes[:i]]
    assert min(apart) > 12
    assert np.mean(apart) == pytest.approx(32, abs=3)


@pytest.mark.parametrize("height", [40, 45], ids=["rows that divide", "rows that do not"])
def test_hashes_in_a_batch_equal_single_ones(height: int) -> None:
    pictures = np.stack([picture(seed, 72, height) for seed in range(9)])
    assert as_text(frame_hashes(pictures)) == [frame_hash(p) for p in pictures]
