"""`rushes status`: the progress and the counts of a run; `--watch` follows it until it is finished."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console, RenderableType

from curate.cli.common import JsonOption, RunArgument, Stopped, check_run, console, grid, open_run, print_json
from curate.errors import UsageError

if TYPE_CHECKING:
    from curate.progress.lines import LinePrinter
    from curate.progress.watch import Watch

PAUSE = 4.0
"""The pause between two refreshes, as a multiple of the duration of one: on slow storage a watcher works at most a fifth of the time. Ours."""


def command(
    run: RunArgument,
    as_json: JsonOption = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Follow the run until it is finished; refreshes every --every seconds.")
    ] = False,
    every: Annotated[
        float, typer.Option("--every", min=0.1, help="With --watch: seconds between two refreshes.")
    ] = 2.0,
) -> None:
    """Show the counts of a run: sources, clips, seconds, shards, and the rows of each table."""
    if watch:
        if as_json:
            raise UsageError("--watch and --json exclude each other; call `rushes status --json` repeatedly instead")
        check_run(run, may_come=True)
        from curate.progress.watch import Watch

        follow(Watch(run), every, console())
        return
    opened = open_run(run)
    from curate.progress.status import counts

    status = counts(opened)
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
        out.print("not finished: `rushes run` resumes it", highlight=False)


def follow(watch: "Watch", every_s: float, out: Console) -> None:
    """Looks every `every_s` seconds until the run is finished; draws in place in a terminal, prints changed lines elsewhere.

    Ctrl-C ends it with exit code 130 and does not affect the run.
    """
    from rich.live import Live

    from curate.progress.lines import LinePrinter
    from curate.progress.live import is_terminal

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


def _poll(watch: "Watch", every_s: float, report: Callable[[], None]) -> None:
    while True:
        began = time.monotonic()
        watch.look()
        report()
        if watch.finished:
            return
        time.sleep(max(every_s, PAUSE * (time.monotonic() - began)))


def _drawn(watch: "Watch") -> RenderableType:
    from rich.text import Text

    from curate.progress.live import Drawn

    return Text(watch.waits_for) if watch.waits_for else Drawn(watch.board)


def _print(watch: "Watch", printer: "LinePrinter") -> None:
    """Prints a line for every table that has changed, and once what the watch waits for."""
    if watch.waits_for:
        printer.sentence("", watch.waits_for)
    for line in watch.board.lines:
        if line.done or line.state == "done":
            printer.table([line])
    if watch.is_quiet:
        printer.sentence("", watch.board.note, key="quiet")
