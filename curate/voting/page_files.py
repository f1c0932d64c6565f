"""The files of the voting page in the package, for the server and for packed folders."""

from importlib.resources import files

PAGE = {
    "index.html": "text/html",
    "style.css": "text/css",
    **dict.fromkeys(("vote.js", "videos.js", "at_server.js", "at_home.js"), "text/javascript"),
}
"""File names and their MIME types."""


def page_file(name: str) -> bytes:
    """The bytes of a file of the page."""
    return files("curate.voting").joinpath("page", name).read_bytes()
