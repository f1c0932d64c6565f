"""The command `rushes`: one file per command. Exit codes: 0 done, 1 the run failed, 2 wrong usage or configuration."""

import os
import signal
import sys
from types import FrameType

import typer
from typer.core import TyperGroup

from curate.cli import check, doctor, errors, footage, funnel, report, run, schema, search, status, submit, table, train
from curate.cli.common import fail
from curate.errors import RushesError

app = typer.Typer(
    name="rushes",
    help="Raw footage in, a finetuned video model out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    cls=TyperGroup,
)
for module in (run, check, schema, status, funnel, errors, table, report, search, train, submit, doctor, footage):
    app.command(module.__name__.rpartition(".")[2])(module.command)


def main() -> None:
    """Runs the command line and exits with its code."""
    signal.signal(signal.SIGTERM, _terminated)
    try:
        app(standalone_mode=True)
    except RushesError as error:
        fail(str(error), error.exit_code)
    except KeyboardInterrupt as stop:
        code = 143 if isinstance(stop, Terminated) else 130
        print("stopped; what is done is kept, and the same command goes on from there", file=sys.stderr)
        sys.stderr.flush()
        _leave(code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


class Terminated(KeyboardInterrupt):
    """SIGTERM: stop as Ctrl-C does."""


def _terminated(number: int, frame: FrameType | None) -> None:
    raise Terminated


def _leave(code: int) -> None:
    from curate import runner

    runner.stop()
    sys.exit(code)
