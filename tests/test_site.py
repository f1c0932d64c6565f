"""The documentation site: it builds without a warning, loads nothing from other hosts, and its links have targets."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).resolve().parents[1]
LOADING = {"script": "src", "img": "src", "source": "src", "video": "src", "iframe": "src", "link": "href"}
"""Elements that make a browser load a resource, and the attribute with its address."""


class Page(HTMLParser):
    """The resources, links and anchors of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if found.get("id"):
            self.anchors.add(found["id"])
        if tag in LOADING and found.get(LOADING[tag]) and found.get("rel") != "canonical":
            self.loads.append(found[LOADING[tag]])
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    """Every page of the site."""
    found = {path: Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html") if path.name != "404.html"}
    assert {path.relative_to(site).as_posix() for path in found} >= {"index.html", "cli.html", "benchmarks/scan.html"}
    return found


def test_the_site_loads_nothing_from_other_hosts(site: Path, pages: dict[Path, Page]) -> None:
    loaded = {what for page in pages.values() for what in page.loads}
    assert len(loaded) > 3
    assert not [what for what in loaded if re.match(r"(https?:)?//", what)]
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//|@import", sheet.read_text(encoding="utf-8")), sheet


def test_links_of_the_site_have_pages_and_anchors(pages: dict[Path, Page]) -> None:
    n = 0
    for path, page in pages.items():
        for link in [*page.links, *page.loads]:
            if re.match(r"[a-z]+:|//", link):
                continue
            target, _, anchor = link.partition("#")
            there = (path.parent / unquote(target)).resolve() if target else path
            assert there.exists(), f"{path.name}: {link}"
            if anchor and there in pages:
                assert unquote(anchor) in pages[there].anchors, f"{path.name}: {link}"
                n += 1
    assert n > 100
