"""docs/filters.md: a table of all stages, and a section for each, from docstrings, dataclass fields and `columns`."""

import dataclasses
import importlib
import inspect
import re
import types
import typing
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from curate.stages.stage import OF_CAPTIONER, options_of

PACKAGES = ("filters", "annotate")
CAPTIONER = "<name>"


def stages() -> Iterator[tuple[str, type]]:
    """The dotted name and the class of every stage that ships."""
    for package in PACKAGES:
        module = importlib.import_module(package)
        for name in module.__all__:
            yield f"{package}.{name}", getattr(module, name)


def short() -> str:
    """The names of all stages, a line for each package, each name with a link to its section."""
    lines = []
    for package in PACKAGES:
        found = [use for use, _ in stages() if use.startswith(f"{package}.")]
        links = [f"[{use.partition('.')[2]}](docs/filters.md#{_anchor(use)})" for use in found]
        lines.append(f"- `{package}`: {', '.join(links)}")
    return "\n".join(lines)


def table() -> str:
    """A row for each stage: its dotted name, its columns, the first sentence of its docstring."""
    lines = ["| stage | columns | what it is |", "|---|---|---|"]
    for use, cls in stages():
        columns = _short([name for name, _ in columns_of(use, cls)])
        lines.append(f"| [`{use}`](#{_anchor(use)}) | {columns} | {_first_sentence(cls)} |")
    return "\n".join(lines) + "\n"


def sections(package: str) -> str:
    """A section for each stage of a package."""
    return "\n".join(section(use, cls) for use, cls in stages() if use.startswith(f"{package}."))


def section(use: str, cls: type) -> str:
    """The docstrings of a stage's file and class, its columns, its options."""
    module = inspect.getmodule(cls)
    lines = [f"### {use}", "", *_file_text(module), ""]
    lines += [*_class_text(cls), ""]
    lines += ["| column | type |", "|---|---|"]
    lines += [f"| `{name}` | {_arrow(kind)} |" for name, kind in columns_of(use, cls)] + [""]
    if read := getattr(_built(cls), "reads", ()):
        described = [f"`{name.rstrip('?')}`{' (optional)' if name.endswith('?') else ''}" for name in read]
        lines += [f"Reads {', '.join(described)}.", ""]
    rows = list(_options(cls))
    if rows:
        lines += ["| option | type | default | |", "|---|---|---|---|"]
        lines += [f"| `{name}` | {kind} | {default} | {described} |" for name, kind, default, described in rows] + [""]
    else:
        lines += ["No options.", ""]
    return "\n".join(lines)


def columns_of(use: str, cls: type) -> list[tuple[str, pa.DataType]]:
    """The columns of a stage in the run's table, with one captioner as the example."""
    columns = dict(_built(cls).columns)
    if use.startswith("annotate.") and "caption" in columns:
        columns = {f"{key}_{CAPTIONER}" if key in OF_CAPTIONER else key: kind for key, kind in columns.items()}
    return list(columns.items())


def _built(cls: type) -> Any:
    """The stage with its defaults, for one captioner."""
    parameters = inspect.signature(cls).parameters
    given = {key: "x" for key, value in parameters.items() if value.default is inspect.Parameter.empty}
    captioned = {"captions": (CAPTIONER,)} if "captions" in parameters else {}
    return cls(**given, **captioned)


def _options(cls: type) -> Iterator[tuple[str, str, str, str]]:
    described = _attributes(cls)
    for field in dataclasses.fields(cls):
        if not field.init:
            continue
        kind = options_of(cls)[field.name]
        yield field.name, _type(kind), _default(field), described[field.name].replace("|", "\\|")


def _attributes(cls: type) -> dict[str, str]:
    """The sentences of the docstring's `Attributes:`, by option."""
    _, _, text = (inspect.getdoc(cls) or "").partition("Attributes:\n")
    found: dict[str, str] = {}
    for line in text.splitlines():
        if match := re.match(r"    (\w+): (.*)", line):
            last, found[match[1]] = match[1], match[2]
        elif line.startswith("        "):
            found[last] += f" {line.strip()}"
    return found


def _file_text(module: Any) -> list[str]:
    """The docstring of a file without its last paragraph where that is a legend of symbols."""
    paragraphs = (inspect.getdoc(module) or "").split("\n\n")
    if _is_legend(paragraphs[-1]):
        paragraphs.pop()
    return "\n\n".join(paragraphs).splitlines()


def _is_legend(paragraph: str) -> bool:
    return bool(re.match(r"(`[a-z]`|[A-Z])( =| [a-z]+,|,? [a-z]+ )", paragraph)) and len(paragraph) < 260


def _class_text(cls: type) -> list[str]:
    text = (inspect.getdoc(cls) or "").partition("Attributes:")[0].strip()
    return text.splitlines()


def _arrow(kind: pa.DataType) -> str:
    if pa.types.is_fixed_size_list(kind):
        return f"{kind.list_size} × {kind.value_type}"
    if pa.types.is_list(kind):
        return f"list of {_arrow(kind.value_type)}"
    return str(kind)


def _type(kind: Any) -> str:
    """A type as a reader of YAML needs it."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return " \\| ".join(f"`{value}`" for value in args)
    if origin in (typing.Union, types.UnionType):
        return " or ".join("null" if arg is type(None) else _type(arg) for arg in args)
    if origin is tuple:
        return f"list of {_type(args[0])}"
    if origin is not None and args:
        return "mapping"
    plain = {str: "text", float: "number", int: "whole number", bool: "true, false"}
    return plain[kind]


def _default(field: "dataclasses.Field[Any]") -> str:
    if field.default is not dataclasses.MISSING:
        value = field.default
    elif field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    else:
        return "required"
    return _yaml(value)


def _yaml(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, tuple | list):
        return ", ".join(f"`{part}`" for part in value) or "none"
    if isinstance(value, dict):
        return "; ".join(f"`{key}`: {_yaml(part)}" for key, part in value.items()) or "none"
    if isinstance(value, bool):
        return str(value).lower()
    if value == "":
        return "none"
    return f"`{value}`".replace("\n", " ").replace("|", "\\|")


def _short(columns: list[str]) -> str:
    """Columns that differ only in first, middle and last are joined into one."""
    shown = []
    for column in columns:
        stem = re.sub(r"_(first|middle|last)$", "", column)
        if stem != column and all(f"{stem}_{part}" in columns for part in ("first", "middle", "last")):
            column = f"{stem}_first/middle/last"
        if column not in shown:
            shown.append(column)
    return ", ".join(f"`{column}`" for column in shown)


def _first_sentence(cls: type) -> str:
    paragraph = " ".join((inspect.getdoc(cls) or "").split("\n\n")[0].split())
    return re.split(r"(?<=[^.][.]) (?=[A-Z(])", paragraph)[0].rstrip(".").replace("|", "\\|")


def _anchor(use: str) -> str:
    return use.lower().replace(".", "")
