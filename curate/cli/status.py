"""`rushes status`: how far a run is and what came of it; with `--watch`, as long as it goes on."""

import time
from collections.abc import Callable
from typing import Annotated

import typer
from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from curate.cli.common import JsonOption, RunArgument, Stopped, console, grid, print_json
from curate.dataset.run import Run
from curate.errors import UsageError
from curate.progress.lines import LinePrinter
from curate.progress.live import Drawn, is_terminal
from curate.progress.status import counts
from curate.progress.watch import Watch

PAUSE = 4.0
"""Between two looks, at least so many times as long as a look takes: on slow storage a watcher works a fifth of the time at most. Ours."""


def command(
    run: RunArgument,
    as_json: JsonOption = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Follows the run until it is finished, as often as --every says.")
    ] = False,
    every: Annotated[float, typer.Option("--every", min=0.1, help="With --watch: seconds between two looks.")] = 2.0,
) -> None:
    """Shows the counts of a run: sources, clips, seconds, shards, and the rows of each table."""
    if watch:
        if as_json:
            raise UsageError("--watch draws or prints lines; for JSON call `rushes status --json` whenever you like")
        follow(Watch(run), every, console())
        return
    status = counts(Run.open(run))
    if as_json:
        print_json(status)
        return
    out = console()
    table = grid("", "", right=(1,))
    for group in ("sources", "clips", "seconds", "shards"):
        for key, value in (status[group] or {}).items():
            if isinstance(value, int | float):
                table.add_row(
                    f"{group} {key.replace('_', ' ')}", f"{value:.1f}" if isinstance(value, float) else str(value)
                )
    for name, table_counts in status["tables"].items():
        table.add_row(f"table {name}", f"{table_counts['rows']} rows, {table_counts['errors']} errors")
    out.print(table)
    if not status["finished"]:
        out.print("not finished: `rushes run` goes on with it", highlight=False)


def follow(watch: Watch, every_s: float, out: Console) -> None:
    """Looks every `every_s` seconds until the run is finished; draws in place in a terminal, prints changed lines elsewhere.

    Ctrl-C ends it with exit code 130 and does not affect the run.
    """
    try:
        if is_terminal(out):
            with Live(console=out, get_renderable=lambda: _drawn(watch), refresh_per_second=1):
                _poll(watch, every_s, lambda: None)
        else:
            printer = LinePrinter(out)
            _poll(watch, every_s, lambda: _print(watch, printer))
    except Stopped as stopped:
        out.print("stopped watching; the run is not affected", highlight=False)
        raise typer.Exit(stopped.exit_code) from None
    out.print(f"finished; details:  rushes status {watch.root}", highlight=False, soft_wrap=True)


def _poll(watch: Watch, every_s: float, report: Callable[[], None]) -> None:
    while True:
        began = time.monotonic()
        watch.look()
        report()
        if watch.finished:
            return
        time.sleep(max(every_s, PAUSE * (time.monotonic() - began)))


def _drawn(watch: Watch) -> RenderableType:
    return Text(watch.waits_for) if watch.waits_for else Drawn(watch.board)


def _print(watch: Watch, printer: LinePrinter) -> None:
    """Prints a line for every table that has changed, and once what the watch waits for."""
    if watch.waits_for:
        printer.sentence("", watch.waits_for)
    for line in watch.board.lines:
        if line.done or line.state == "done":
            printer.table([line])
    if watch.is_quiet:
        printer.sentence("", watch.board.note, key="quiet")
