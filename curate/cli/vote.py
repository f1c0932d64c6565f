"""`rushes vote`: people compare the samples of an ablation, on a page served by this machine or in a static folder."""

import os
import shlex
import sys
import threading
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from curate.cli.common import RunArgument, check_run, console, warn
from curate.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console


def command(
    run: RunArgument,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="The ablation. Default: the newest.")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            "--port", min=0, max=65535, help="Port of the page. Default: 8384, or a free one if that is taken."
        ),
    ] = None,
    static: Annotated[
        Path | None,
        typer.Option(
            "--static",
            metavar="FOLDER",
            help="Write page and samples into a folder for voters elsewhere; serve nothing.",
        ),
    ] = None,
    imported: Annotated[
        list[Path] | None,
        typer.Option("--import", metavar="FILE", help="Import a file of votes from such a folder; repeatable."),
    ] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Print the address and open no browser.")] = False,
) -> None:
    """Serve a page on which people compare the samples of an ablation in pairs, and record their votes.

    The page is reachable from this machine only, by the printed address. Votes are appended to `RUN/ablate/NAME/votes.jsonl`.
    """
    if not (Path(run) / "ablate").is_dir():  # a copy of ablate/ is enough to vote
        check_run(run)
    from curate.voting import contest, pack, server, votes
    from curate.voting.booth import Booth

    folder, out = contest.find(run, name), console()
    booth = Booth(contest.read(folder))
    here = shlex.join(["rushes", "vote", run, *(["--name", name] if name else [])])
    for file in imported or ():
        imports = votes.import_votes(folder, file)
        for trouble in imports.troubles:
            warn(trouble)
        known = f", {imports.known} known already" if imports.known else ""
        out.print(f"{file}: {imports.new} new {_noun(imports.new)}{known}", highlight=False, soft_wrap=True)
    if imported and static is None:
        _sum_up(folder, run, out)
        return
    if not booth.comparisons:
        raise UsageError(f"{folder} has no two videos to compare yet; continue the ablation:  rushes ablate {run}")
    if static is not None:
        size_mib = pack.pack(booth, static) / 2**20
        out.print(f"{static / 'index.html'}: {len(booth.comparisons)} comparisons, {size_mib:.1f} MiB", soft_wrap=True)
        out.print(f"import the file that a voter downloads:  {here} --import votes-THEIR-NAME.jsonl", soft_wrap=True)
        return
    for trouble in votes.read(folder / votes.FILE).troubles:
        warn(trouble)
    listening = server.listen(port)
    address = server.address(booth, listening)
    out.print(f"vote at {address}\n(this machine only; Ctrl-C stops the server)", highlight=False, soft_wrap=True)
    sys.stdout.flush()
    if not no_browser and _has_screen():
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
    server.serve_until_stopped(booth, listening)
    _sum_up(folder, run, out)


def _sum_up(folder: Path, run: str, out: "Console") -> None:
    """Prints the number of votes, their results, and the next command."""
    from curate.voting import contest, votes
    from curate.voting.opinion import opinions

    found = votes.standing(votes.read(folder / votes.FILE).votes)
    n_voters = len({vote.voter for vote in found})
    by = f" of {n_voters} voter{'s' if n_voters > 1 else ''}" if found else ""
    out.print(f"{folder / votes.FILE}: {len(found)} {_noun(len(found))}{by}", highlight=False, soft_wrap=True)
    if found:
        for opinion in opinions(folder, [group.name for group in contest.read(folder).groups]):
            out.print(
                f"{opinion['group']}, {opinion['question']}: {opinion['summary']}", highlight=False, soft_wrap=True
            )
    if found:
        out.print(f"see them in the report:  {shlex.join(['rushes', 'report', run])}", highlight=False, soft_wrap=True)


def _noun(n: int) -> str:
    return "vote" if n == 1 else "votes"


def _has_screen() -> bool:
    """Whether a graphical browser can be opened: on a server, Python would open a text browser in this terminal."""
    return sys.platform == "darwin" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
