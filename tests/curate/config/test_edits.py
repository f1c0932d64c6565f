"""Rules written into a pipeline file's text: what they come to, and what stays as it was."""

import pytest
import yaml

from curate.config.edits import with_rules
from curate.errors import ConfigError

FLOW = """\
run: runs/demo            # tables go here
keep:                     # moving a threshold costs milliseconds
  motion: {above: p25}    # the quarter that moves least goes (SVD)
  text_area: {below: 0.07} # at most 7 %

shards:
  mode: exact
"""
BLOCK = """\
keep:
    motion:
        above: p25   # ours
        below: 9

    # a remark about text
    text_area:
        below: 0.07
measure: [{use: filters.Motion}]
"""


@pytest.mark.parametrize(
    ("text", "rules", "wanted"),
    [
        (FLOW, {"motion": {"above": 0.5}}, {"motion": {"above": 0.5}, "text_area": {"below": 0.07}}),
        (FLOW, {"new": {"above": 1}}, {"motion": {"above": "p25"}, "text_area": {"below": 0.07}, "new": {"above": 1}}),
        (FLOW, {"motion": {"below": 3.0}}, {"motion": {"above": "p25", "below": 3.0}, "text_area": {"below": 0.07}}),
        (BLOCK, {"motion": {"above": 2.5}}, {"motion": {"above": 2.5, "below": 9}, "text_area": {"below": 0.07}}),
        (BLOCK, {"new": {"is": False}}, {"motion": {"above": "p25", "below": 9}, "text_area": {"below": 0.07}, "new": {"is": False}}),
        ("run: a\n", {"motion": {"above": 1.0}}, {"motion": {"above": 1.0}}),
        ("run: a\nkeep:\nshards: {}\n", {"motion": {"above": 1.0}}, {"motion": {"above": 1.0}}),
        ("run: a\nkeep: {}  # empty\nshards: {}\n", {"a": {"above": 1.0}, "b": {"below": 2.0}}, {"a": {"above": 1.0}, "b": {"below": 2.0}}),
        ("keep: {motion: {above: p25}}\n", {"motion": {"above": 1.0}, "b": {"below": 2}}, {"motion": {"above": 1.0}, "b": {"below": 2}}),
        ("keep:\n  motion: {above: 1}", {"motion": {"above": 2}}, {"motion": {"above": 2}}),
    ],
    ids=["changed", "added", "other bound stays", "block", "block, added", "no keep", "empty keep", "empty map", "flow map", "no last newline"],
)  # fmt: skip
def test_rules_are_there_and_the_rest_is_as_it_was(text, rules, wanted) -> None:
    made = with_rules(text, rules, dict.fromkeys(rules, "why: 3 % # better"))
    before = yaml.safe_load(text)
    assert yaml.safe_load(made) == {**before, "keep": wanted}


def test_other_lines_and_comments_stay_and_the_old_reason_goes() -> None:
    made = with_rules(FLOW, {"motion": {"above": 0.5}}, {"motion": "an ablation"})
    assert made.splitlines() == [
        "run: runs/demo            # tables go here",
        "keep:                     # moving a threshold costs milliseconds",
        "  motion: {above: 0.5}  # an ablation",
        "  text_area: {below: 0.07} # at most 7 %",
        "",
        "shards:",
        "  mode: exact",
    ]
    assert "# a remark about text" in with_rules(BLOCK, {"motion": {"above": 0.5}}, {})


def test_a_file_that_cannot_be_changed_so_is_one_sentence() -> None:
    with pytest.raises(ConfigError, match=r"p\.yaml: the layout of its keep: cannot be edited automatically"):
        with_rules("a: &k {motion: {above: 1}}\nkeep: *k\n", {"motion": {"above": 2}}, {}, "p.yaml")
