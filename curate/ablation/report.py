"""The data of the report's section Ablation: for each axis the answer, losses and votes; samples."""

from typing import Any

from curate.ablation.results import Ablation, training_name
from curate.errors import RushesError
from curate.run.data import RunData
from curate.tables import store
from curate.voting import contest

PROMPTS = 4
"""Number of prompts whose samples are shown, of the first seed of each subset. Our choice."""


def ablations(run: RunData, folder: str) -> list[dict[str, Any]]:
    """All ablations of a run on a disk. The samples are copied into `folder`. An ablation that cannot be read has a `problem`."""
    found: list[dict[str, Any]] = []
    for name in contest.names(run.root):
        try:
            opened = Ablation.open(run.root, name)
            section = {**opened.verdict(), "problem": None}
        except (RushesError, ImportError, KeyError, TypeError, ValueError) as error:
            found.append({"name": name, "problem": f"{name} cannot be shown: {' '.join(str(error).split())}"})
            continue
        plan = opened.plan
        section |= {key: plan[key] for key in ("recipe", "steps", "axes", "heldout_level")}
        section |= {"heldout": len(plan["heldout"]), "seeds": len(opened.arms[0].subsets)}
        found.append(section | {"samples": _samples(opened, folder, len(found))})
    return found


def _samples(opened: Ablation, folder: str, number: int) -> dict[str, Any]:
    """For each arm the files of its first seed's samples by prompt, None for a missing one. Arms with the same clips are shown once."""
    prompts = [prompt["text"] for prompt in opened.plan["prompts"][:PROMPTS]]
    files: dict[str, list[str | None]] = {}
    shown: set[str] = set()
    for arm in opened.arms:
        if arm.subsets[0] in shown:
            continue
        shown.add(arm.subsets[0])
        files[arm.name] = []
        for i in range(len(prompts)):
            video = opened.folder / "samples" / training_name(arm.subsets[0], 0) / f"{i:02d}.mp4"
            file = f"{number}-{arm.name}-{i}.mp4" if video.is_file() else None
            if file is not None:
                store.put(store.join(folder, file), video.read_bytes())
            files[arm.name].append(file)
    return {"prompts": prompts, "files": files}
