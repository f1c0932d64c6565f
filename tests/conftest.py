"""What all tests share: the real footage and assets beside the repository, where they are there."""

import os
from pathlib import Path

import pytest

pytest_plugins = ["tests.project"]


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of real footage and assets. Absent in a user's clone (skip); in CI it must be there (fail)."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not (folder / "footage").is_dir():
        reason = f"needs the project's shared footage in {folder}, which is not part of the repository"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return folder
