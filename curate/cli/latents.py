"""`rushes latents`: the VAE's latents of every clip, made once and kept beside the shards."""

from typing import Annotated, Any

import typer

from curate.cli.common import console
from curate.cli.train import say, settings_of, shards_of, trainer
from curate.cluster import runner
from curate.cluster.pool import Resources
from curate.cluster.work import Finished, Receipt
from curate.progress.progress import Progress


def command(
    shards: Annotated[
        str, typer.Argument(metavar="RUN", help="A run (its newest shards), or a folder or URL with shards.")
    ],
    recipe: Annotated[
        str, typer.Option("--recipe", help="The recipe that will be trained: its sizes, frame rate, seed and base.")
    ] = "tiny",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Sets one value of the recipe, as for `rushes train`; repeatable."
        ),
    ] = None,
    windows: Annotated[
        int, typer.Option("--windows", min=1, help="Windows of each clip; training takes them in turn, epoch by epoch.")
    ] = 1,
    text: Annotated[bool, typer.Option("--text", help="The text encoder's states of every caption too.")] = False,
    out: Annotated[
        str | None, typer.Option("--out", help="Where they go. Default: `latents/` beside the shards.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Ray workers. Default: as many as the CPUs or GPUs allow.")
    ] = None,
    gpus: Annotated[float, typer.Option("--gpus", min=0, help="GPUs of each worker.")] = 0.0,
) -> None:
    """Makes the latents that `rushes train` then reads in the place of frames. What is there already is not made again."""
    with trainer():
        from train_hooks.latent_making import plan_latents

        made = plan_latents(recipe, shards_of(shards), settings_of(settings), windows, out, text, say)
        receipts: list[dict[str, Any]] = []
        total = len(made.units) + sum(map(len, made.done.values()))
        try:
            with Progress(console()).step("latents", total, total - len(made.units), gpus) as step:
                for finished in runner.run_units(made.job, made.units, Resources(workers, 1.0, gpus)):
                    receipts.append(finished.receipt)
                    errors = len(finished.receipt["made"]["errors"])
                    step.advance(Finished(Receipt(1, errors), finished.setup_s, finished.busy_s))
        finally:
            runner.stop()
        for folder, clips, n, errors in made.finish(receipts):
            say(f"latents: {folder}: {clips} clips, {n} windows of each, {len(errors)} without")
            for clip_id, reason in list(errors.items())[:5]:
                say(f"  {clip_id}: {reason}")
