"""`rushes ablate`: the same small training on many subsets of a run's clips, and the thresholds that follow."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from curate.ablation import results as ablation
from curate.ablation.asked import (
    PROMPTS,
    SAMPLE_SEED,
    SEEDS,
    axes_of,
    check_same_subsets,
    levels_of,
    prompts_of,
    seeds_of,
)
from curate.ablation.axis import Axis
from curate.ablation.plan import FEWEST, Grid, plan
from curate.ablation.results import Ablation, training_name
from curate.ablation.sample_scores import add_scores
from curate.cli.common import Stopped, console, fail, grid, warn
from curate.cli.train import say, settings_of, trainer
from curate.cluster import runner
from curate.cluster.pool import Resources
from curate.config.edits import with_rules
from curate.config.lines import parse
from curate.dataset.run import Run
from curate.errors import ConfigError, RunError, UsageError
from curate.progress.cost import Prices
from curate.progress.model import duration
from curate.tables import lease, store

GIB = 2**30


def command(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run with finished shards.")],
    axes: Annotated[
        str | None,
        typer.Option(
            "--axes",
            metavar="NAME,...",
            help="Measures to cut, one at a time. Default: motion, aesthetic, text_area and watermark, those that there are. "
            "`NAME:below` drops the highest, `NAME:above` the lowest.",
        ),
    ] = None,
    levels: Annotated[
        str | None,
        typer.Option("--levels", metavar="PERCENT,...", help="How much to drop. Default: 0,12.5,25,50, as SVD did."),
    ] = None,
    recipe: Annotated[str, typer.Option("--recipe", help="What is trained on every subset.")] = "tiny",
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Of every training. Default: the recipe's.")] = None,
    seeds: Annotated[
        int | None, typer.Option("--seeds", min=1, help=f"Trainings of every subset. Default: {SEEDS}; one tells nothing.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Of the ablation, under RUN/ablate/. Default: the recipe's.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Sets one value of the recipe; repeatable.")
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option("--prompts", help=f"A text file, one on each line. Default: captions of {PROMPTS} clips of the judge."),
    ] = None,
    heldout: Annotated[
        int | None, typer.Option("--heldout", min=4, help="Clips to judge on. Default: a fifth of all, at most 64.")
    ] = None,
    heldout_where: Annotated[
        str | None,
        typer.Option(
            "--heldout-where", metavar="WHERE", help="Judges on clips that you want: \"motion > 1\". Default: those that no level drops."
        ),
    ] = None,
    of: Annotated[
        int | None,
        typer.Option("--of", min=1, help="Takes so many of the clips, drawn by lots. Default: all."),
    ] = None,
    workers: Annotated[
        int, typer.Option("--workers", min=1, help="Trainings at a time, on a Ray cluster where there is one.")
    ] = 1,
    gpus: Annotated[float, typer.Option("--gpus", min=0, help="With --workers: GPUs of each training.")] = 0.0,
    gpu_hour: Annotated[float | None, typer.Option("--gpu-hour", help="Price of an hour of one GPU, for the cost.")] = None,
    planned: Annotated[bool, typer.Option("--plan", help="Prints the grid and what it will cost, and ends.")] = False,
    apply: Annotated[
        Path | None,
        typer.Option("--apply", metavar="PIPELINE", help="Trains nothing: writes the answer's thresholds into a copy of this file."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="With --apply: the copy. Default: beside the file, PIPELINE.NAME.yaml.")
    ] = None,
) -> None:  # fmt: skip
    """Trains the same small model on the clips that are left when the lowest 0, 12.5, 25, 50 % of a measure are dropped, and says what helps.

    Every subset is trained several times, beside random subsets of the same size, and judged by its loss on clips that none of them had.
    Started again, it goes on where it was stopped; with more axes, levels or seeds it trains what is new.
    """
    if apply is not None:
        _apply(Ablation.open(run, name), apply, out)
        return
    wish = _Wish(axes, levels, recipe, steps, seeds, settings_of(settings), prompts, heldout, heldout_where, of)
    opened = Run.open(run)
    with trainer():
        made = _plan(opened, name or Path(recipe).stem, wish)
        _tell_plan(made, workers, gpus, Prices.parse(gpu_hour, None))
        if planned:
            return
        with lease.held(str(made.folder), "give another --name"):
            made.begin(say)
            failed = _train(made, workers, gpus)
    if add_scores(opened, Ablation.open(run, made.folder.name)):
        say("scored the samples by the run's aesthetic measure")
    found = Ablation.open(run, made.folder.name)
    verdict = found.verdict()
    store.put_json(str(found.folder / ablation.ANSWER), verdict)
    _tell_verdict(verdict, run)
    if failed:
        fail(
            f"{failed} of {len(made.grid.trainings)} trainings failed, as told above; the same command tries them again",
            1,
        )


@dataclass(frozen=True)
class _Wish:
    """What was typed."""

    axes: str | None
    levels: str | None
    recipe: str
    steps: int | None
    seeds: int | None
    settings: dict[str, str]
    prompts: Path | None
    heldout: int | None
    where: str | None
    of: int | None

    @property
    def overrides(self) -> dict[str, str]:
        """Values of the recipe."""
        return self.settings | ({"steps": str(self.steps)} if self.steps is not None else {})


@dataclass
class _Made:
    """A plan that can be begun."""

    folder: Path
    shards: str
    wish: _Wish
    recipe: Any
    claim: dict[str, Any]
    axes: list[Axis]
    grid: Grid
    prompts: list[dict[str, Any]]

    @property
    def pending(self) -> list[tuple[str, int]]:
        """The trainings that are not judged yet."""
        there = {path.stem for path in (self.folder / "judged").glob("*.json")}
        return [key for key in self.grid.trainings if training_name(*key) not in there]

    def begin(self, told: Any) -> None:
        """Writes the plan, and the base where the recipe has none."""
        from train_hooks.ablation import make_base

        ablation.write_plan(
            self.folder, self.claim, self.axes, self.grid, prompts=self.prompts, recipe=self.wish.recipe,
            overrides=self.wish.overrides, steps=self.recipe.steps, shards=self.shards,
        )  # fmt: skip
        make_base(self.recipe, self.shards, self.folder, told)


def _plan(run: Run, name: str, wish: _Wish) -> _Made:
    from train_hooks.ablation import clips_of
    from train_hooks.fingerprint import differences, fingerprint
    from train_hooks.recipe_files import load_recipe

    folder = ablation.folder_of(run.root, name)
    shards = run.shards_root()
    recipe = load_recipe(wish.recipe, wish.overrides)
    usable, left_out, index = clips_of(recipe, shards)
    if left_out:
        clip_id, why = next(iter(left_out.items()))
        say(f"{len(left_out)} of {len(left_out) + len(usable)} clips cannot be trained on, such as {clip_id}: {why}")
    before = ablation.read_plan(folder) if (folder / ablation.PLAN).exists() else None
    axes = axes_of(run, wish.axes, before, lambda told: warn(f"warning: {told}"))
    frame = run.scored([axis.name for axis in axes])
    frame = (
        frame[frame["clip_id"].isin([clip.clip_id for clip in usable])].sort_values("clip_id").reset_index(drop=True)
    )
    if wish.of is not None and wish.of < len(frame):
        drawn = np.random.default_rng(SAMPLE_SEED).choice(len(frame), wish.of, replace=False)
        frame = frame.iloc[np.sort(drawn)].reset_index(drop=True)
    wanted = None
    if wish.where is not None:
        try:
            wanted = frame["clip_id"].isin(run.clips(columns=[], where=wish.where)["clip_id"]).to_numpy()
        except UsageError as error:
            raise UsageError(str(error).replace("--where", "--heldout-where", 1)) from error
    claim = fingerprint(recipe, index, []) | {
        "asked": {"heldout": wish.heldout, "heldout_where": wish.where, "of": wish.of}
    }
    if before is not None and (told := "; ".join(differences(before["claim"], json.loads(json.dumps(claim))))):
        raise UsageError(
            f"{folder} holds another ablation ({told}); give another --name, or remove the folder to begin anew"
        )
    grid_ = plan(
        frame, axes, levels_of(wish.levels, before), seeds_of(wish.seeds, before), max(FEWEST, recipe.batch), wish.heldout,
        None if before is None else (before["heldout"], before["elsewhere"], before["heldout_level"]),
        wanted, {} if before is None else {v: k for k, v in before["subsets"].items()},
    )  # fmt: skip
    check_same_subsets(folder, before, grid_)
    asked = prompts_of(wish.prompts, usable, grid_.heldout)
    if before is not None:
        if wish.prompts is not None and [p["text"] for p in asked] != [p["text"] for p in before["prompts"]]:
            raise UsageError(f"{folder} was begun with other prompts; give another --name")
        asked = before["prompts"]
    return _Made(folder, shards, wish, recipe, claim, axes, grid_, asked)


def _train(made: _Made, workers: int, gpus: float) -> int:
    """All trainings that are not done; how many failed."""
    from train_hooks.ablation import AblationJob, Prompt
    from train_hooks.recipe_files import whole_name

    job = AblationJob(
        whole_name(made.wish.recipe), made.shards, str(made.folder), made.wish.overrides,
        {"heldout": made.grid.heldout, "elsewhere": made.grid.elsewhere}, [Prompt(**p) for p in made.prompts],
    )  # fmt: skip
    units = [{"name": training_name(*key), "subset": key[0], "seed": key[1]} for key in made.pending]
    done, failed = len(made.grid.trainings) - len(units), 0
    try:
        for finished in runner.run_units(job, units, Resources(workers, 1.0, gpus)):
            receipt = finished.receipt
            if "stopped" in receipt:
                raise Stopped(receipt["stopped"])
            if "error" in receipt:
                failed += 1
                warn(f"{receipt['name']}: {receipt['error']}")
                continue
            done += 1
            say(
                f"{done}/{len(made.grid.trainings)}  {receipt['name']}: trained in {receipt['seconds']:.0f} s, judged and sampled"
            )
    except RunError as error:
        raise RunError(f"{error}; what is done is kept, and the same command goes on from there") from error
    finally:
        runner.stop()
    return failed


def _tell_plan(made: _Made, workers: int, gpus: float, prices: Prices) -> None:
    from train_hooks.ablation import cost_of

    table = grid("subset", "drops", "clips", "rule", "control", right=(1, 2))
    for arm in made.grid.arms:
        rule = next(
            (f"{arm.axis} {'>=' if side == 'above' else '<='} {value:.6g}" for side, value in (arm.rule or {}).items()),
            "",
        )
        drops = f"{arm.level:g} %" if arm.axis else "" if arm.name == "all" else "at random"
        table.add_row(arm.name, drops, str(arm.clips), rule, arm.control or "")
    console().print(table)
    which = (
        f"with {made.wish.where}"
        if made.wish.where is not None
        else f"that pass {made.grid.heldout_level:g} % on every axis"
    )
    others = f", and on {len(made.grid.elsewhere)} of the others" if made.grid.elsewhere else ""
    say(f"judged on {len(made.grid.heldout)} clips {which}{others}; {len(made.prompts)} prompts")
    for note in made.grid.notes:
        say(f"note: {note}")
    n, todo = len(made.grid.trainings), len(made.pending)
    say(f"{n} trainings of {made.recipe.steps} steps, {n - todo} of them done")
    if not todo:
        return
    cost = cost_of(made.recipe, made.shards)
    judged_s = cost.judge_clip_s * len([*made.grid.heldout, *made.grid.elsewhere])
    each_s = cost.training_s + cost.sample_s * (len(made.prompts) + 1) + judged_s
    where = "this GPU" if cost.on_gpu else "this CPU"
    all_s = duration(each_s * todo / workers)
    say(
        f"about {cost.step_s:.2g} s a step on {where}: {duration(each_s)} each with its samples and judge, {all_s} for all,"
        f" {workers} at a time; reading the model and the clips comes on top"
    )
    say(
        f"{cost.memory_bytes / GIB:.2g} GiB of memory each, {cost.model_bytes * n / GIB:.2g} GiB on the disk for the models"
    )
    if prices.gpu_hour and cost.on_gpu:
        gpu_s = each_s * todo * (gpus or 1.0)
        say(f"{gpu_s / 3600:.1f} GPU hours, {prices.of(gpu_s, 0, 0):.2f} at that price")
    elif prices.gpu_hour:
        say("no price: this machine has no GPU to time a step on")


def _tell_verdict(verdict: Mapping[str, Any], run: str) -> None:
    table = grid("subset", "clips", "loss", "to all, %", "to random, %", "elsewhere, %", "", right=(1, 2, 3, 4, 5))
    for row in verdict["arms"]:
        cells = [
            row["arm"],
            str(row["clips"]),
            f"{row['loss']:.4f}",
            "" if row["arm"] == "all" else _span(row["to_all"]),
        ]
        away = "" if row["elsewhere"] is None or row["arm"] == "all" else f"{row['elsewhere']:+.1f}"
        table.add_row(*cells, _span(row["to_control"]), away, row["outcome"])
    console().print(table)
    for one in verdict["answers"]:
        say(f"{one['axis']}: {'drop ' + format(one['level'], 'g') + ' %' if one['rule'] else 'keep all'}; {one['why']}")
    if verdict["keep"]:
        say("keep:")
        for axis, rule in verdict["keep"].items():
            say(f"  {axis}: {{{', '.join(f'{side}: {value:g}' for side, value in rule.items())}}}")
        say(f"into a copy of the pipeline:  rushes ablate {run} --name {verdict['name']} --apply pipeline.yaml")
    say(verdict["limits"])
    say(f"let people compare the samples:  rushes vote {run} --name {verdict['name']}")


def _span(ends: Sequence[float | None] | None) -> str:
    if ends is None or ends[0] is None:
        return ""
    return f"{ends[0]:+.1f}" if ends[1] is None else f"{ends[0]:+.1f} ({ends[1]:+.1f} to {ends[2]:+.1f})"


def _apply(found: Ablation, pipeline: Path, out: Path | None) -> None:
    verdict = found.verdict()
    if not verdict["arms"]:
        raise UsageError(
            f"{found.folder} is not finished: {verdict['cost']['done']} of {verdict['cost']['trainings']} trainings are judged"
        )
    if verdict["cost"]["done"] < verdict["cost"]["trainings"]:
        warn(
            f"warning: {verdict['cost']['done']} of {verdict['cost']['trainings']} trainings are judged; the answer is of what is there"
        )
    if not verdict["keep"]:
        raise UsageError(f"{found.name} found no cut that helps, so there is nothing to apply")
    made = out or pipeline.with_name(f"{pipeline.stem}.{found.name}.yaml")
    if made.absolute() == pipeline.absolute():
        raise UsageError("--out is the pipeline file itself; --apply writes a copy")
    try:
        text = pipeline.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{pipeline}: {getattr(error, 'strerror', None) or 'not UTF-8 text'}") from None
    parse(text, pipeline.name)
    notes = {one["axis"]: f"rushes ablate, {found.name}: {one['why']}" for one in verdict["answers"]}
    text = with_rules(text, verdict["keep"], notes, pipeline.name)
    if made.exists() and made.read_bytes() != text.encode():
        raise UsageError(f"{made} is there already and holds something else; --out names another file")
    store.put(str(made), text.encode())
    say(f"{made}: {', '.join(verdict['keep'])} of keep: are the answer's")
    say(verdict["limits"])
