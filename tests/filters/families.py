"""Families of cases that test the same behaviour: the first runs in `make test`, the others in `make test-all`."""

from collections.abc import Iterable
from typing import Any

import pytest


def family(cases: Iterable[Any], quick: int = 1) -> list[Any]:
    """The cases for `pytest.mark.parametrize`, all but the first `quick` marked slow."""
    return [case if i < quick else pytest.param(case, marks=pytest.mark.slow) for i, case in enumerate(cases)]
