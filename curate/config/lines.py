"""YAML with the line of every key, so that an error can name `pipeline.yaml:12`. Expands `${NAME}` and `${NAME:-default}`."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from curate.errors import ConfigError

Path_ = tuple[str | int, ...]
VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")
MAX_NODES = 10_000
"""Maximum number of values: aliases can expand a small file without limit (a "YAML bomb"). Ours."""
MAX_CHARACTERS = 1_000_000
"""Maximum length of a file; the parser takes about 15 s for it. Ours: the longest pipeline of the project has 5,000 characters."""


@dataclass(frozen=True)
class Document:
    """Plain values and the line of each."""

    name: str
    data: Any
    lines: Mapping[Path_, int]

    def where(self, path: Path_) -> str:
        """`file:line` of the value at `path`, or of its nearest parent; just the file when the value came from the command line."""
        while path and path not in self.lines:
            path = path[:-1]
        return f"{self.name}:{self.lines[path]}" if path else self.name


def parse(text: str, name: str) -> Document:
    """Parses `text`. Raises ConfigError with file and line for broken YAML, a duplicate key, an unset variable, and a file that is too
    long, too deep or has too many values."""
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(f"{name}: more than {MAX_CHARACTERS} characters; this is not a pipeline file")
    lines: dict[Path_, int] = {}
    loader = None
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        data = _value(root, (), name, lines, loader) if root is not None else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise ConfigError(
            f"{name}:{mark.line + 1 if mark else 1}: not valid YAML: {error.problem or error.context}"
        ) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}: not valid YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise ConfigError(f"{name}: values nested too deeply; this is not a pipeline file") from error
    finally:
        if loader is not None:
            loader.dispose()
    return Document(name, data, lines)


def _value(node: yaml.Node, path: Path_, name: str, lines: dict[Path_, int], loader: yaml.SafeLoader) -> Any:
    line = node.start_mark.line + 1
    lines.setdefault(path, line)
    if len(lines) > MAX_NODES:
        raise ConfigError(f"{name}:{line}: more than {MAX_NODES} values; this is not a pipeline file")
    if isinstance(node, yaml.MappingNode):
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value
            at = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConfigError(f"{name}:{at}: a key must be a word")
            if key in result:
                raise ConfigError(f"{name}:{at}: duplicate key '{key}'")
            lines[(*path, key)] = at
            result[key] = _value(value_node, (*path, key), name, lines, loader)
        return result
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, (*path, i), name, lines, loader) for i, item in enumerate(node.value)]
    try:
        value = loader.construct_object(node)
    except ValueError as error:
        raise ConfigError(f"{name}:{line}: {error}") from error
    except (LookupError, AttributeError, TypeError) as error:  # defects of PyYAML, as in `!!int ""`
        kind = node.tag.rpartition(":")[2]
        raise ConfigError(f"{name}:{line}: '{node.value}' is not a valid {kind}") from error
    return expand(value, f"{name}:{line}") if isinstance(value, str) else value


def expand(text: str, where: str) -> str:
    """Replaces `${NAME}` by the environment's value and `${NAME:-default}` by its default when unset."""

    def replace(match: re.Match[str]) -> str:
        value = os.environ.get(match["name"], match["default"])
        if value is None:
            raise ConfigError(
                f"{where}: the environment variable {match['name']} is not set (write ${{{match['name']}:-default}} to give a default)"
            )
        return value

    return VARIABLE.sub(replace, text)
