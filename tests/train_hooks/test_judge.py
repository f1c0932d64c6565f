"""What a finished training is worth: the same cells for every training, samples that can be had again, and clips that cannot be decoded."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.train_hooks.evaluators import write_features, write_tiny_clip
from tests.train_hooks.trainings import SMALL
from tests.train_hooks.worlds import write_shards
from train_hooks.ablation import JUDGED, MODELS, SAMPLES, SUBSETS, AblationJob, Prompt, clips_of, cost_of, make_base
from train_hooks.errors import TrainError
from train_hooks.evaluate import ClipSim
from train_hooks.heldout import GRID_LEVELS
from train_hooks.judge import DRAWS, Judge
from train_hooks.recipe_files import load_recipe
from train_hooks.train import train

SETTINGS = {**SMALL, "steps": "2", "sample_steps": "1"}
HELD = ["clip5", "clip6", "clip7"]


@pytest.fixture(scope="module")
def shards(square_rows, tmp_path_factory) -> Path:
    return write_shards(tmp_path_factory.mktemp("judged") / "shards", square_rows)


@pytest.fixture(scope="module")
def trained(shards, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("judged") / "out"
    train("tiny_modelscope", shards, out, SETTINGS, lambda line: None)
    return out


def test_a_clips_losses_do_not_depend_on_what_is_judged_beside_it(trained, shards, square_rows, tmp_path) -> None:
    judge = Judge(trained, shards)
    whole = judge.losses(HELD)
    assert list(whole) == HELD
    assert {len(own) for own in whole.values()} == {len(GRID_LEVELS) * DRAWS}
    assert len({tuple(own) for own in whole.values()}) == 3
    assert Judge(trained, shards).losses(HELD) == whole
    rows = [{**row, "mp4": b"broken"} if row["clip_id"] == "clip5" else row for row in square_rows]
    left = Judge(trained, write_shards(tmp_path / "shards", rows)).losses(HELD)
    assert left.keys() == {"clip6", "clip7"}
    assert all(left[clip] == pytest.approx(whole[clip], rel=1e-4) for clip in left)


def test_samples_of_the_same_prompt_and_seed_are_the_same(trained, shards, tmp_path) -> None:
    judge = Judge(trained, shards)
    prompts = [Prompt("a red square", 3), Prompt("a red square", 4)]
    one, other = judge.sample(prompts, tmp_path / "one"), judge.sample(prompts, tmp_path / "two")
    assert [a.equal(b) for a, b in zip(one, other, strict=True)] == [True, True]
    assert not one[0].equal(one[1])
    assert [path.name for path in sorted((tmp_path / "one").iterdir())] == ["00.mp4", "01.mp4"]
    assert judge.scores(one, prompts, HELD) == {}  # the recipe names no weights


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_samples_are_scored_where_the_recipe_names_weights(trained, shards, tmp_path) -> None:
    write_tiny_clip(tmp_path / "clip")
    write_features(tmp_path / "i3d.pt")
    judge = Judge(trained, shards)
    judge.recipe = replace(judge.recipe, clip_weights=str(tmp_path / "clip"), fvd_weights=str(tmp_path / "i3d.pt"))
    prompts = [Prompt("a red square", seed) for seed in range(4)]
    videos = judge.sample(prompts, tmp_path / "samples")
    scores = judge.scores(videos, prompts, HELD)
    assert scores.keys() == {"clipsim", "fvd"}
    assert scores["clipsim"] == ClipSim(str(tmp_path / "clip"))(videos, ["a red square"] * 4)
    darker = judge.scores([video * 0 for video in videos], prompts, HELD)
    assert 0 < scores["fvd"] < darker["fvd"]  # nothing is farther from coloured squares than black


def test_image_to_video_is_shown_a_clips_first_frame(shards, tmp_path) -> None:
    settings = {key: value for key, value in SETTINGS.items() if key not in ("vae_channels", "text_width")}
    train(
        "tiny_svd_i2v",
        shards,
        tmp_path / "out",
        {**settings, "steps": "3", "unet_channels": "32,32", "width_px": "32", "height_px": "32"},
        lambda line: None,
    )
    judge = Judge(tmp_path / "out", shards)
    red, blue = judge.sample([Prompt("", 0, "clip0"), Prompt("", 0, "clip2")], tmp_path / "samples")
    assert not red.equal(blue)
    assert len(judge.losses(["clip1"])["clip1"]) == len(GRID_LEVELS) * DRAWS


def test_a_job_judges_what_it_trains_from_one_base_and_says_what_went_wrong(shards, tmp_path) -> None:
    recipe = load_recipe("tiny_modelscope", SETTINGS)
    clips, left_out, index = clips_of(recipe, str(shards))
    assert (len(clips), left_out, len(index.clips)) == (8, {}, 8)
    make_base(recipe, str(shards), tmp_path, lambda line: None)
    (tmp_path / SUBSETS).mkdir()
    (tmp_path / SUBSETS / "some.txt").write_text("clip0\nclip1\nclip2\n")
    (tmp_path / SUBSETS / "wrong.txt").write_text("nobody\n")
    job = AblationJob(
        "tiny_modelscope", str(shards), str(tmp_path), SETTINGS, {"heldout": HELD}, [Prompt("a red square", 0)]
    )
    job.setup()
    receipts = [job.work({"name": f"some-s{seed}", "subset": "some", "seed": seed}) for seed in (0, 1)]
    assert [receipt["name"] for receipt in receipts] == ["some-s0", "some-s1"]
    assert len(list((tmp_path / JUDGED).iterdir())) == 2
    assert (tmp_path / SAMPLES / "some-s1" / "00.mp4").is_file()
    vaes = {
        (tmp_path / MODELS / name / "vae" / "diffusion_pytorch_model.safetensors").read_bytes()
        for name in ("some-s0", "some-s1")
    }
    assert len(vaes) == 1
    wrong = job.work({"name": "wrong-s0", "subset": "wrong", "seed": 0})
    assert "names 1 clips that are not in these shards, such as 'nobody'" in wrong["error"]
    assert not (tmp_path / JUDGED / "wrong-s0.json").exists()


def test_a_folder_that_is_no_training_and_a_clip_that_is_not_there(trained, shards, tmp_path) -> None:
    with pytest.raises(TrainError, match="is not a finished training"):
        Judge(tmp_path, shards)
    with pytest.raises(TrainError, match="the judge names 1 clips that are not in these shards"):
        Judge(trained, shards).losses(["nobody"])


def test_the_cost_of_a_training_is_measured_without_one(shards) -> None:
    cost = cost_of(load_recipe("tiny_modelscope", {**SETTINGS, "steps": "1000"}), str(shards))
    assert cost.steps == 1000
    assert cost.training_s == pytest.approx(1000 * cost.step_s)
    assert 0 < cost.step_s < 30
    assert cost.sample_s > 0
    assert cost.judge_clip_s == pytest.approx(cost.sample_s / 2 * len(GRID_LEVELS) * DRAWS)  # of a sample of one step
    assert 1e5 < cost.model_bytes < 1e8
    assert not cost.on_gpu
