"""What `rushes ablate` prints: the plan with its cost, and the verdict."""

from collections.abc import Mapping, Sequence
from typing import Any

from curate.cli.ablate_plan import PlannedAblation
from curate.cli.common import console, grid
from curate.cli.train import say
from curate.progress.cost import Prices
from curate.progress.model import duration

GIB = 2**30


def print_plan(planned: PlannedAblation, workers: int, gpus: float, prices: Prices) -> None:
    """Prints the subsets, the clips to judge on, and the estimated time, memory and cost."""
    from train_hooks.ablation import cost_of

    table = grid("subset", "drops", "clips", "rule", "control", right=(1, 2))
    for arm in planned.grid.arms:
        rule = next(
            (f"{arm.axis} {'>=' if side == 'above' else '<='} {value:.6g}" for side, value in (arm.rule or {}).items()),
            "",
        )
        drops = f"{arm.level:g} %" if arm.axis else "" if arm.name == "all" else "at random"
        table.add_row(arm.name, drops, str(arm.clips), rule, arm.control or "")
    console().print(table)
    which = (
        f"with {planned.options.where}"
        if planned.options.where is not None
        else f"that pass {planned.grid.heldout_level:g} % on every axis"
    )
    others = f", and on {len(planned.grid.elsewhere)} of the others" if planned.grid.elsewhere else ""
    say(f"judged on {len(planned.grid.heldout)} clips {which}{others}; {len(planned.prompts)} prompts")
    for note in planned.grid.notes:
        say(f"note: {note}")
    n, todo = len(planned.grid.trainings), len(planned.pending)
    say(f"{n} trainings of {planned.recipe.steps} steps, {n - todo} of them done")
    if not todo:
        return
    cost = cost_of(planned.recipe, planned.shards)
    judged_s = cost.judge_clip_s * len([*planned.grid.heldout, *planned.grid.elsewhere])
    each_s = cost.training_s + cost.sample_s * (len(planned.prompts) + 1) + judged_s
    where = "this GPU" if cost.on_gpu else "this CPU"
    all_s = duration(each_s * todo / workers)
    say(
        f"about {cost.step_s:.2g} s a step on {where}: {duration(each_s)} each with its samples and judge, {all_s} for all,"
        f" {workers} at a time; loading the model and the clips is extra"
    )
    say(
        f"{cost.memory_bytes / GIB:.2g} GiB of memory each, {cost.model_bytes * n / GIB:.2g} GiB on the disk for the models"
    )
    if prices.gpu_hour and cost.on_gpu:
        gpu_s = each_s * todo * (gpus or 1.0)
        say(f"{gpu_s / 3600:.1f} GPU hours, {prices.of(gpu_s, 0, 0):.2f} at that price")
    elif prices.gpu_hour:
        say("no price: this machine has no GPU to measure a step on")


def print_verdict(verdict: Mapping[str, Any], run: str) -> None:
    """Prints the loss of every subset, the thresholds that follow, and the next commands."""
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
        say(
            f"write these thresholds into a copy of the pipeline:  rushes ablate {run} --name {verdict['name']} --apply pipeline.yaml"
        )
    say(verdict["limits"])
    say(f"let people compare the samples:  rushes vote {run} --name {verdict['name']}")


def _span(ends: Sequence[float | None] | None) -> str:
    if ends is None or ends[0] is None:
        return ""
    return f"{ends[0]:+.1f}" if ends[1] is None else f"{ends[0]:+.1f} ({ends[1]:+.1f} to {ends[2]:+.1f})"
