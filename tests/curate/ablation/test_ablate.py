"""`rushes ablate` from a run to its thresholds: resumed after a kill, added to, applied; and what it says of what cannot be done."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from curate.ablation.results import Ablation
from curate.dataset.run import Run
from curate.tables import lease
from tests.curate.ablation.made import make_project
from tests.project import Rushes, environment

ASKED = ("--recipe", "small.yaml", "--axes", "brightness", "--levels", "0,50", "--seeds", "2")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, rushes: Rushes) -> Path:
    """A project with a finished run of 24 clips. Tests copy it."""
    return make_project(tmp_path_factory.mktemp("ablated"), rushes)


@pytest.fixture(scope="module")
def ablated(made: Path, tmp_path_factory: pytest.TempPathFactory, rushes: Rushes) -> tuple[Path, str]:
    """The same, after an ablation that was killed in its third training and begun again; and what that said."""
    folder = tmp_path_factory.mktemp("killed") / "project"
    shutil.copytree(made, folder)
    judged = folder / "run" / "ablate" / "small" / "judged"
    models = judged.parent / "models"
    code = "from curate.cli import main; main()"
    child = subprocess.Popen([sys.executable, "-c", code, "ablate", "run", *ASKED], cwd=folder, env=environment(),
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    deadline = time.monotonic() + 900
    while not (len(list(judged.glob("*.json"))) == 2 and len(list(models.glob("*"))) == 3):
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    before = {path.name: path.stat().st_mtime_ns for path in judged.glob("*.json")}
    records = {path.parent.name: path.stat().st_mtime_ns for path in models.glob("*/train.json")}
    done = rushes("ablate", "run", *ASKED, cwd=folder, timeout_s=900)
    assert done.code == 0, done.err
    assert "6 trainings of 2 steps, 2 of them done" in done.out
    assert {name: (judged / name).stat().st_mtime_ns for name in before} == before
    assert {name: (models / name / "train.json").stat().st_mtime_ns for name in list(records)[:2]} == dict(
        list(records.items())[:2]
    )
    assert len(list(judged.glob("*.json"))) == 6
    return folder, done.out


def test_a_killed_ablation_goes_on_and_answers(ablated: tuple[Path, str]) -> None:
    folder, said = ablated
    opened = Ablation.open(str(folder / "run"))
    assert opened.name == "small"
    assert len(opened.judged) == len(opened.trainings) == 6
    verdict = json.loads((opened.folder / "answer.json").read_text())
    assert [row["arm"] for row in verdict["arms"]][:2] == ["all", "brightness-50"]
    assert verdict["arms"][1]["to_all"][1] < verdict["arms"][1]["to_all"][0] < verdict["arms"][1]["to_all"][2]
    assert "brightness: keep all" in said or "brightness: drop 50 %" in said
    assert "rushes vote run --name small" in said


def test_what_a_training_had_is_the_plans_and_never_the_judges(ablated: tuple[Path, str]) -> None:
    opened = Ablation.open(str(ablated[0] / "run"))
    held = {*opened.plan["heldout"], *opened.plan["elsewhere"]}
    for subset, seed in opened.trainings:
        record = json.loads((opened.folder / "models" / f"{subset}-s{seed}" / "train.json").read_text())
        listed = set((opened.folder / "subsets" / f"{subset}.txt").read_text().split())
        assert set(record["clips"]["used"]) | set(record["clips"]["left_out"]) == listed
        assert not record["clips"]["heldout"]
        assert not held & listed
        losses = opened.judged[subset, seed]["losses"]
        assert {*losses["heldout"], *losses["elsewhere"]} == held
        assert record["recipe"]["seed"] == seed
    samples = [len(list(path.glob("*.mp4"))) for path in (opened.folder / "samples").iterdir()]
    assert samples == [len(opened.plan["prompts"])] * 6


def test_finished_it_trains_nothing_and_added_to_only_what_is_new(
    ablated: tuple[Path, str], tmp_path: Path, rushes: Rushes
) -> None:
    folder = tmp_path / "project"
    shutil.copytree(ablated[0], folder)
    judged = folder / "run" / "ablate" / "small" / "judged"
    before = {path.name: path.stat().st_mtime_ns for path in judged.iterdir()}
    done = rushes("ablate", "run", "--recipe", "small.yaml", "--seeds", "2", cwd=folder, timeout_s=900)
    assert done.code == 0, done.err
    assert "6 trainings of 2 steps, 6 of them done" in done.out
    assert "trained in" not in done.out
    done = rushes("ablate", "run", "--recipe", "small.yaml", "--levels", "25", "--seeds", "2", "--plan", cwd=folder)
    assert "10 trainings of 2 steps, 6 of them done" in done.out
    assert "GiB of memory each" in done.out
    done = rushes(
        "ablate", "run", "--recipe", "small.yaml", "--levels", "25", "--seeds", "2", cwd=folder, timeout_s=900
    )
    assert done.code == 0, done.err
    assert done.out.count("trained in") == 4
    assert {name: (judged / name).stat().st_mtime_ns for name in before} == before


def test_the_answer_goes_into_a_copy_of_the_pipeline_that_keeps_what_was_trained_on(
    ablated: tuple[Path, str], tmp_path: Path, rushes: Rushes
) -> None:
    folder = tmp_path / "project"
    shutil.copytree(ablated[0], folder)
    opened = Ablation.open(str(folder / "run"))
    judge_alike(opened.folder, dark_half=0.5)
    done = rushes("ablate", "run", "--apply", "pipeline.yaml", cwd=folder)
    assert done.code == 0, done.err
    text = (folder / "pipeline.small.yaml").read_text()
    assert "keep:                            # wide open\n  motion: {above: 0.0}           # ours\n" in text
    assert "# rushes ablate, small: dropping 50 % changes the loss on held-out clips by -" in text
    keep = yaml.safe_load(text)["keep"]
    assert keep["motion"] == {"above": 0.0}
    kept = set(Run.open(folder / "run", (f"keep.brightness.above={keep['brightness']['above']}",)).selection().clip_ids)
    trained = set((opened.folder / "subsets" / "brightness-50.txt").read_text().split())
    assert trained <= kept <= trained | {*opened.plan["heldout"], *opened.plan["elsewhere"]}
    assert rushes("check", "pipeline.small.yaml", cwd=folder).code == 0
    (folder / "pipeline.small.yaml").write_text("mine\n")
    done = rushes("ablate", "run", "--apply", "pipeline.yaml", cwd=folder)
    assert done.code == 2
    assert "pipeline.small.yaml exists with other contents; name another file with --out" in done.err
    assert (folder / "pipeline.small.yaml").read_text() == "mine\n"


def judge_alike(folder: Path, dark_half: float) -> None:
    """Puts other losses down: 1 for all trainings, but for those without the dark half."""
    for path in (folder / "judged").glob("*.json"):
        told = json.loads(path.read_text())
        level = dark_half if path.name.startswith("brightness") else 1.0
        told["losses"]["heldout"] = {clip: [level] * 8 for clip in told["losses"]["heldout"]}
        path.write_text(json.dumps(told))


def test_without_a_cut_that_helps_nothing_is_applied(ablated: tuple[Path, str], tmp_path: Path, rushes: Rushes) -> None:
    folder = tmp_path / "project"
    shutil.copytree(ablated[0], folder)
    judge_alike(folder / "run" / "ablate" / "small", dark_half=1.0)
    done = rushes("ablate", "run", "--apply", "pipeline.yaml", cwd=folder)
    assert done.code == 2
    assert "small found no threshold that helps, so there is nothing to apply" in done.err
    assert not (folder / "pipeline.small.yaml").exists()


def test_the_judges_clips_and_how_many_of_all_can_be_said(made: Path, rushes: Rushes) -> None:
    middle = Run.open(made / "run").clips()["brightness"].median()
    where = f"brightness > {middle:.2f}"
    asked = (*ASKED, "--plan", "--name", "other", "--heldout", "5", "--heldout-where", where, "--of", "22")
    done = rushes("ablate", "run", *asked, "--gpu-hour", "2.5", cwd=made, timeout_s=900)
    assert done.code == 0, done.err
    assert f"judged on 5 clips with {where}, and on 2 of the others; " in done.out
    assert "no price: this machine has no GPU to time a step on" in done.out or "GPU hours, " in done.out
    kept = int(next(line.split()[1] for line in done.out.splitlines() if line.startswith("all ")))
    assert kept == 22 - 5 - 2
    assert not (made / "run" / "ablate").exists()


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (("--axes", "brightnes"), "there is no measure 'brightnes'; did you mean 'brightness'?"),
        (("--axes", "brightness", "--levels", "120"), "--levels 120: a level is a percentage of the clips to drop"),
        (("--axes", "brightness", "--levels", "a,b"), "--levels a,b: percentages, with commas between them"),
        (("--axes", "brightness", "--levels", "90"), "clips and a training needs 8: give lower --levels, or more clips"),
        (("--axes", "brightness", "--prompts", "nowhere.txt"), "--prompts nowhere.txt: No such file or directory"),
        (("--axes", "brightness", "--prompts", "/dev/null"), "--prompts /dev/null: it holds no prompt"),
        (("--axes", "brightness", "--name", "../out"), "--name ../out: letters, digits, dots, dashes and underscores"),
        (("--axes", "brightness", "--recipe", "none"), "there is no recipe 'none'"),
        (("--axes", "width_px"), "all clips have the value 128, so there is nothing to cut"),
        (("--axes", "brightness", "--apply", "pipeline.yaml"), "run has no ablation yet;  rushes ablate run  makes one"),
    ],
    ids=["axis", "level over 100", "levels", "too few clips", "no prompts file", "no prompt", "name", "recipe", "constant", "nothing to apply"],
)  # fmt: skip
def test_what_cannot_be_done_is_one_sentence_and_leaves_nothing(
    made: Path, rushes: Rushes, asked: tuple[str, ...], told: str
) -> None:
    recipe = () if "--recipe" in asked else ("--recipe", "small.yaml")
    done = rushes("ablate", "run", *recipe, *asked, cwd=made)
    assert done.code == 2
    assert told in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert not (made / "run" / "ablate").exists()


def test_another_recipe_other_prompts_and_other_measures_are_told_apart(
    ablated: tuple[Path, str], tmp_path: Path, rushes: Rushes
) -> None:
    folder = tmp_path / "project"
    shutil.copytree(ablated[0], folder)
    done = rushes("ablate", "run", "--recipe", "small.yaml", "--set", "lr=0.1", cwd=folder)
    assert done.code == 2
    assert (
        "holds another ablation (recipe.lr: 0.002 -> 0.1); give another --name, or remove the folder to begin anew"
        in done.err
    )
    (folder / "prompts.txt").write_text("<script>alert(1)</script>\n")
    done = rushes("ablate", "run", "--recipe", "small.yaml", "--seeds", "2", "--prompts", "prompts.txt", cwd=folder)
    assert done.code == 2
    assert "was begun with other prompts; give another --name" in done.err
    plan = folder / "run" / "ablate" / "small" / "plan.json"
    told = json.loads(plan.read_text())
    told["subsets"]["brightness-50"] = "0" * 64
    plan.write_text(json.dumps(told))
    done = rushes("ablate", "run", "--recipe", "small.yaml", "--seeds", "2", cwd=folder, timeout_s=900)
    assert done.code == 2
    assert "brightness-50 held other clips when it was begun (measures were made anew); give another --name" in done.err
    plan.write_text("{")
    done = rushes("ablate", "run", "--recipe", "small.yaml", cwd=folder)
    assert done.code == 2
    assert "cannot be read as an ablation's plan" in done.err


def test_a_training_that_fails_costs_itself(ablated: tuple[Path, str], tmp_path: Path, rushes: Rushes) -> None:
    folder = tmp_path / "project"
    shutil.copytree(ablated[0], folder)
    home = folder / "run" / "ablate" / "small"
    for name in ("all-s0", "all-s1"):
        (home / "judged" / f"{name}.json").unlink()
        shutil.rmtree(home / "models" / name)
    other = home / "models" / "all-s0" / "train.json"
    other.parent.mkdir()
    other.write_text('{"losses": {}, "fingerprint": {"recipe": "of somebody else"}}')
    done = rushes("ablate", "run", *ASKED, cwd=folder, timeout_s=900)
    assert done.code == 1
    assert "all-s0: " in done.err
    assert "holds another training" in done.err
    assert "1 of 6 trainings failed (see above); the same command tries them again" in done.err
    assert done.out.count("trained in") == 1  # the one behind it
    other.unlink()
    done = rushes("ablate", "run", *ASKED, cwd=folder, timeout_s=900)
    assert done.code == 0, done.err
    assert done.out.count("trained in") == 1


def test_two_at_once_are_told_apart(ablated: tuple[Path, str], rushes: Rushes) -> None:
    folder = ablated[0]
    with lease.held(str(folder / "run" / "ablate" / "small")):
        done = rushes("ablate", "run", *ASKED, cwd=folder)
    assert done.code == 2
    assert "another rushes run is at work in" in done.err
    assert "wait for it, or give another --name" in done.err


@pytest.mark.slow  # Ray's workers do what this process does in the other tests
def test_trainings_side_by_side_on_ray_answer_as_one_after_the_other(
    ablated: tuple[Path, str], tmp_path: Path, rushes: Rushes
) -> None:
    folder = tmp_path / "project"
    shutil.copytree(ablated[0], folder)
    home = folder / "run" / "ablate" / "small"
    before = Ablation.open(str(folder / "run")).judged
    for part in ("judged", "models", "samples"):
        shutil.rmtree(home / part)
    done = rushes("ablate", "run", *ASKED, "--workers", "2", cwd=folder, timeout_s=900)
    assert done.code == 0, done.err
    after = Ablation.open(str(folder / "run")).judged
    assert {key: told["losses"] for key, told in after.items()} == {key: told["losses"] for key, told in before.items()}
