"""A monotonic clock from the timestamps of a file: when each picture is shown, for how long, and where pictures are missing.

Pure arithmetic over (timestamp, stated duration) of one picture after the other, in seconds.
"""

from typing import NamedTuple

RESET_S = 1.0  # ours: a larger step back means that the timestamps restart (joined files); a smaller one is noise
JUMP_S = 10.0  # FFmpeg's: a larger step ahead in a stream means another clock
_EVEN = 12  # ours: after this many regular steps in a row a gap is a loss


class Shown(NamedTuple):
    """The time of one picture."""

    t_s: float
    duration_s: float
    broke: str | None
    """How the file's clock broke before this picture; None when it did not."""
    steps: float
    """Distance from the previous picture, in frames of the stated rate."""
    even: bool
    """Whether the steps before were regular, so that a gap of more than one step is a loss."""


class Clock:
    """The clock of one decode.

    Args:
        step_s: Distance of two pictures at the stated rate, in seconds.
        promised_s: Duration that the header states, None when it states none.
        is_stream: Whether the container is a broadcast stream: its clock may change, and losses are visible only as gaps.
    """

    def __init__(self, step_s: float, promised_s: float | None, is_stream: bool) -> None:
        self._step_s, self._promised_s, self._is_stream = step_s, promised_s, is_stream
        self._last_s = -step_s
        self._stated_s = 0.0  # stated duration of the previous picture
        self._shift_s = 0.0  # added to each timestamp after the file's clock broke
        self._n = self._n_overlaps = self._n_even = 0

    def show(self, file_s: float | None, stated_s: float | None) -> Shown:
        """Returns the time of the next picture, from its timestamp and stated duration; either may be None."""
        stated_s = stated_s or self._step_s
        duration_s = stated_s
        broke = None
        t_s = self._last_s + duration_s if file_s is None else file_s + self._shift_s
        if t_s < self._last_s - RESET_S:
            broke = "the timestamps restart"
        elif self._is_stream and self._n and t_s > self._last_s + max(JUMP_S, 3 * self._step_s):
            broke = "the timestamps jump"
        if broke is not None:
            self._shift_s += self._last_s + duration_s - t_s
            t_s = self._last_s + duration_s
        elif t_s <= self._last_s:
            t_s = self._last_s + duration_s / 8  # keeps the order until the timestamps advance again
        elif self._n:
            self._n_overlaps += self._stated_s > 1.5 * (t_s - self._last_s)
            if 2 * self._n_overlaps > self._n:  # the header states a wrong rate
                duration_s = t_s - self._last_s
        if (
            self._promised_s is not None and t_s < self._promised_s < t_s + duration_s - 1.0
        ):  # the last picture has no valid duration
            duration_s = self._promised_s - t_s
        steps = (t_s - self._last_s) / self._step_s
        even = self._n_even >= _EVEN
        self._n_even = self._n_even + 1 if self._is_stream and 0.9 < steps < 1.1 else 0
        self._last_s, self._stated_s = t_s, stated_s
        self._n += 1
        return Shown(t_s, duration_s, broke, steps, even)
