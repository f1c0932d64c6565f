"""`rushes funnel`: what every rule of `keep:` drops, alone, in order and together, and the account of every second."""

from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.console import Console

from curate.cli.common import JsonOption, RunArgument, SetOption, console, grid, open_run, print_json

if TYPE_CHECKING:
    from curate.dataset.run import Run

DROPPED = "dropped: "
"""How the ledger's entries for rules start."""


def command(run: RunArgument, settings: SetOption = None, as_json: JsonOption = False) -> None:
    """Show how many clips each rule of `keep:` drops. `--set keep.motion.above=p50` tries another threshold and changes nothing."""
    opened = open_run(run, settings)
    if as_json:
        selection = asdict(opened.selection())
        print_json({"kept_clips": len(selection.pop("clip_ids")), **selection, "ledger": opened.ledger().as_dict()})
    else:
        show(opened, console())


def show(run: "Run", out: Console) -> None:
    """Prints the funnel and the ledger. A rule is labelled by what it drops (`text_area > 0.07`), not by what it keeps."""
    from curate.run.labels import dropped_label

    selection, ledger = run.selection(), run.ledger()
    table = grid("dropped clips", "alone", "seconds", "in order", "seconds", "left", right=(1, 2, 3, 4, 5))
    left = selection.total_clips - selection.failed_clips
    if selection.failed_clips:
        table.add_row("(failed)", "", "", str(selection.failed_clips), f"{selection.failed_s:.1f}", str(left))
    for drop in selection.drops:
        left -= drop.in_order_clips
        table.add_row(
            dropped_label(drop.rule),
            str(drop.alone_clips),
            f"{drop.alone_s:.1f}",
            str(drop.in_order_clips),
            f"{drop.in_order_s:.1f}",
            str(left),
        )
    out.print(table)
    for name, value in selection.thresholds.items():
        out.print(f"{name} = {value:.6g} in this run", highlight=False)
    for remark in selection.remarks:
        out.print(remark, highlight=False)
    together = selection.total_clips - selection.failed_clips - len(selection.clip_ids)
    out.print(
        f"together: {together} of {selection.total_clips} clips dropped, {len(selection.clip_ids)} kept ({selection.kept_s:.1f} s)\n",
        highlight=False,
    )
    seconds = grid("seconds of input", "s", "%", right=(1, 2))
    for name, value in [*ledger.entries(), ("total", ledger.total_s)]:
        share = value / ledger.total_s if ledger.total_s else 0.0
        if name.startswith(DROPPED):
            name = DROPPED + dropped_label(name.removeprefix(DROPPED))
        seconds.add_row(name, f"{value:.1f}", f"{100 * (ledger.accounted_share if name == 'total' else share):.1f}")
    out.print(seconds)
    if ledger.duplicate_s:
        out.print(f"({ledger.duplicate_s:.1f} s of duplicate files are counted once)", highlight=False)
    if ledger.unknown_length_files:
        out.print(
            f"({ledger.unknown_length_files} files could not be opened; their length is unknown)",
            highlight=False,
        )
