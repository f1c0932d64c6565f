"""Errors of a run as a whole. (An error of one file or clip is a row with an `error`, not an exception.)

RushesError
├── UsageError      the command, its arguments or pipeline.yaml are wrong: exit code 2, nothing was run
│   ├── ConfigError     a key of pipeline.yaml; names the file, the line and the nearest right key
│   ├── ClaimError      the run directory was made by another configuration
│   └── WeightsError    a model's weights are not on this machine; names the command that fetches them
└── RunError        the run failed: exit code 1; finished work is kept, and the next run resumes from it
"""

import difflib
import re
from collections.abc import Iterable

UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class RushesError(Exception):
    """Any failure of a command, in one sentence: what failed, why, and what to do."""

    exit_code = 1


class UsageError(RushesError):
    """The command or its arguments are wrong; nothing was run."""

    exit_code = 2


class ConfigError(UsageError):
    """A key or a value of the pipeline file is wrong."""


class ClaimError(UsageError):
    """A table of the run directory was made by another configuration."""


class WeightsError(UsageError):
    """Weights that a stage needs are not on this machine."""


class RunError(RushesError):
    """The run failed; finished parts are kept, and the next run resumes from them."""

    exit_code = 1


def nearest(wrong: str, right: Iterable[str]) -> str:
    """Returns `; did you mean 'x'?` for the nearest right name, or a list of the allowed ones when none is near."""
    names = sorted(right)
    found = difflib.get_close_matches(wrong, names, n=1, cutoff=0.6)
    if found:
        return f"; did you mean '{found[0]}'?"
    return f"; allowed here: {', '.join(names)}" if names else ""


def plain_name(name: object) -> str:
    """A file name without any path, since a run directory may be untrusted. Raises RunError for a path."""
    text = str(name)
    if not text or text in (".", "..") or re.search(r"[/\\\x00-\x1f]", text) or ":" in text:
        raise RunError(
            f"the run names a file {printable(text)!r}, which is outside its folder; it was not written by rushes"
        )
    return text


def printable(text: object) -> str:
    """The text with escape codes, other control characters and marks of writing direction replaced by U+FFFD; line ends and tabs stay.

    File names, metadata and captions may hold them, and a terminal would act on them.
    """
    return UNPRINTABLE.sub("\ufffd", str(text))
