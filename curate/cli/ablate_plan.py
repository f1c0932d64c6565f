"""`rushes ablate`: from the typed options to a plan of trainings, and the trainings themselves."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from curate.ablation import results as ablation
from curate.ablation.asked import SAMPLE_SEED, axes_of, check_same_subsets, levels_of, prompts_of, seeds_of
from curate.ablation.axis import Axis
from curate.ablation.plan import FEWEST, Grid, plan
from curate.ablation.results import training_name
from curate.cli.common import Stopped, warn
from curate.cli.train import say
from curate.cluster import runner
from curate.cluster.pool import Resources
from curate.dataset.run import Run
from curate.errors import RunError, UsageError


@dataclass(frozen=True)
class Options:
    """The options of the command line."""

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
        """Overrides of the recipe: --set and --steps."""
        return self.settings | ({"steps": str(self.steps)} if self.steps is not None else {})


@dataclass
class PlannedAblation:
    """A plan whose trainings can be started."""

    folder: Path
    shards: str
    options: Options
    recipe: Any
    claim: dict[str, Any]
    axes: list[Axis]
    grid: Grid
    prompts: list[dict[str, Any]]

    @property
    def pending(self) -> list[tuple[str, int]]:
        """The trainings that have no judgement yet."""
        judged = {path.stem for path in (self.folder / "judged").glob("*.json")}
        return [key for key in self.grid.trainings if training_name(*key) not in judged]

    def begin(self, log: Any) -> None:
        """Writes the plan, and the base model when the recipe names none."""
        from train_hooks.ablation import make_base

        ablation.write_plan(
            self.folder, self.claim, self.axes, self.grid, prompts=self.prompts, recipe=self.options.recipe,
            overrides=self.options.overrides, steps=self.recipe.steps, shards=self.shards,
        )  # fmt: skip
        make_base(self.recipe, self.shards, self.folder, log)


def plan_ablation(run: Run, name: str, options: Options) -> PlannedAblation:
    """Selects clips, subsets, seeds and prompts; an earlier plan in the same folder is extended. Raises UsageError where it does not fit."""
    from train_hooks.ablation import clips_of
    from train_hooks.fingerprint import differences, fingerprint
    from train_hooks.recipe_files import load_recipe

    folder = ablation.folder_of(run.root, name)
    shards = run.shards_root()
    recipe = load_recipe(options.recipe, options.overrides)
    usable, left_out, index = clips_of(recipe, shards)
    if left_out:
        clip_id, why = next(iter(left_out.items()))
        say(f"{len(left_out)} of {len(left_out) + len(usable)} clips cannot be trained on, such as {clip_id}: {why}")
    before = ablation.read_plan(folder) if (folder / ablation.PLAN).exists() else None
    axes = axes_of(run, options.axes, before, lambda line: warn(f"warning: {line}"))
    frame = run.scored([axis.name for axis in axes])
    frame = (
        frame[frame["clip_id"].isin([clip.clip_id for clip in usable])].sort_values("clip_id").reset_index(drop=True)
    )
    if options.of is not None and options.of < len(frame):
        drawn = np.random.default_rng(SAMPLE_SEED).choice(len(frame), options.of, replace=False)
        frame = frame.iloc[np.sort(drawn)].reset_index(drop=True)
    wanted = None
    if options.where is not None:
        try:
            wanted = frame["clip_id"].isin(run.clips(columns=[], where=options.where)["clip_id"]).to_numpy()
        except UsageError as error:
            raise UsageError(str(error).replace("--where", "--heldout-where", 1)) from error
    claim = fingerprint(recipe, index, []) | {
        "asked": {"heldout": options.heldout, "heldout_where": options.where, "of": options.of}
    }
    if before is not None and (changes := "; ".join(differences(before["claim"], json.loads(json.dumps(claim))))):
        raise UsageError(
            f"{folder} holds another ablation ({changes}); give another --name, or remove the folder to restart"
        )
    grid_ = plan(
        frame, axes, levels_of(options.levels, before), seeds_of(options.seeds, before), max(FEWEST, recipe.batch), options.heldout,
        None if before is None else (before["heldout"], before["elsewhere"], before["heldout_level"]),
        wanted, {} if before is None else {v: k for k, v in before["subsets"].items()},
    )  # fmt: skip
    check_same_subsets(folder, before, grid_)
    prompts = prompts_of(options.prompts, usable, grid_.heldout)
    if before is not None:
        if options.prompts is not None and [p["text"] for p in prompts] != [p["text"] for p in before["prompts"]]:
            raise UsageError(f"{folder} was started with other prompts; give another --name")
        prompts = before["prompts"]
    return PlannedAblation(folder, shards, options, recipe, claim, axes, grid_, prompts)


def train_pending(planned: PlannedAblation, workers: int, gpus: float) -> int:
    """Runs all pending trainings. Returns the number that failed."""
    from train_hooks.ablation import AblationJob, Prompt
    from train_hooks.recipe_files import whole_name

    job = AblationJob(
        whole_name(planned.options.recipe), planned.shards, str(planned.folder), planned.options.overrides,
        {"heldout": planned.grid.heldout, "elsewhere": planned.grid.elsewhere}, [Prompt(**p) for p in planned.prompts],
    )  # fmt: skip
    units = [{"name": training_name(*key), "subset": key[0], "seed": key[1]} for key in planned.pending]
    done, failed = len(planned.grid.trainings) - len(units), 0
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
                f"{done}/{len(planned.grid.trainings)}  {receipt['name']}: trained in {receipt['seconds']:.0f} s, judged and sampled"
            )
    except RunError as error:
        raise RunError(f"{error}; finished trainings are kept, and the same command resumes") from error
    finally:
        runner.stop()
    return failed
