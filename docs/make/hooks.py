"""Hooks of mkdocs: pages from outside of docs/, and the links to them.

Links in docs/*.md are those of the repository (`../benchmarks/results/scan.md`), so that they work in the repository too.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
OUTSIDE = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "notebooks/README.md": "notebooks.md",
    **{
        f"benchmarks/results/{path.name}": f"benchmarks/{path.name}"
        for path in sorted((ROOT / "benchmarks/results").glob("*.md"))
    },
}
"""Files of the repository and the pages of the site that they become."""
LINK = re.compile(r"(?<!!)\[([^\]\n]+)\]\((?![a-z]+:|#)([^)#\s]+)(#[^)\s]+)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages from outside of docs/."""
    for source, page in OUTSIDE.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turns links of the repository into links of the site; a link to a file that is not a page becomes its text."""
    here = page.file.src_uri
    source = next((source for source, outside in OUTSIDE.items() if outside == here), f"docs/{here}")

    def relinked(found: re.Match[str]) -> str:
        words, target, anchor = found[1], found[2], found[3] or ""
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        if path.startswith("docs/"):
            path = path.removeprefix("docs/")
        elif path in OUTSIDE:
            path = OUTSIDE[path]
        elif (ROOT / path).exists():
            return words
        else:
            return found[0]  # mkdocs reports the dead link
        return f"[{words}]({posixpath.relpath(path, posixpath.dirname(here) or '.')}{anchor})"

    return LINK.sub(relinked, markdown)
