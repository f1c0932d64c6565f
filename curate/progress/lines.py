"""The renderer for logs (a pipe, a submitted job): a plain line per table, printed when it changes and at most every few seconds.

clips: 12 of 40 windows (3.1/s, 9 s left)
motion, text_area: 10 of 40 clips (5.2/s, 6 s left), 1 failed
clips: done, 40 of 40 windows (2.9/s)
"""

import time
from collections.abc import Sequence

from rich.console import Console

from curate.progress.model import Line, duration

EVERY_S = 10.0
"""Time between two lines of a running step, in seconds; a step whose counts do not change has a line too. Ours."""


def text(lines: Sequence[Line], more: str = "") -> str:
    """One line for tables that share a pass. `more` is added to the rates.

    Counts are of all sessions together; rates of this session.
    """
    first = lines[0]
    names = ", ".join(line.name for line in lines)
    state = {"done": "done, ", "stopped": "stopped at "}.get(first.state, "")
    left = f"{duration(first.left_s)} left" if first.left_s is not None and first.done < (first.total or 0) else ""
    rate = f"{first.rate:.1f}/s" if first.rate else ""
    facts = ", ".join(filter(None, (rate, more, left)))
    errors = sum(line.errors for line in lines)
    return f"{names}: {state}{first.counted}{f' ({facts})' if facts else ''}{f', {errors} failed' if errors else ''}"


class LinePrinter:
    """Prints lines to a console, each only when it differs from the last one for the same tables."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._last: dict[str, object] = {}
        self._printed_s: dict[str, float] = {}

    def table(self, lines: Sequence[Line], more: str = "", throttle: bool = False) -> None:
        """Prints the line of these tables when their counts or state have changed; with `throttle`, at most every EVERY_S seconds."""
        key = ", ".join(line.name for line in lines)
        now = time.monotonic()
        if throttle and now - self._printed_s.setdefault(key, now) <= EVERY_S:
            return
        state = [(line.total, line.done, line.errors, line.state) for line in lines]
        if self._last.get(key) != state:
            self._last[key], self._printed_s[key] = state, now
            self._print(text(lines, more))

    def silent_s(self, lines: Sequence[Line]) -> float:
        """Seconds since the last line of these tables."""
        now = time.monotonic()
        return now - self._printed_s.setdefault(", ".join(line.name for line in lines), now)

    def beat(self, lines: Sequence[Line], elapsed_s: float) -> None:
        """Prints the line of these tables although nothing has changed, with the time since the step started."""
        self._printed_s[", ".join(line.name for line in lines)] = time.monotonic()
        self._print(text(lines, f"{duration(elapsed_s)} so far"))

    def sentence(self, about: str, sentence: str, key: object = None) -> None:
        """Prints a sentence once; again only when it (or `key`, in its place) has changed. `about` tells sentences apart."""
        what = sentence if key is None else key
        if self._last.get(about) != what:
            self._last[about] = what
            self._print(sentence)

    def _print(self, line: str) -> None:
        self.console.print(line, highlight=False, markup=False)
