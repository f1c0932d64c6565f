"""`rushes table`: the wide view of a run as one file."""

from pathlib import Path
from typing import Annotated

import typer

from curate.cli.common import RunArgument, console, open_run
from curate.errors import UsageError


def command(
    run: RunArgument,
    to: Annotated[Path, typer.Option("--to", metavar="FILE.parquet|FILE.csv", help="The file to write.")],
    sources: Annotated[
        bool, typer.Option("--sources", help="Write the table of source files, with `duplicate_of` and `decoded_s`.")
    ] = False,
) -> None:
    """Write one row per clip: its source and span, every measure and caption, `kept` and `error`."""
    if to.suffix not in (".parquet", ".csv"):
        raise UsageError(f"--to {to}: the file name must end in .parquet or .csv")
    opened = open_run(run)
    if sources:
        frame = opened.sources_scanned()
    else:
        frame = opened.wide()
        frame.insert(len(frame.columns) - 1, "kept", frame["clip_id"].isin(set(opened.selection().clip_ids)))
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        if to.suffix == ".csv":
            frame.to_csv(to, index=False)
        else:
            frame.to_parquet(to, index=False)
    except OSError as error:
        raise UsageError(f"--to {to}: {error.strerror or error}") from error
    console().print(f"{len(frame)} rows, {len(frame.columns)} columns: {to}", highlight=False, soft_wrap=True)
