"""`rushes shards`: lists the versions of a run's shards and verifies their files."""

from typing import Annotated

import typer

from curate.cli.common import JsonOption, RunArgument, check_shards, console, fail, grid, open_run, print_json
from curate.errors import UsageError

app = typer.Typer(no_args_is_help=True, help="Shards of a run: list their versions, verify their files.")


@app.command("list")
def list_(run: RunArgument, as_json: JsonOption = False) -> None:
    """List the versions of a run's shards, oldest first."""
    rows = [
        {
            "version": index.get("version", 1),
            "path": root,
            **{key: index.get(key) for key in ("clips", "seconds", "bytes", "parent")},
        }
        for root, index in open_run(run).shard_versions()
    ]
    if as_json:
        print_json(rows)
        return
    table = grid("version", "clips", "seconds", "MiB", "made from", "path", right=(0, 1, 2, 3))
    for row in rows:
        parent = f"v{row['parent']['version']}" if row["parent"] else ""
        mib = f"{row['bytes'] / 2**20:.1f}"
        table.add_row(f"v{row['version']}", str(row["clips"]), f"{row['seconds']:.1f}", mib, parent, row["path"])
    console().print(table)


@app.command()
def verify(
    where: Annotated[
        str, typer.Argument(metavar="RUN|SHARDS", help="A run (its newest shards), or a folder of shards.")
    ],
    decode: Annotated[
        bool, typer.Option("--decode", help="Decode the first and last frame of every clip, too.")
    ] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Write damaged shards again, from the sources.")] = False,
) -> None:
    """Check every file against its sha256, and every count and column. Exit code 1 when something is wrong."""
    check_shards(where)
    from curate.cluster import runner
    from curate.dataset.run import Run
    from curate.pipeline import execute as pipeline
    from curate.progress.progress import Progress
    from curate.run.data import PIPELINE
    from curate.shards import verify as shards_verify
    from curate.tables import store

    run = Run.open(where) if store.exists(store.join(store.normalise(where), PIPELINE)) else None
    if repair and run is None:
        raise UsageError(f"--repair needs a run directory; the shards folder {where} alone does not name its sources")
    root = run.shards_root() if run else store.normalise(where)
    out = console()
    faults = list(shards_verify.verify(root, decode))
    for fault in faults:
        out.print(f"{fault.shard or 'index.json'}: {fault.what}", highlight=False, markup=False, soft_wrap=True)
    bad = sorted({fault.shard for fault in faults if fault.shard})
    if not faults:
        index = store.get_json(store.join(root, "index.json"))
        sums = f"{len(index['shards'])} shards, {index['clips']} clips, {index['bytes'] / 2**20:.1f} MiB"
        out.print(f"{root}: {sums}, all verified", highlight=False, soft_wrap=True)
        return
    if not repair or run is None:
        what = "index.json is" if not bad else "1 shard is" if len(bad) == 1 else f"{len(bad)} shards are"
        fail(f"{root}: {what} damaged" + ("; --repair writes them again" if bad and run else ""), 1)
    try:
        pipeline.repair_shards(run, bad, Progress(out))
    finally:
        runner.stop()
    left = list(shards_verify.verify(root, decode))
    if left:
        fail(f"{root} is still damaged: {left[0].shard or 'index.json'}: {left[0].what}", 1)
    out.print(f"{len(bad)} shard{'' if len(bad) == 1 else 's'} written again: {', '.join(bad)}", highlight=False)
