"""The command `rushes`: one file per command. Exit codes: 0 done, 1 the run failed, 2 wrong usage or configuration."""

import os
import signal
import sys
from types import FrameType

import typer
from typer.core import TyperGroup

from curate.cli import (
    ablate,
    card,
    check,
    compact,
    cuts,
    doctor,
    errors,
    export,
    footage,
    funnel,
    latents,
    report,
    run,
    sample,
    schema,
    search,
    shards,
    status,
    submit,
    table,
    train,
    vote,
    weights,
)
from curate.cli.common import Stopped, fail
from curate.cluster import runner
from curate.errors import RushesError
from curate.stages.stage import one_sentence

STORAGE = {"botocore", "aiobotocore", "aiohttp", "gcsfs", "azure"}
"""Clients of object storage whose errors are not OSErrors."""

app = typer.Typer(
    name="rushes",
    help="Raw footage in, a finetuned video model out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    cls=TyperGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (
    run,
    check,
    compact,
    cuts,
    schema,
    status,
    funnel,
    errors,
    table,
    report,
    search,
    export,
    card,
    latents,
    train,
    sample,
    ablate,
    vote,
    submit,
    doctor,
    footage,
    compact,
):
    app.command(module.__name__.rpartition(".")[2])(module.command)
app.add_typer(shards.app, name="shards")
app.add_typer(weights.app, name="weights")


def main() -> None:
    """Runs the command line and exits with its code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        app()
    except RushesError as error:
        fail(str(error), error.exit_code)
    except Stopped as stopped:
        runner.stop()
        fail("stopped; what is done is kept, and the same command goes on from there", stopped.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:  # a disk that is full, a bucket that is not there
        where = f"{error.filename}: " if error.filename else ""
        fail(
            f"a disk or storage failed: {where}{error.strerror or one_sentence(error)}; the same command goes on from here",
            1,
        )
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in STORAGE:
            raise
        fail(f"storage failed: {one_sentence(error)}; the same command goes on from here", 1)


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped(number)
