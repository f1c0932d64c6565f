"""A headless Chromium for tests of pages, and a file server."""

import functools
import http.server
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync",
)  # fmt: skip
HOW = "needs Chromium: `apt-get install chromium`, or CHROMIUM=/path/to/a/chromium-or-chrome"


def executable() -> str:
    """The browser of this machine. Without one tests skip; in CI they fail."""
    names = [os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome", "chrome"]
    found = next((path for name in names if name and (path := shutil.which(name))), None)
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail(HOW)
        pytest.skip(HOW)
    return found


@contextmanager
def chromium() -> Iterator["Browser"]:
    """A running Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable(), args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened_report(browser: "Browser", run: Path, **options: Any) -> Iterator["Page"]:
    """The report of a run, opened from the disk. Afterwards it asserts: no console message, no dialog, no request outside its folder."""
    messages: list[str] = []
    requested: list[str] = []
    context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | options))
    page = context.new_page()
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("dialog", lambda dialog: messages.append(dialog.message))
    page.on("request", lambda request: requested.append(request.url))
    folder = (run / "report").as_uri()
    page.goto(f"{folder}/index.html")
    page.wait_for_selector("html[data-ready]")
    yield page
    context.close()
    assert not messages
    assert [url for url in requested if not url.startswith((folder, "data:"))] == []
    assert len(requested) > 10


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """No request log."""


@contextmanager
def file_server(folder: Path) -> Iterator[str]:
    """The address of a folder's index.html on a plain file server without range requests."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/index.html"
        server.shutdown()
