"""Commands whose modules are imported when they are called: `rushes --help` needs their names and first paragraphs only."""

import importlib
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

SPREAD = "--sources"
"""An option that takes several values at once, because a shell expands an unquoted `footage/*.mp4` into many words."""


class LazyCommand(TyperCommand):
    """Stands for the command, or the group of commands, in the module `curate.cli.NAME`. The help line is known beforehand."""

    def __init__(self, name: str, help: str) -> None:
        super().__init__(name, help=help)

    def load(self) -> Any:
        """The real command: the module's `app` (a group), or its function `command`."""
        module = importlib.import_module(f"curate.cli.{self.name}")
        if hasattr(module, "app"):
            return typer.main.get_command(module.app)
        alone = typer.Typer(add_completion=False)
        alone.command(self.name)(module.command)
        return typer.main.get_command(alone)

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Parses the arguments by the real command's parameters; the group then invokes the context's command, which is the real one."""
        command = self.load()
        repeatable = [option for one in command.params if getattr(one, "multiple", False) for option in one.opts]
        words = spread(args) if SPREAD in repeatable else args
        return command.make_context(info_name, words, parent=parent, **extra)


class LazyGroup(TyperGroup):
    """A group whose commands are LazyCommands. `lines` (name to help line) is set by the subclass."""

    lines: dict[str, str]

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, line in self.lines.items():
            self.add_command(LazyCommand(name, line))


def spread(words: Sequence[str]) -> list[str]:
    """`--sources a b c` as `--sources a --sources b --sources c`.

    The values end at the next option, and at a YAML file after the first value: that is the pipeline.
    """
    out: list[str] = []
    n_values: int | None = None  # of --sources so far; None outside of it
    for word in words:
        if word.startswith("-") and word != "-":
            n_values = 0 if word == SPREAD else None
        elif n_values is not None:
            if n_values and word.endswith((".yaml", ".yml")):
                n_values = None
            else:
                if n_values:
                    out.append(SPREAD)
                n_values += 1
        out.append(word)
    return out
