"""`rushes train`: checks what can be checked without torch, then runs the training in `train_hooks.session`.

torch and diffusers take ten seconds to import; a wrong recipe, key, shards folder or `--out` is reported before that.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from train_hooks.errors import TrainError
from train_hooks.out_folder import FOLDER, RECORD, check_out, record_in
from train_hooks.recipe_files import load_recipe
from train_hooks.shard_index import read_index


@dataclass(frozen=True)
class TrainResult:
    """The results of a training.

    The losses are means over one fixed grid of (clip, timestep, noise), before and after.
    """

    out: Path
    first_loss: float
    last_loss: float
    n_clips_used: int
    n_clips_heldout: int
    left_out: dict[str, str]
    """Reason for each clip that is neither used nor held out, by clip_id."""
    sample: Path
    seconds: float


def train(
    recipe: str,
    shards: str | Path,
    out: Path,
    overrides: Mapping[str, str] | None = None,
    say: Callable[[str], None] = print,
    pickled: bool = False,
    *,
    latents: str | None = None,
    clips: Path | None = None,
    restart: bool = False,
    allow_changes: bool = False,
) -> TrainResult:
    """Runs a recipe on a shards folder and writes a diffusers folder with a sample video to `out`; resumes a training that was stopped.

    Args:
        recipe: its name, or a YAML file.
        shards: a folder or URL.
        out: the folder of this training.
        overrides: values of the recipe, as text.
        say: receives one line of progress at a time.
        pickled: also writes the weights as other projects' pickles, where such a format exists (train_hooks/export.py).
        latents: a folder of `rushes latents` that must fit; None: the one beside the shards if it fits; "off": none.
        clips: a text file with the ids of the clips to train on, one per line; None: all clips of the shards.
        restart: removes an earlier training in `out` and starts from step 0.
        allow_changes: resumes the training in `out` although shards, recipe or captions have changed.

    Raises RecipeError when the recipe or an override is wrong, TrainError when the shards, the base or a step fail or `out` holds another
    training, and StoppedBySignal on SIGTERM and Ctrl-C.
    """
    whole = load_recipe(recipe, overrides)
    check_out(out)
    index = read_index(shards)
    if os.environ.get("RANK", "0") == "0":  # torchrun and Ray Train set it
        say(f"recipe {whole.name}: {whole.steps} steps on {len(index.clips)} clips; loading torch")
    from train_hooks.prepare import prepare
    from train_hooks.session import run_session

    made = prepare(whole, shards, out / FOLDER, latents, say, clips, index)
    try:
        run_session(made, shards, out, say, pickled, restart, allow_changes)
    finally:
        made.machine.close()
    return result_of(out)


def result_of(out: Path) -> TrainResult:
    """The results in the record of a finished training. Raises TrainError where there is no record."""
    record = record_in(out)
    if record is None:
        raise TrainError(f"{out} has no readable {RECORD}; the training there is not finished")
    losses, clips = record["losses"], record["clips"]
    return TrainResult(
        out, losses["grid_before"], losses["grid_after"], len(clips["used"]), len(clips["heldout"]), clips["left_out"],
        out / "sample.mp4", losses["steps_s"],
    )  # fmt: skip
