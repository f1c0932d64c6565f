"""Notebook files: execute one, clean it for a commit, compute the digest that ties its outputs to its source."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

from tests.project import ROOT, environment

FOLDER = ROOT / "notebooks"
PLAYER = "(a player; run the cell to see the clip)"
MOST_BYTES = 700_000
"""Size limit of a committed notebook."""


def paths() -> list[Path]:
    """All notebooks, in order."""
    return sorted(FOLDER.glob("*.ipynb"))


def read(path: Path) -> NotebookNode:
    """Reads a notebook."""
    return nbformat.read(path, as_version=4)


def digest(book: NotebookNode) -> str:
    """SHA-256 of the cells without their outputs."""
    return hashlib.sha256("\0".join(f"{cell.cell_type}\n{cell.source}" for cell in book.cells).encode()).hexdigest()


def execute(path: Path, variables: dict[str, str]) -> NotebookNode:
    """Executes a notebook in a new kernel with these environment variables. Raises when a cell does."""
    book = read(path)
    env = {**environment(), "MPLBACKEND": "module://matplotlib_inline.backend_inline", **variables}
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [variables.get("PYTHONPATH")])])
    client = NotebookClient(
        book,
        timeout=1800,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(FOLDER)}},
    )
    with client.setup_kernel(env=env, cwd=str(FOLDER)):
        for index, cell in enumerate(book.cells):
            client.execute_cell(cell, index)
    return book


def outputs(book: NotebookNode) -> Iterator[Any]:
    """Every output, cell by cell."""
    for cell in book.cells:
        yield from cell.get("outputs", [])


def text_of(output: Any) -> str:
    """The text of an output: a stream, or the plain text and HTML of a result."""
    data = output.get("data", {})
    return "".join([output.get("text", ""), *(data.get(kind, "") for kind in ("text/plain", "text/html"))])


def clean(book: NotebookNode) -> NotebookNode:
    """The notebook as it is committed: no metadata of the machine, no videos, and the digest that its outputs belong to.

    Raises ValueError for an error, for anything on standard error, for a terminal's escape codes and for a path of this machine.
    """
    for cell in book.cells:
        cell.metadata = nbformat.from_dict({})
        for output in cell.get("outputs", []):
            output.pop("metadata", None)
            if output.output_type in ("display_data", "execute_result"):
                output.metadata = nbformat.from_dict({})
                if "<video" in output.data.get("text/html", ""):
                    output.data = nbformat.from_dict({"text/plain": PLAYER})
            if "\x1b[" in text_of(output):
                raise ValueError("an output holds a terminal's escape codes")
            if output.output_type == "error" or output.get("name") == "stderr":
                raise ValueError(
                    f"a cell failed or wrote to standard error: {output.get('text', output.get('evalue'))}"
                )
            if found := [place for place in (str(ROOT), str(Path.home()) + "/") if place in text_of(output)]:
                raise ValueError(f"an output names a path of this machine: {found[0]}")
    book.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
            "rushes": {"outputs_of": digest(book)},
        }
    )
    return book


def write(book: NotebookNode, path: Path) -> None:
    """Writes it, if it is small enough. Raises ValueError."""
    text = nbformat.writes(book)
    if len(text) > MOST_BYTES:
        raise ValueError(f"{path.name} would have {len(text)} bytes, more than {MOST_BYTES}: show fewer pictures")
    path.write_text(text + "\n")
