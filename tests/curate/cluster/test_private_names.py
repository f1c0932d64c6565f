"""Private names of Ray that the runner uses: checked with the release below. pyproject.toml bounds Ray to it."""

import importlib
import importlib.metadata
import tomllib
from pathlib import Path

CHECKED = "2.60"
"""With this release a process that stopped its own Ray and then joined a cluster without tokens kept its actors (test_submit.py)."""


def test_private_names_exist_in_the_release_that_was_checked() -> None:
    assert importlib.metadata.version("ray").startswith(f"{CHECKED}.")
    core = importlib.import_module("ray._raylet")
    assert callable(core.Config.initialize)
    assert callable(core.AuthenticationTokenLoader.instance().reset_cache)


def test_pyproject_bounds_ray_to_that_release() -> None:
    root = Path(__file__).resolve().parents[3]
    wanted = tomllib.loads((root / "pyproject.toml").read_text())["project"]["dependencies"]
    assert "ray[data,default]>=2.60,<2.61" in wanted
