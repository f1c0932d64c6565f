"""`rushes ablate` from a run to its thresholds: resumed after a kill, extended, applied; and its errors."""

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

OPTIONS = ("--recipe", "small.yaml", "--axes", "brightness", "--levels", "0,50", "--seeds", "2")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, rushes: Rushes) -> Path:
    """A project with a finished run of 24 clips. Tests copy it."""
    return make_project(tmp_path_factory.mktemp("ablated"), rushes)


@pytest.fixture(scope="module")
def ablated(made: Path, tmp_path_factory: pytest.TempPathFactory, rushes: Rushes) -> tuple[Path, str]:
    """The same after an ablation that was killed in its third training and resumed; and the output of the second command."""
    folder = tmp_path_factory.mktemp("killed") / "project"
    shutil.copytree(made, folder)
    judged = folder / "run" / "ablate" / "small" / "judged"
    models = judged.parent / "models"
    code = "from curate.cli import main; main()"
    child = subprocess.Popen([sys.executable, "-c", code, "ablate", "run", *OPTIONS], cwd=folder, env=environment(),
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
    done = rushes("ablate", "run", *OPTIONS, cwd=folder, timeout_s=900)
    assert done.code == 0, done.err
    assert "6 trainings of 2 steps, 2 of them done" in done.out
    assert {name: (judged / name).stat().st_mtime_ns for name in before} == before
    assert {name: (models / name / "train.json").stat().st_mtime_ns for name in list(records)[:2]} == dict(
        list(records.items())[:2]
    )
    assert len(list(judged.glob("*.json"))) == 6
    return folder, done.out


@pytest.mark.slow  # 85 CPU s; the next test resumes a finished one
def test_a_killed_ablation_resumes_and_answers(ablated: tuple[Path, str]) -> None:
    folder, output = ablated
    opened = Ablation.open(str(folder / "run"))
    assert opened.name == "small"
    assert len(opened.judged) == len(opened.trainings) == 6
    verdict = json.loads((opened.folder / "answer.json").read_text())
    assert [row["arm"] for row in verdict["arms"]][:2] == ["all", "brightness-50"]
    assert verdict["arms"][1]["to_all"][1] < verdict["arms"][1]["to_all"][0] < verdict["arms"][1]["to_all"][2]
    assert "brightness: keep all" in output or "brightness: drop 50 %" in output
    assert "rushes vote run --name small" in output


def test_trainings_have_the_clips_of_the_plan_and_no_heldout_ones(ablated: tuple[Path, str]) -> None:
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


def test_a_finished_ablation_trains_nothing_and_an_extended_one_only_new_subsets(
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


def test_apply_writes_a_copy_of_the_pipeline_that_keeps_the_trained_clips(
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
    """Overwrites the losses: `dark_half` for trainings without the dark half, 1 for all others."""
    for path in (folder / "judged").glob("*.json"):
        result = json.loads(path.read_text())
        level = dark_half if path.name.startswith("brightness") else 1.0
        result["losses"]["heldout"] = {clip: [level] * 8 for clip in result["losses"]["heldout"]}
        path.write_text(json.dumps(result))


def test_apply_without_a_helping_cut_is_an_error(ablated: tuple[Path, str], tmp_path: Path, rushes: Rushes) -> None:
    folder = tmp_path / "project"
    shutil.copytree(ablated[0], folder)
    judge_alike(folder / "run" / "ablate" / "small", dark_half=1.0)
    done = rushes("ablate", "run", "--apply", "pipeline.yaml", cwd=folder)
    assert done.code == 2
    assert "small found no threshold that helps, so there is nothing to apply" in done.err
    assert not (folder / "pipeline.small.yaml").exists()


def test_options_for_heldout_clips_and_the_number_of_clips(made: Path, rushes: Rushes) -> None:
    middle = Run.open(made / "run").clips()["brightness"].median()
    where = f"brightness > {middle:.2f}"
    options = (*OPTIONS, "--plan", "--name", "other", "--heldout", "5", "--heldout-where", where, "--of", "22")
    done = rushes("ablate", "run", *options, "--gpu-hour", "2.5", cwd=made, timeout_s=900)
    assert done.code == 0, done.err
    assert f"judged on 5 clips with {where}, and on 2 of the others; " in done.out
    assert "no price: this machine has no GPU to measure a step on" in done.out or "GPU hours, " in done.out
    kept = int(next(line.split()[1] for line in done.out.splitlines() if line.startswith("all ")))
    assert kept == 22 - 5 - 2
    assert not (made / "run" / "ablate").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--axes", "brightnes"), "there is no measure 'brightnes'; did you mean 'brightness'?"),
        (("--axes", "brightness", "--levels", "120"), "--levels 120: a level is a percentage of the clips to drop"),
        (("--axes", "brightness", "--levels", "a,b"), "--levels a,b: expected percentages separated by commas"),
        (("--axes", "brightness", "--levels", "90"), "clips and a training needs 8: give lower --levels or more clips"),
        (("--axes", "brightness", "--prompts", "nowhere.txt"), "--prompts nowhere.txt: No such file or directory"),
        (("--axes", "brightness", "--prompts", "/dev/null"), "--prompts /dev/null: the file has no prompt"),
        (("--axes", "brightness", "--name", "../out"), "--name ../out: a name may have letters, digits, dots, dashes and underscores"),
        (("--axes", "brightness", "--recipe", "none"), "there is no recipe 'none'"),
        (("--axes", "width_px"), "all clips have the value 128, so no level drops a part of them"),
        (("--axes", "brightness", "--apply", "pipeline.yaml"), "run has no ablation yet; make one with  rushes ablate run"),
    ],
    ids=["axis", "level over 100", "levels", "too few clips", "no prompts file", "no prompt", "name", "recipe", "constant", "nothing to apply"],
)  # fmt: skip
def test_errors_are_one_sentence_and_write_nothing(
    made: Path, rushes: Rushes, options: tuple[str, ...], message: str
) -> None:
    recipe = () if "--recipe" in options else ("--recipe", "small.yaml")
    done = rushes("ablate", "run", *recipe, *options, cwd=made)
    assert done.code == 2
    assert message in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert not (made / "run" / "ablate").exists()


def test_another_recipe_other_prompts_and_other_measures_are_errors(
    ablated: tuple[Path, str], tmp_path: Path, rushes: Rushes
) -> None:
    folder = tmp_path / "project"
    shutil.copytree(ablated[0], folder)
    done = rushes("ablate", "run", "--recipe", "small.yaml", "--set", "lr=0.1", cwd=folder)
    assert done.code == 2
    assert (
        "holds another ablation (recipe.lr: 0.002 -> 0.1); give another --name, or remove the folder to restart"
        in done.err
    )
    (folder / "prompts.txt").write_text("<script>alert(1)</script>\n")
    done = rushes("ablate", "run", "--recipe", "small.yaml", "--seeds", "2", "--prompts", "prompts.txt", cwd=folder)
    assert done.code == 2
    assert "was started with other prompts; give another --name" in done.err
    plan = folder / "run" / "ablate" / "small" / "plan.json"
    result = json.loads(plan.read_text())
    result["subsets"]["brightness-50"] = "0" * 64
    plan.write_text(json.dumps(result))
    done = rushes("ablate", "run", "--recipe", "small.yaml", "--seeds", "2", cwd=folder, timeout_s=900)
    assert done.code == 2
    assert (
        "brightness-50 had other clips when the ablation started, because measures were recomputed; give another --name"
        in done.err
    )
    plan.write_text("{")
    done = rushes("ablate", "run", "--recipe", "small.yaml", cwd=folder)
    assert done.code == 2
    assert "is not a valid plan of an ablation" in done.err


@pytest.mark.slow  # 30 CPU s of trainings
def test_a_failed_training_affects_only_itself(ablated: tuple[Path, str], tmp_path: Path, rushes: Rushes) -> None:
    folder = tmp_path / "project"
    shutil.copytree(ablated[0], folder)
    home = folder / "run" / "ablate" / "small"
    for name in ("all-s0", "all-s1"):
        (home / "judged" / f"{name}.json").unlink()
        shutil.rmtree(home / "models" / name)
    other = home / "models" / "all-s0" / "train.json"
    other.parent.mkdir()
    other.write_text('{"losses": {}, "fingerprint": {"recipe": "of somebody else"}}')
    done = rushes("ablate", "run", *OPTIONS, cwd=folder, timeout_s=900)
    assert done.code == 1
    assert "all-s0: " in done.err
    assert "holds another training" in done.err
    assert "1 of 6 trainings failed (see above); the same command tries them again" in done.err
    assert done.out.count("trained in") == 1  # the next one
    other.unlink()
    done = rushes("ablate", "run", *OPTIONS, cwd=folder, timeout_s=900)
    assert done.code == 0, done.err
    assert done.out.count("trained in") == 1


def test_a_second_command_at_the_same_time_is_an_error(ablated: tuple[Path, str], rushes: Rushes) -> None:
    folder = ablated[0]
    with lease.held(str(folder / "run" / "ablate" / "small")):
        done = rushes("ablate", "run", *OPTIONS, cwd=folder)
    assert done.code == 2
    assert "another rushes run is at work in" in done.err
    assert "wait for it, or give another --name" in done.err


@pytest.mark.slow  # repeats the other tests on Ray's workers
def test_parallel_trainings_on_ray_have_the_same_losses(
    ablated: tuple[Path, str], tmp_path: Path, rushes: Rushes
) -> None:
    folder = tmp_path / "project"
    shutil.copytree(ablated[0], folder)
    home = folder / "run" / "ablate" / "small"
    before = Ablation.open(str(folder / "run")).judged
    for part in ("judged", "models", "samples"):
        shutil.rmtree(home / part)
    done = rushes("ablate", "run", *OPTIONS, "--workers", "2", cwd=folder, timeout_s=900)
    assert done.code == 0, done.err
    after = Ablation.open(str(folder / "run")).judged
    assert {key: result["losses"] for key, result in after.items()} == {
        key: result["losses"] for key, result in before.items()
    }
