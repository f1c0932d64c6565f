"""Writes rules into the `keep:` of a pipeline file's text and leaves every other character, comments too, as it is."""

from collections.abc import Mapping
from typing import Any

import yaml

from curate.errors import ConfigError


def with_rules(
    text: str, rules: Mapping[str, Mapping[str, Any]], notes: Mapping[str, str], name: str = "pipeline.yaml"
) -> str:
    """The text with these rules.

    Args:
        text: of a pipeline file that is valid.
        rules: by column, `{"above": 0.81}`; other bounds that the column's rule has stay.
        notes: by column, a comment that stands behind the rule in the place of the one that was there.
        name: of the file, for errors.

    Raises ConfigError where the file is written in a way that cannot be changed so.
    """
    for column, rule in rules.items():
        text = _with_rule(text, column, rule, notes.get(column, ""), name)
    return text


def _with_rule(text: str, column: str, rule: Mapping[str, Any], note: str, name: str) -> str:
    before = yaml.safe_load(text) or {}
    old = dict(before.get("keep") or {})
    wanted = {**before, "keep": {**old, column: {**(old.get(column) or {}), **rule}}}
    made = _edited(text, column, wanted["keep"], note)
    try:
        same = yaml.safe_load(made) == wanted
    except yaml.YAMLError:
        same = False
    if not same:
        raise ConfigError(
            f"{name}: its keep: is written in a way that cannot be changed by itself; write  {column}: {_flow(rule)}  there"
        )
    return made


def _edited(text: str, column: str, keep: Mapping[str, Any], note: str) -> str:
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    value = None if root is None else next((v for k, v in root.value if k.value == "keep"), None)
    line = f"{column}: {_flow(keep[column])}{_comment(note)}"
    if value is None:
        return f"{text.rstrip()}\n\nkeep:\n  {line}\n"
    if not isinstance(value, yaml.MappingNode) or value.flow_style or not value.value:
        rest = _line_end(text, value.end_mark.index)
        rows = "".join(
            f"\n  {key}: {_flow(rule)}{_comment(note) if key == column else ''}" for key, rule in keep.items()
        )
        return text[: value.start_mark.index].rstrip(" ") + rows + text[rest:]
    own = next((v for k, v in value.value if k.value == column), None)
    if own is not None:
        return text[: own.start_mark.index] + _flow(keep[column]) + _comment(note) + text[_line_end(text, _end(own)) :]
    after = _line_end(text, _end(value))
    return f"{text[:after]}\n{' ' * value.value[0][0].start_mark.column}{line}{text[after:]}"


def _end(node: yaml.Node) -> int:
    """Where the last leaf of a node ends: a block's own end lies behind the comments and empty lines that follow it."""
    if not isinstance(node, yaml.CollectionNode) or node.flow_style or not node.value:
        return int(node.end_mark.index)
    last = node.value[-1]
    return _end(last[1] if isinstance(last, tuple) else last)


def _line_end(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end < 0 else end


def _flow(rule: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(rule), default_flow_style=True, width=10_000, sort_keys=False).strip()


def _comment(note: str) -> str:
    return f"  # {' '.join(note.split())}" if note else ""
