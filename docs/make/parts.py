"""The generated parts of each page, and their generators. A part is between two comments; the text around it is written by hand."""

from collections.abc import Callable
from pathlib import Path

from docs.make import cli, recipes, stages

ROOT = Path(__file__).resolve().parents[2]
END = "<!-- end -->\n"

PARTS: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {"stages": stages.short},
    "docs/filters.md": {
        "table of stages": stages.table,
        "filters": lambda: stages.sections("filters"),
        "annotate": lambda: stages.sections("annotate"),
    },
    "docs/recipes.md": {"differences": recipes.differences, "recipes": recipes.all_tables},
    "docs/cli.md": {"commands": cli.page},
}


def begin(name: str) -> str:
    """The comment before a part."""
    return f"<!-- written by `python -m docs.make`: {name} -->\n"


def written(page: str) -> str:
    """A page with its generated parts. Raises ValueError when the page lacks the comments of a part."""
    text = (ROOT / page).read_text()
    for name, make in PARTS[page].items():
        before, found, rest = text.partition(begin(name))
        _, ended, after = rest.partition(END)
        if not found or not ended:
            raise ValueError(f"{page} has no place for '{name}': {begin(name)}{END}")
        text = f"{before}{begin(name)}\n{make().strip()}\n\n{END}{after}"
    return text
