"""Commands are imported when they are called, and the help lines kept beside their names are those of their docstrings."""

import importlib
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import typer

from curate.ablation import asked
from curate.cli import COMMANDS, ablate, app, export
from curate.cli.lazy import spread
from curate.exports.export import FORMATS
from tests.curate.cli.conftest import Cli
from tests.project import environment

HEAVY = {"pandas", "pyarrow", "aiohttp", "torch", "ray", "lancedb", "numpy", "cv2", "av"}
"""pydantic is not among them: typer parses options with it."""


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["rnu"], ["run", "--help"], ["ablate", "--help"], ["vote", "--help"]],
    ids=" ".join,
)
def test_help_imports_no_heavy_module(arguments: list[str]) -> None:
    code = (
        "import atexit, json, sys\n"
        "atexit.register(lambda: print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})), file=sys.stderr))\n"
        "from curate.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == (2 if arguments == ["rnu"] else 0), done.stderr
    assert not HEAVY & set(json.loads(done.stderr.splitlines()[-1]))


@pytest.mark.parametrize("name", COMMANDS)
def test_a_help_line_is_the_first_paragraph_of_the_docstring(name: str) -> None:
    module = importlib.import_module(f"curate.cli.{name}")
    text = typer.main.get_command(module.app).help if hasattr(module, "app") else module.command.__doc__
    assert " ".join((text or "").split("\n\n")[0].split()) == COMMANDS[name]


def test_every_command_module_is_a_command_and_registered_once() -> None:
    folder = Path(importlib.import_module("curate.cli").__file__ or "").parent
    modules = {path.stem: path.read_text() for path in folder.glob("*.py")}
    commands = {
        name for name, text in modules.items() if "\ndef command(" in text or "\napp = typer.Typer(no_args" in text
    }
    assert commands - {"__init__"} == set(COMMANDS)
    assert list(typer.main.get_command(app).commands) == list(COMMANDS)


def test_every_command_has_help(cli: Cli) -> None:
    overview = cli("--help")
    assert overview.code == 0
    for name in COMMANDS:
        assert f" {name} " in overview.out
        assert "Usage: rushes" in cli(name, "--help").out


def test_version(cli: Cli) -> None:
    done = cli("--version")
    assert (done.code, done.out) == (0, f"rushes {version('rushes')}\n")


def test_values_repeated_for_help_are_those_of_the_code() -> None:
    assert tuple(export.FORMATS) == tuple(FORMATS)
    assert (ablate.SEEDS, ablate.PROMPTS) == (asked.SEEDS, asked.PROMPTS)


@pytest.mark.parametrize(
    ("typed", "parsed"),
    [
        ("run p.yaml --sources a b c", "run p.yaml --sources a --sources b --sources c"),
        ("--sources a b p.yaml", "--sources a --sources b p.yaml"),
        ("--sources a p.yaml --set x=1", "--sources a p.yaml --set x=1"),
        ("--sources a b --run r --sources c", "--sources a --sources b --run r --sources c"),
        ("--sources=a p", "--sources=a p"),
        ("--sources odd.yaml p.yaml", "--sources odd.yaml p.yaml"),
        ("p.yaml --sources", "p.yaml --sources"),
        ("p.yaml --set a=1 b", "p.yaml --set a=1 b"),
    ],
)
def test_sources_takes_several_values(typed: str, parsed: str) -> None:
    assert spread(typed.split()) == parsed.split()
