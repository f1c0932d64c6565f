"""A pipeline file that needs too much memory or time, or that makes PyYAML itself fail (curate/config/lines.py)."""

import time
from pathlib import Path

import pytest

from curate.config import pipeline_file
from curate.config.lines import MAX_CHARACTERS, parse
from curate.errors import ConfigError, UsageError

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(LAUGHS, "more than 10000 values", id="a billion laughs"),
        pytest.param("a: &a [*a]", "more than 10000 values|nested too deeply", id="a list in itself"),
        pytest.param(f'a: "{"x" * 10_000_000}"', f"more than {MAX_CHARACTERS} characters", id="a text of 10 MB"),
        pytest.param("[" * 100_000, "nested too deeply", id="brackets without end"),
        pytest.param("{a: " * 5_000, "nested too deeply", id="keys without end"),
        pytest.param("- " * 5_000, "nested too deeply", id="dashes without end"),
        pytest.param("a: 1\na: 2", "duplicate key 'a'", id="a key twice"),
        pytest.param("a: !!python/name:os.system ", "could not determine a constructor", id="code"),
        pytest.param("a: \0", "not valid YAML", id="a zero byte"),
        pytest.param('a: !!int ""', "p.yaml:1: '' is not a valid int", id="an empty number"),
        pytest.param('a: !!float ""', "p.yaml:1: '' is not a valid float", id="an empty float"),
        pytest.param("a: !!bool x", "p.yaml:1: 'x' is not a valid bool", id="an invalid boolean"),
        pytest.param("a: !!timestamp x", "p.yaml:1: 'x' is not a valid timestamp", id="an invalid time"),
        pytest.param("a: " + "9" * 10_000, "p.yaml:1: ", id="a number of 10,000 digits"),
        pytest.param("? [a]\n: 1", "a key must be a word", id="a key that is a list"),
    ],
)
def test_a_file_that_costs_more_than_a_pipeline(text: str, message: str) -> None:
    began = time.process_time()
    with pytest.raises(ConfigError, match=message) as error:
        parse(text, "p.yaml")
    assert "\n" not in str(error.value)
    assert time.process_time() - began < 5


def test_a_file_without_an_end() -> None:
    with pytest.raises(UsageError, match=r"more than \d+ characters|not valid YAML"):
        pipeline_file.load(Path("/dev/zero"))
