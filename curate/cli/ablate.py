"""`rushes ablate`: the same small training on many subsets of a run's clips, and the thresholds that follow."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from curate.cli.common import check_pipeline_file, check_run, fail, open_run, warn
from curate.cli.train import say, settings_of, trainer
from curate.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from curate.ablation.results import Ablation

SEEDS, PROMPTS = 3, 8
"""The defaults of curate.ablation.asked, repeated here so that `--help` does not import it; a test compares them."""


def command(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run directory with finished shards.")],
    axes: Annotated[
        str | None,
        typer.Option(
            "--axes",
            metavar="NAME,...",
            help="Measures to filter by, one at a time. Default: those of motion, aesthetic, text_area and watermark that the run has. "
            "`NAME:below` drops the highest, `NAME:above` the lowest.",
        ),
    ] = None,
    levels: Annotated[
        str | None,
        typer.Option("--levels", metavar="PERCENT,...", help="Percentages to drop. Default: 0,12.5,25,50, as in SVD."),
    ] = None,
    recipe: Annotated[str, typer.Option("--recipe", help="The recipe to train on every subset: a name or a YAML file.")] = "tiny",
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Steps per training. Default: the recipe's.")] = None,
    seeds: Annotated[
        int | None, typer.Option("--seeds", min=1, help=f"Trainings per subset, each with its own seed. Default: {SEEDS}.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the ablation, a folder in RUN/ablate/. Default: the recipe's name.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override one value of the recipe; repeatable.")
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option("--prompts", metavar="FILE", help=f"A text file with one prompt per line. Default: captions of {PROMPTS} held-out clips."),
    ] = None,
    heldout: Annotated[
        int | None, typer.Option("--heldout", min=4, help="Number of held-out clips to evaluate on. Default: a fifth of all, at most 64.")
    ] = None,
    heldout_where: Annotated[
        str | None,
        typer.Option(
            "--heldout-where", metavar="CONDITION", help="Hold out clips by a condition: \"motion > 1\". Default: those that no level drops."
        ),
    ] = None,
    of: Annotated[
        int | None,
        typer.Option("--of", min=1, help="Use a random sample of N clips. Default: all."),
    ] = None,
    workers: Annotated[
        int, typer.Option("--workers", min=1, help="Trainings in parallel, on a Ray cluster if there is one.")
    ] = 1,
    gpus: Annotated[float, typer.Option("--gpus", min=0, help="With --workers: GPUs per training.")] = 0.0,
    gpu_hour: Annotated[float | None, typer.Option("--gpu-hour", min=0, help="Price of one GPU hour, for the cost estimate.")] = None,
    planned: Annotated[bool, typer.Option("--plan", help="Print the trainings and their estimated cost, and exit.")] = False,
    apply: Annotated[
        Path | None,
        typer.Option("--apply", metavar="PIPELINE", help="Train nothing: write the resulting thresholds into a copy of this pipeline file."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="With --apply: the copy to write. Default: PIPELINE.NAME.yaml beside the file.")
    ] = None,
) -> None:  # fmt: skip
    """Train the same small model on subsets of the clips, each without the lowest 0, 12.5, 25 or 50 % of a measure, and report which threshold
    helps.

    Each subset is trained several times, beside random subsets of the same size, and evaluated by its loss on held-out clips.
    The same command resumes a stopped ablation; with more axes, levels or seeds it trains only the new ones.
    """
    check_run(run)
    if apply is not None:
        check_pipeline_file(apply)
        from curate.ablation.results import Ablation

        _apply(Ablation.open(run, name), apply, out)
        return
    opened = open_run(run)
    from curate.ablation import results as ablation
    from curate.ablation.results import Ablation
    from curate.ablation.sample_scores import add_scores
    from curate.cli.ablate_plan import Options, plan_ablation, train_pending
    from curate.cli.ablate_print import print_plan, print_verdict
    from curate.progress.cost import Prices
    from curate.tables import lease, store

    options = Options(axes, levels, recipe, steps, seeds, settings_of(settings), prompts, heldout, heldout_where, of)
    with trainer():
        plan = plan_ablation(opened, name or Path(recipe).stem, options)
        print_plan(plan, workers, gpus, Prices.parse(gpu_hour, None))
        if planned:
            return
        with lease.held(str(plan.folder), "give another --name"):
            plan.begin(say)
            failed = train_pending(plan, workers, gpus)
    if add_scores(opened, Ablation.open(run, plan.folder.name)):
        say("scored the samples with the run's aesthetic measure")
    found = Ablation.open(run, plan.folder.name)
    verdict = found.verdict()
    store.put_json(str(found.folder / ablation.ANSWER), verdict)
    print_verdict(verdict, run)
    if failed:
        fail(
            f"{failed} of {len(plan.grid.trainings)} trainings failed (see above); the same command tries them again", 1
        )


def _apply(found: "Ablation", pipeline: Path, out: Path | None) -> None:
    """Writes the thresholds of a finished ablation into a copy of a pipeline file."""
    from curate.config.edits import with_rules
    from curate.config.lines import parse
    from curate.tables import store

    verdict = found.verdict()
    if not verdict["arms"]:
        raise UsageError(
            f"{found.folder} is not finished: {verdict['cost']['done']} of {verdict['cost']['trainings']} trainings are judged"
        )
    if verdict["cost"]["done"] < verdict["cost"]["trainings"]:
        warn(
            f"warning: {verdict['cost']['done']} of {verdict['cost']['trainings']} trainings are judged; the result covers only those"
        )
    if not verdict["keep"]:
        raise UsageError(f"{found.name} found no threshold that helps, so there is nothing to apply")
    made = out or pipeline.with_name(f"{pipeline.stem}.{found.name}.yaml")
    if made.absolute() == pipeline.absolute():
        raise UsageError("--out is the pipeline file itself, and --apply writes a copy; name another file")
    try:
        text = pipeline.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{pipeline}: {getattr(error, 'strerror', None) or 'not UTF-8 text'}") from None
    parse(text, pipeline.name)
    notes = {one["axis"]: f"rushes ablate, {found.name}: {one['why']}" for one in verdict["answers"]}
    text = with_rules(text, verdict["keep"], notes, pipeline.name)
    if made.exists() and made.read_bytes() != text.encode():
        raise UsageError(f"{made} exists with other contents; name another file with --out")
    store.put(str(made), text.encode())
    say(f"{made}: new thresholds in keep: for {', '.join(verdict['keep'])}")
    say(verdict["limits"])
