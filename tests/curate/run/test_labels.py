"""Labels of rules name what is dropped."""

import pytest

from curate.config.config import Rule
from curate.run.labels import dropped_label
from curate.run.select import describe


@pytest.mark.parametrize(
    ("rule", "label"),
    [
        ({"above": "p25"}, "motion < p25"),
        ({"above": 1e-7}, "motion < 1e-07"),
        ({"below": 0.07}, "motion > 0.07"),
        ({"above": 10, "below": 60}, "motion < 10 or motion > 60"),
        ({"is": False}, "motion is True"),
        ({"is": True}, "motion is False"),
        ({"is": "wide"}, "motion is not wide"),
        ({"is": ["wide", "close"]}, "motion is neither wide nor close"),
        ({"is": ["a", "b", "c"]}, "motion is neither a, b nor c"),
        ({"is": 3}, "motion is not 3"),
        ({"above": 1, "below": 3, "is": [1, 2]}, "motion < 1 or motion > 3 or motion is neither 1 nor 2"),
        ({"is": "salt and pepper"}, "motion is not salt and pepper"),
        ({"is": "a <= b"}, "motion is not a <= b"),
    ],
    ids=str,
)
def test_label_is_the_opposite_of_the_rule(rule: dict[str, object], label: str) -> None:
    assert dropped_label(describe("motion", Rule.model_validate(rule))) == label


def test_label_names_clips_without_a_value() -> None:
    assert dropped_label("text_area <= 0.07", nulls=True) == "text_area > 0.07 or no value"


def test_a_column_name_with_spaces_and_signs() -> None:
    assert dropped_label("hue (HSV) >= 0.1 and hue (HSV) <= 0.5") == "hue (HSV) < 0.1 or hue (HSV) > 0.5"


def test_another_form_is_returned_unchanged() -> None:
    assert dropped_label("") == ""
    assert dropped_label("too short") == "too short"
