"""Black bars: detected to the line; dark parts of a picture are not bars."""

import numpy as np
import pytest

from curate.video.letterbox import Box, common_box, lit_box


def boxed(
    top: int = 0, bottom: int = 0, left: int = 0, right: int = 0, size: tuple[int, int] = (360, 640)
) -> np.ndarray:
    height, width = size
    frame = np.random.default_rng(0).integers(60, 200, (height, width, 3)).astype(np.uint8)
    frame[:top] = frame[height - bottom :] = frame[:, :left] = frame[:, width - right :] = 12
    return frame


@pytest.mark.parametrize(
    ("bars", "box"),
    [
        ({}, Box(0, 0, 640, 360)),
        ({"top": 45, "bottom": 45}, Box(0, 45, 640, 270)),
        ({"left": 80, "right": 80}, Box(80, 0, 480, 360)),
        ({"top": 1, "right": 3}, Box(0, 1, 637, 359)),
        ({"top": 20, "bottom": 30, "left": 40, "right": 50}, Box(40, 20, 550, 310)),
    ],
)
def test_bars_are_found_to_the_line(bars: dict[str, int], box: Box) -> None:
    assert lit_box(boxed(**bars)) == box


def test_a_black_picture_has_no_box() -> None:
    assert lit_box(np.full((90, 160, 3), 16, np.uint8)) == Box(0, 0, 0, 0)


@pytest.mark.parametrize("colour", range(3), ids=["blue", "green", "red"])
def test_a_pure_colour_is_lit(colour: int) -> None:
    frame = np.zeros((90, 160, 3), np.uint8)
    frame[10:80, 20:140, colour] = 200
    assert lit_box(frame) == Box(20, 10, 120, 70)


SEEN = (640, 360)


@pytest.mark.parametrize(
    ("boxes", "full_px", "box"),
    [
        pytest.param([], (1920, 1080), Box(0, 0, 1920, 1080), id="nothing seen"),
        pytest.param([Box(0, 0, 0, 0)], (1920, 1080), Box(0, 0, 1920, 1080), id="all black"),
        pytest.param([Box(0, 0, 640, 360)], (1920, 1080), Box(0, 0, 1920, 1080), id="no bars"),
        pytest.param([Box(0, 0, 640, 360)], (641, 361), Box(0, 0, 641, 361), id="no bars, odd size"),
        pytest.param([Box(0, 45, 640, 270)], (640, 360), Box(0, 46, 640, 268), id="even inwards"),
        pytest.param([Box(80, 0, 480, 360)], (1920, 1080), Box(244, 0, 1432, 1080), id="scaled, a line inwards"),
        pytest.param([Box(80, 0, 480, 360), Box(60, 0, 480, 360)], SEEN, Box(60, 0, 500, 360), id="widest counts"),
        pytest.param([Box(300, 150, 40, 40)], SEEN, Box(0, 0, 640, 360), id="a title on black is no box"),
    ],
)
def test_the_box_of_a_clip(boxes: list[Box], full_px: tuple[int, int], box: Box) -> None:
    found = common_box(boxes, SEEN, full_px)
    assert found == box
    assert found.x + found.width <= full_px[0]
    assert found.y + found.height <= full_px[1]
