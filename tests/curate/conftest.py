"""What the tests of files that bite share."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.awkward import make_all


@pytest.fixture(scope="session")
def awkward_files() -> Iterator[dict[str, Path]]:
    """All awkward files, by name, in a folder that any user may enter. Not to be changed."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield make_all(Path(name))
