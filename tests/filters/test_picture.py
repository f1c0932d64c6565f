import cv2
import numpy as np
import pytest

from filters.models.picture import edges, filled, still_pattern, without_bars


def boxed(top=0, bottom=0, left=0, right=0, black=12):
    frames = np.random.default_rng(0).integers(60, 200, (2, 90, 160, 3)).astype(np.uint8)
    frames[:, :top] = frames[:, 90 - bottom :] = frames[:, :, :left] = frames[:, :, 160 - right :] = black
    return frames


@pytest.mark.parametrize(
    ("bars", "shape"),
    [
        ({}, (90, 160)),
        ({"left": 20, "right": 20}, (90, 118)),
        ({"top": 10, "bottom": 12}, (66, 160)),
        ({"top": 10, "bottom": 10, "left": 20, "right": 30}, (68, 108)),
        ({"left": 20, "right": 20, "black": 30}, (90, 160)),
        ({"left": 140}, (90, 160)),
        ({"left": 160}, (90, 160)),
    ],
    ids=["none", "pillarbox", "letterbox", "windowbox", "grey_is_no_bar", "too_little_left", "all_black"],
)
def test_bars_are_removed_with_the_adjacent_line(bars, shape):
    assert without_bars(boxed(**bars)).shape == (2, *shape, 3)


def test_line_lit_in_one_frame_is_not_a_bar():
    frames = boxed(left=20, right=20)
    frames[1, 40:50, 10] = 200
    assert without_bars(frames).shape == (2, 90, 160 - 10 - 20 - 2, 3)


def still(before, after):
    return still_pattern(edges(before), edges(after))


def written(frame):
    return cv2.putText(frame.copy(), "words", (150, 330), cv2.FONT_HERSHEY_DUPLEX, 2.0, (255, 255, 255), 4, cv2.LINE_AA)


def test_text_over_a_moving_picture_is_located(textured):
    before, after = (written(textured[100:460, x : x + 640]) for x in (100, 130))
    mask = still(before, after)
    rows, columns = np.nonzero(mask)
    assert (
        np.abs(np.array([rows.min(), rows.max(), columns.min(), columns.max()]) * 2 - (280, 332, 155, 335)).max() < 25
    )


@pytest.mark.parametrize("case", ["nothing_laid_over", "all_still", "black"])
def test_no_overlay(textured, case):
    frame = np.zeros((360, 640, 3), np.uint8) if case == "black" else textured[100:460, 100:740]
    other = textured[100:460, 130:770] if case == "nothing_laid_over" else frame
    assert still(frame, other) is None


def test_line_that_slides_along_itself_is_not_an_overlay():
    before, after = (np.full((360, 640, 3), 90, np.uint8) for _ in range(2))
    for frame, x in ((before, 100), (after, 140)):
        frame[180:190] = 250
        frame[40:100, x : x + 60] = frame[220:300, x + 150 : x + 250] = 200
        frame[:, x + 300 : x + 310] = 20
    assert still(before, after) is None


def test_filling_changes_only_the_mask(textured):
    frame = textured[100:460, 100:740]
    mask = np.zeros((180, 320), np.uint8)
    mask[20:60, 200:300] = 1
    out = filled(written(frame), mask)
    outside = cv2.resize(mask, (640, 360), interpolation=cv2.INTER_NEAREST) == 0
    assert (out[outside] == written(frame)[outside]).all()
    assert np.ptp(out[60:100, 420:580]) < np.ptp(frame[60:100, 420:580])
