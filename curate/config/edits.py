"""Edits of the `keep:` section of a pipeline file's text that preserve every other character, including comments."""

from collections.abc import Mapping
from typing import Any

import yaml

from curate.errors import ConfigError


def with_rules(
    text: str, rules: Mapping[str, Mapping[str, Any]], notes: Mapping[str, str], name: str = "pipeline.yaml"
) -> str:
    """The text with these rules.

    Args:
        text: The text of a valid pipeline file.
        rules: Bounds by column, such as `{"above": 0.81}`; other bounds of the column's rule are kept.
        notes: A comment by column, which replaces the rule's comment.
        name: The file's name, for errors.

    Raises ConfigError when the file's layout cannot be edited automatically.
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
            f"{name}: the layout of its keep: cannot be edited automatically; write  {column}: {_flow(rule)}  there by hand"
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
    """The end of a node's last leaf; a block node itself ends after the comments and empty lines that follow it."""
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
