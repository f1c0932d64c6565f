"""The state machine of tests/fuzz/machine.py: a few fixed walks in `make test`, many in `make test-all`."""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.fuzz.machine import Resume

CALM = {"deadline": None, "suppress_health_check": list(HealthCheck), "derandomize": True, "database": None}


@pytest.mark.slow  # `python -m tests.fuzz` walks at length
def test_a_few_walks() -> None:
    run_state_machine_as_test(Resume, settings=settings(max_examples=8, stateful_step_count=8, **CALM))


@pytest.mark.slow
def test_many_walks() -> None:
    run_state_machine_as_test(Resume, settings=settings(max_examples=60, stateful_step_count=15, **CALM))
