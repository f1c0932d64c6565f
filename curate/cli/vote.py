"""`rushes vote`: people compare the samples of an ablation, on a page of this machine or in a folder that is sent to them."""

import os
import shlex
import sys
import threading
import webbrowser
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from curate.cli.common import RunArgument, console, warn
from curate.errors import UsageError
from curate.voting import contest, pack, server, votes
from curate.voting.booth import Booth
from curate.voting.opinion import opinions


def command(
    run: RunArgument,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Which ablation; the one made last by default.")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option("--port", min=0, max=65535, help="Of the page; 8384 by default, or any if that is taken."),
    ] = None,
    static: Annotated[
        Path | None,
        typer.Option("--static", metavar="FOLDER", help="Packs page and samples into a folder for voters elsewhere."),
    ] = None,
    imported: Annotated[
        list[Path] | None,
        typer.Option(
            "--import", metavar="FILE", help="Takes in votes from such a folder; may be given more than once."
        ),
    ] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Prints the address and opens nothing.")] = False,
) -> None:
    """Serves a page on which people compare the samples of an ablation two by two, and keeps their votes.

    The page is reached from this machine alone, by the address that is printed. Votes are appended to `RUN/ablate/NAME/votes.jsonl`.
    """
    folder, out = contest.find(run, name), console()
    booth = Booth(contest.read(folder))
    here = shlex.join(["rushes", "vote", run, *(["--name", name] if name else [])])
    for file in imported or ():
        taken = votes.import_votes(folder, file)
        for trouble in taken.troubles:
            warn(trouble)
        again = f", {taken.known} were there already" if taken.known else ""
        out.print(f"{file}: {taken.new} new {_noun(taken.new)}{again}", highlight=False, soft_wrap=True)
    if imported and static is None:
        _sum_up(folder, run, out)
        return
    if not booth.comparisons:
        raise UsageError(f"{folder} has no two videos to compare yet; rushes ablate {run} goes on with it")
    if static is not None:
        size_mib = pack.pack(booth, static) / 2**20
        out.print(f"{static / 'index.html'}: {len(booth.comparisons)} comparisons, {size_mib:.1f} MiB", soft_wrap=True)
        out.print(f"what voters download comes in by:  {here} --import votes-THEIR-NAME.jsonl", soft_wrap=True)
        return
    for trouble in votes.read(folder / votes.FILE).troubles:
        warn(trouble)
    listening = server.listen(port)
    address = server.address(booth, listening)
    out.print(f"vote at {address}\n(this machine alone; Ctrl-C ends it)", highlight=False, soft_wrap=True)
    sys.stdout.flush()
    if not no_browser and _has_screen():
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
    server.serve_until_stopped(booth, listening)
    _sum_up(folder, run, out)


def _sum_up(folder: Path, run: str, out: Console) -> None:
    """Says how many votes there are, what they come to, and what comes next."""
    found = votes.standing(votes.read(folder / votes.FILE).votes)
    n_voters = len({vote.voter for vote in found})
    by = f" of {n_voters} voter{'s' if n_voters > 1 else ''}" if found else ""
    out.print(f"{folder / votes.FILE}: {len(found)} {_noun(len(found))}{by}", highlight=False, soft_wrap=True)
    if found:
        for told in opinions(folder, [group.name for group in contest.read(folder).groups]):
            out.print(f"{told['group']}, {told['question']}: {told['summary']}", highlight=False, soft_wrap=True)
    if found:
        out.print(f"as a page:  {shlex.join(['rushes', 'report', run])}", highlight=False, soft_wrap=True)


def _noun(n: int) -> str:
    return "vote" if n == 1 else "votes"


def _has_screen() -> bool:
    """Whether a browser with a window can be opened: on a server, Python would open one of text in this terminal."""
    return sys.platform == "darwin" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
