"""The summary at the end of `rushes run`: a box in a terminal, the same facts as plain lines elsewhere."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import HORIZONTALS
from rich.console import Console, Group
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table as Grid
from rich.text import Text

from curate.progress import cost
from curate.progress.model import duration
from curate.progress.progress import Progress
from curate.tables import store

if TYPE_CHECKING:
    from curate.dataset.run import Run


def show(run: "Run", status: dict[str, Any], progress: Progress, out: Console) -> None:
    """Prints what was kept, the slowest step, failures, paths and the next command."""
    if not progress.did_something:
        out.print("nothing to do: everything was done before", highlight=False)
    if not out.is_terminal or out.is_dumb_terminal:
        for line in _plain(run, status, progress):
            out.print(line, highlight=False, soft_wrap=True)
        return
    facts = _facts(run, status, progress, _short(run.root))
    width = max(len(name) for name in facts) + 2
    grid = Grid(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    below = []
    for name, text in facts.items():
        if width + len(text) + 4 > out.width and name in ("shards", "report", "next"):
            below.append(f"{name}: {text}")  # on one line, so that it can be copied
        else:
            grid.add_row(Text(name, "bold"), Text(text, "red" if name == "failed" else ""))
    out.print(Panel(Padding(Group(grid), (0, 1)), title=_short(run.root), title_align="left", box=HORIZONTALS))
    for line in below:
        out.print(line, highlight=False, markup=False, soft_wrap=True)


def _facts(run: "Run", status: dict[str, Any], progress: Progress, root: str) -> dict[str, str]:
    """The lines of the box, by their names."""
    sources, clips, shards = status["sources"], status["clips"], status["shards"]
    seconds = status["seconds"] or {}
    facts = {"sources": f"{sources['total']} files"}
    facts["kept"] = f"{clips['kept']} of {clips['total']} clips{_share(clips['kept'], clips['total'])}"
    if seconds:
        facts["kept"] += f"; {_seconds(seconds['kept'], seconds['total'])} of footage"
    if sources["failed"] or clips["failed"]:
        failed = [
            f"{group['failed']} {name}" for name, group in (("sources", sources), ("clips", clips)) if group["failed"]
        ]
        facts["failed"] = f"{' and '.join(failed)}; list them with  rushes errors {shlex.quote(root)}"
    if slowest := _slowest(progress):
        facts["slowest"] = slowest
    if spent := _spent(progress):
        facts["cost"] = spent
    files = f"{shards['files']} file{'' if shards['files'] == 1 else 's'}, {shards['bytes'] / 2**20:.1f} MiB"
    facts["shards"] = f"{_short(run.shards_root())} ({files})"
    facts["report"] = store.join(root, "report", "index.html")
    if command := following(run, status, root):
        facts["next"] = command
    return facts


def _plain(run: "Run", status: dict[str, Any], progress: Progress) -> list[str]:
    """The same for a log. Scripts may parse these lines, so their format is stable."""
    counts, sources, shards = status["clips"], status["sources"], status["shards"]
    lines = [
        f"{sources['total']} sources ({sources['failed']} failed), {counts['total']} clips ({counts['failed']} failed), "
        f"{counts['kept']} kept in {shards['files']} shard{'' if shards['files'] == 1 else 's'} ({shards['bytes'] / 2**20:.1f} MiB)"
    ]
    facts = _facts(run, status, progress, run.root)
    if "failed" in facts:
        failed = f"{sources['failed']} sources and {counts['failed']} clips failed"
        lines.append(f"{failed}; list them with  rushes errors {shlex.quote(run.root)}")
    lines += [f"{name}: {facts[name]}" for name in ("kept", "slowest", "cost") if name in facts]
    lines += [f"shards: {run.shards_root()}", f"report: {facts['report']}"]
    return lines + ([f"next: {facts['next']}"] if "next" in facts else [])


def following(run: "Run", status: dict[str, Any], root: str) -> str | None:
    """The next command for the user; None when the pipeline itself continues with a training."""
    if not status["clips"]["kept"]:
        return f"rushes funnel {shlex.quote(root)}"
    if run.pipeline.config.train is not None:
        return None
    return f"rushes train --recipe tiny --shards {shlex.quote(root)} --out {shlex.quote(store.join(root, 'train', 'tiny'))}"


def _slowest(progress: Progress) -> str | None:
    found = cost.slowest(progress.spent)
    if found is None:
        return None
    name, busy_s, share = found
    return f"{name}, {share:.0%} of the time at work ({duration(busy_s)} of {duration(busy_s / share)})"


def _spent(progress: Progress) -> str | None:
    """Tokens and money of this session, if any."""
    steps = progress.spent.values()
    prompt, output = sum(s.prompt_tokens for s in steps), sum(s.output_tokens for s in steps)
    money = progress.prices.of(sum(s.busy_s * s.gpus for s in steps), prompt, output)
    parts = [f"{prompt} + {output} tokens"] if prompt + output else []
    return ", ".join(parts + ([f"{money:.2f} spent"] if money else [])) or None


def _share(part: float, whole: float) -> str:
    return f" ({part / whole:.0%})" if whole else ""


def _seconds(part: float, whole: float) -> str:
    return f"{duration(part)} of {duration(whole)}{_share(part, whole)}"


def _short(uri: str) -> str:
    """A local path relative to the current directory, when it is inside."""
    if not store.is_local(uri):
        return uri
    path = store.local_path(uri)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
