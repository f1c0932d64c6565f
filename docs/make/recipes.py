"""docs/recipes.md: every value of every recipe with its source, as `rushes train --explain NAME` prints them."""

from collections.abc import Sequence

from train_hooks.recipe_files import Explained, explain, known_recipes

PUBLISHED = ("modelscope", "zeroscope_576w", "zeroscope_xl", "videocrafter", "lavie", "svd_t2v", "svd_i2v")
LARGE = (*PUBLISHED, *(name for name in known_recipes() if name not in PUBLISHED and not name.startswith("tiny")))
"""Recipes that are no small copy of another: the papers' in the order of their bases, then all others."""
UNUSED = "not used by this recipe"


def differences() -> str:
    """A row for each key that differs between the large recipes."""
    values = {name: {row.key: row.value for row in explain(name)} for name in LARGE}
    keys = [key for key in values[LARGE[0]] if len({of.get(key) for of in values.values()}) > 1]
    lines = [f"| | {' | '.join(f'`{name}`' for name in LARGE)} |", "|---" * (len(LARGE) + 1) + "|"]
    lines += [f"| `{key}` | {' | '.join(_cell(values[name].get(key, '')) for name in LARGE)} |" for key in keys]
    return "\n".join(lines) + "\n"


def all_tables() -> str:
    """A section for each recipe."""
    return "\n".join(_section(name) for name in (*LARGE, "tiny"))


def _section(name: str) -> str:
    rows = explain(name)
    used = [row for row in rows if not row.source.startswith(UNUSED)]
    unused = [row.key for row in rows if row.source.startswith(UNUSED)]
    lines = [f"### {name}", "", "| key | value | source |", "|---|---|---|", *_rows(used), ""]
    if unused:
        lines += [f"Not used by it: {', '.join(f'`{key}`' for key in unused)}.", ""]
    return "\n".join(lines)


def _rows(rows: Sequence[Explained]) -> list[str]:
    return [f"| `{row.key}` | {_cell(row.value)} | {_plain(row.source)} |" for row in rows]


def _cell(value: str) -> str:
    return _plain(value) if value else "none"


def _plain(text: str) -> str:
    """Text with Markdown's characters escaped: a reference such as [VGen] is not a link, a bar does not end a cell."""
    for mark in ("|", "[", "]", "_", "*", "<"):
        text = text.replace(mark, f"\\{mark}")
    return text
