"""Every reader of untrusted files, briefly, with fixed inputs; for longer: `python -m tests.fuzz all --seconds 60`."""

import random

import pytest

from tests.fuzz.targets import TARGETS, changed, survives


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TARGETS)
def test_mutated_input_raises_only_our_own_errors(name: str) -> None:
    target = TARGETS[name]
    rng = random.Random(0)
    begins = list(target.begins())
    assert begins
    for good in begins:
        target.reads(good)
    for _ in range(40 if name in ("video", "shard", "run") else 150):
        data = changed(rng.choice(begins), rng)
        error = survives(target, data)
        assert error is None, f"{type(error).__name__}: {error}; for {data[:300]!r}"
