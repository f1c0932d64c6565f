"""`rushes latents`: the VAE latents of every clip, computed once and stored beside the shards."""

from typing import Annotated, Any

import typer

from curate.cli.common import console
from curate.cli.train import say, settings_of, shards_of, trainer


def command(
    shards: Annotated[
        str, typer.Argument(metavar="RUN|SHARDS", help="A run (its newest shards), or a folder or URL with shards.")
    ],
    recipe: Annotated[
        str,
        typer.Option("--recipe", help="The recipe of the later training: its sizes, frame rate, seed and base model."),
    ] = "tiny",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Override one value of the recipe, as for `rushes train`; repeatable."
        ),
    ] = None,
    windows: Annotated[
        int, typer.Option("--windows", min=1, help="Windows per clip; training uses one per epoch, in turn.")
    ] = 1,
    text: Annotated[bool, typer.Option("--text", help="Encode the captions, too (text encoder states).")] = False,
    out: Annotated[
        str | None, typer.Option("--out", metavar="DIR", help="Output folder. Default: `latents/` beside the shards.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, help="Number of Ray workers. Default: as many as the CPUs or GPUs allow."),
    ] = None,
    gpus: Annotated[float, typer.Option("--gpus", min=0, help="GPUs per worker.")] = 0.0,
) -> None:
    """Encode the clips into latents, which `rushes train` then reads instead of frames. Existing latents are not computed again."""
    from curate.cluster import runner
    from curate.cluster.pool import Resources
    from curate.cluster.work import Finished, Receipt
    from curate.progress.progress import Progress

    folder = shards_of(shards)
    with trainer():
        from train_hooks.latent_making import plan_latents

        made = plan_latents(recipe, folder, settings_of(settings), windows, out, text, say)
        receipts: list[dict[str, Any]] = []
        total = len(made.units) + sum(map(len, made.done.values()))
        try:
            with Progress(console()).step("latents", total, total - len(made.units), gpus) as step:
                for finished in runner.run_units(made.job, made.units, Resources(workers, 1.0, gpus)):
                    receipts.append(finished.receipt)
                    failed = len(finished.receipt["made"]["errors"])
                    step.advance(Finished(Receipt(1, failed), finished.setup_s, finished.busy_s))
        finally:
            runner.stop()
        for written, clips, n, errors in made.finish(receipts):
            say(f"latents: {written}: {clips} clips, {n} windows each, {len(errors)} clips failed")
            for clip_id, reason in list(errors.items())[:5]:
                say(f"  {clip_id}: {reason}")
