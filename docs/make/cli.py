"""docs/cli.md: every command of `rushes` with its arguments, options, defaults and help, from the program itself."""

import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from curate.cli import app

KINDS = {str: "TEXT", int: "N", float: "NUMBER", Path: "PATH"}


def page() -> str:
    """A section for each command, in the order of `rushes --help`."""
    sections = [_section(name, command) for name, command in commands()]
    overview = ["| command | |", "|---|---|"]
    for name, command in commands():
        overview.append(f"| [`{name}`](#{name.replace(' ', '-')}) | {_first_sentence(command.help)} |")
    return "\n".join([*overview, "", *sections])


def commands() -> list[tuple[str, Any]]:
    """Every command by its whole name, in the order of `rushes --help`."""
    return list(_commands("rushes", typer.main.get_command(app)))


def _commands(prefix: str, group: Any) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        command = (
            command.load() if hasattr(command, "load") else command
        )  # the group holds names; modules are imported now
        if getattr(command, "commands", None):
            yield from _commands(f"{prefix} {name}", command)
        else:
            yield f"{prefix} {name}", command


def _section(name: str, command: Any) -> str:
    shown = [one for one in command.params if not one.hidden and one.name != "help"]
    arguments = [one for one in shown if not one.opts[0].startswith("-")]
    options = [one for one in shown if one.opts[0].startswith("-")]
    usage = " ".join([name, *(["[OPTIONS]"] if options else []), *(_argument(one) for one in arguments)])
    lines = [f"## {name}", "", "```", usage, "```", "", _prose(command.help), ""]
    if shown:
        lines += ["| | default | |", "|---|---|---|"]
        lines += [f"| {_names(one)} | {_default(one)} | {_cell(one.help or '')} |" for one in [*arguments, *options]]
        lines.append("")
    return "\n".join(lines)


def _argument(argument: Any) -> str:
    name = (argument.metavar or argument.name.upper()) + ("..." if argument.nargs == -1 else "")
    return name if argument.required else f"[{name}]"


def _names(one: Any) -> str:
    if not one.opts[0].startswith("-"):
        return f"`{one.metavar or one.name.upper()}`".replace("|", "\\|")
    value = "" if getattr(one, "is_flag", False) else f" {one.metavar or _kind(one)}"
    return ", ".join(f"`{name}{value}`".replace("|", "\\|") for name in [*one.opts, *one.secondary_opts])


def _kind(one: Any) -> str:
    kind = one.type_descriptor.annotation
    (of,) = typing.get_args(kind)[:1] or (kind,)  # of list[str], str
    return KINDS[of]


def _default(one: Any) -> str:
    if one.required:
        return "required"
    if one.opts[0].startswith("-") and one.is_flag and one.secondary_opts:
        return f"`{(one.opts if one.default else one.secondary_opts)[0]}`"
    if getattr(one, "is_flag", False) or one.default is None or one.default == "":
        return ""
    return f"`{one.default}`"


def _prose(text: str | None) -> str:
    return (text or "").replace("\f", "").strip()


def _first_sentence(text: str | None) -> str:
    return _prose(text).split("\n\n")[0].replace("\n", " ").split(". ")[0].rstrip(".").replace("|", "\\|")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
