"""README's table of stages, from the code. `python -m tests.readme` writes it anew; a test fails when it is out of date."""

import importlib
import inspect
import re
from pathlib import Path

from curate.stage import OF_CAPTIONER

README = Path(__file__).resolve().parents[1] / "README.md"
BEGIN = "<!-- written by `python -m tests.readme` -->\n"
END = "<!-- end -->\n"
CAPTIONER = "<name>"


def table() -> str:
    """A row for each stage of `filters` and `annotate`: its dotted name, its columns, the first sentence of what it says of itself."""
    lines = ["| stage | columns | what it is |", "|---|---|---|"]
    for package in ("filters", "annotate"):
        module = importlib.import_module(package)
        for name in module.__all__:
            cls = getattr(module, name)
            parameters = inspect.signature(cls).parameters
            given = {key: "x" for key, value in parameters.items() if value.default is inspect.Parameter.empty}
            captioned = {"captions": (CAPTIONER,)} if "captions" in parameters else {}
            columns = list(cls(**given, **captioned).columns)
            if "caption" in columns:
                columns = [f"{column}_{CAPTIONER}" if column in OF_CAPTIONER else column for column in columns]
            lines.append(f"| `{package}.{name}` | {_short(columns)} | {_first_sentence(cls)} |")
    return "\n".join(lines) + "\n"


def _short(columns: list[str]) -> str:
    """Columns that differ in first, middle and last alone are written as one."""
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


def page() -> str:
    """README with the table as the code says it."""
    before, _, rest = README.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + table() + END + after


if __name__ == "__main__":
    README.write_text(page())
