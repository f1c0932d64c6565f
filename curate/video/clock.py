"""From the timestamps of a file to a clock that only goes forward: when each picture is shown, for how long, and where some are missing.

Pure arithmetic over (time, stated duration), one picture after the other, in seconds.
"""

from typing import NamedTuple

RESET_S = 1.0  # ours: timestamps that step back further than this start again (joined files); smaller steps are noise
JUMP_S = 10.0  # FFmpeg's: timestamps of a stream that jump ahead further than this are another clock's
_EVEN = 12  # ours: so many steps of the stated length in a row make a rhythm, and a gap in it a loss


class Shown(NamedTuple):
    """When one picture is shown."""

    t_s: float
    duration_s: float
    broke: str | None
    """What the file's own clock did before this picture, if it did not simply go on."""
    steps: float
    """Distance from the picture before, in pictures of the stated rate."""
    even: bool
    """Whether a rhythm led up to here, so that a gap of more than a step is a loss."""


class Clock:
    """One decode's.

    Args:
        step_s: Distance of two pictures by the stated rate.
        promised_s: Stated length of the file, if it states one.
        is_stream: Whether the container is one that is sent, whose clock may change and whose losses show as gaps alone.
    """

    def __init__(self, step_s: float, promised_s: float | None, is_stream: bool) -> None:
        self._step_s, self._promised_s, self._is_stream = step_s, promised_s, is_stream
        self._last_s = -step_s
        self._stated_s = 0.0  # duration of the picture before
        self._shift_s = 0.0  # added to every timestamp since the file's clock broke
        self._n = self._n_overlaps = self._n_even = 0

    def show(self, file_s: float | None, stated_s: float | None) -> Shown:
        """Takes the next picture's timestamp and stated duration, None where there is none."""
        stated_s = stated_s or self._step_s
        duration_s = stated_s
        broke = None
        t_s = self._last_s + duration_s if file_s is None else file_s + self._shift_s
        if t_s < self._last_s - RESET_S:
            broke = "the timestamps start again"
        elif self._is_stream and self._n and t_s > self._last_s + max(JUMP_S, 3 * self._step_s):
            broke = "the timestamps jump"
        if broke is not None:
            self._shift_s += self._last_s + duration_s - t_s
            t_s = self._last_s + duration_s
        elif t_s <= self._last_s:
            t_s = self._last_s + duration_s / 8  # keeps the order; falls back in step as soon as the timestamps do
        elif self._n:
            self._n_overlaps += self._stated_s > 1.5 * (t_s - self._last_s)
            if 2 * self._n_overlaps > self._n:  # a wrong rate in the header
                duration_s = t_s - self._last_s
        if (
            self._promised_s is not None and t_s < self._promised_s < t_s + duration_s - 1.0
        ):  # a last picture without an end
            duration_s = self._promised_s - t_s
        steps = (t_s - self._last_s) / self._step_s
        even = self._n_even >= _EVEN
        self._n_even = self._n_even + 1 if self._is_stream and 0.9 < steps < 1.1 else 0
        self._last_s, self._stated_s = t_s, stated_s
        self._n += 1
        return Shown(t_s, duration_s, broke, steps, even)
