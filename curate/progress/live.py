"""The renderer for terminals: all tables of a run, drawn in place.

running   clips          12 of 40 windows   3.1/s           9 s left
running   text_area      120 of 400 clips   5.2/s  2 failed 54 s left
waiting   labels
"""

from collections.abc import Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table as Grid
from rich.text import Text

from curate.progress.model import Board, Line, State, duration

BAR_FROM = 100
"""Minimum width of a terminal, in columns, for progress bars. Ours."""
STYLES: dict[State, str] = {"waiting": "dim", "starting": "cyan", "running": "cyan", "done": "green", "stopped": "red"}


def is_terminal(console: Console) -> bool:
    """Whether lines can be drawn over earlier ones."""
    return console.is_terminal and not console.is_dumb_terminal


class Drawn:
    """A board as something that Rich prints."""

    def __init__(self, board: Board) -> None:
        self.board = board

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        with_bar = options.max_width >= BAR_FROM
        grid = Grid(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        for name, width in (("", 8), ("table", 12), *([("", 20)] if with_bar else [])):
            grid.add_column(name, no_wrap=True, overflow="ellipsis", min_width=width)
        for name, width in (("done", 18), ("rate", 6), ("failed", 6), ("left", 7)):
            grid.add_column(name, justify="right", no_wrap=True, min_width=width)  # fixed, so that columns do not move
        for line in folded(self.board.lines, max(4, console.height - 4)):
            if isinstance(line, str):
                grid.add_row("", Text(line, "dim"))
                continue
            bar = [ProgressBar(total=line.total or 1, completed=line.done, width=20)] if with_bar else []
            grid.add_row(
                Text(line.state, STYLES[line.state]),
                line.name,
                *bar,
                line.counted,
                f"{line.rate:.1f}/s" if line.rate else "",
                Text(str(line.errors), "red") if line.errors else "",
                duration(line.left_s) if line.left_s is not None else "",
            )
        yield grid
        if self.board.note:
            yield Text(self.board.note, overflow="ellipsis", no_wrap=True)


def folded(lines: Sequence[Line], room: int) -> list[Line | str]:
    """At most `room` lines: where there are more, finished tables become one line, then waiting ones."""
    shown: list[Line | str] = list(lines)
    for state, text in (("done", "{} tables are done"), ("waiting", "{} tables wait")):
        over = len(shown) - room
        of_state = [line for line in shown if isinstance(line, Line) and line.state == state]
        if over <= 0 or len(of_state) < 2:
            continue
        n = min(len(of_state), over + 1)
        gone = of_state[:n] if state == "done" else of_state[-n:]
        at = shown.index(gone[0])
        shown = [line for line in shown if line not in gone]
        shown.insert(at, text.format(n))
    return shown[:room]
