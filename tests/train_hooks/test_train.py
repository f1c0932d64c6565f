import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from diffusers import TextToVideoSDPipeline, UNet3DConditionModel
from PIL import Image

from tests.train_hooks.worlds import COLOURS, square_frames, write_shards
from train_hooks.batch import Encoder
from train_hooks.conditioning import MotionBuckets
from train_hooks.errors import RecipeError, TrainError
from train_hooks.heldout import grid_loss, make_grid
from train_hooks.net import Net
from train_hooks.objectives import schedule
from train_hooks.optim import lr_factor
from train_hooks.recipe_files import load_recipe
from train_hooks.sample import open_folder
from train_hooks.stage_feed import feed_of
from train_hooks.tiny_base import build_base, clip_tokenizer
from train_hooks.tiny_vae import reconstruction_error
from train_hooks.train import train

SMALL = {
    "frames": "4", "width_px": "32", "height_px": "24", "unet_channels": "16,32", "head_dim": "16", "text_width": "32",
    "vae_fit_steps": "4", "steps": "30", "batch": "2", "sample_steps": "4", "threads": "1", "heldout_share": "0",
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(square_rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    shards = write_shards(folder / "shards", [*square_rows, {**square_rows[0], "clip_id": "short", "n_frames": 3}])
    lines: list[str] = []
    return train("tiny", shards, folder / "out", SMALL, lines.append), lines, shards


def test_the_loss_on_the_fixed_grid_falls(trained):
    result, lines, _ = trained
    assert result.last_loss < 0.5 * result.first_loss
    text = "\n".join(lines)
    assert f"{result.first_loss:.4f} -> {result.last_loss:.4f}" in text
    assert "left out short: too short: 3 frames at 12 fps" in text


def test_every_clip_is_in_the_record(trained):
    result, _, _ = trained
    record = json.loads((result.out / "train.json").read_text())
    assert len(record["clips"]["used"]) == result.n_clips_used == 8
    assert record["clips"]["left_out"] == result.left_out
    assert set(result.left_out) == {"short"}
    assert record["losses"]["grid_before"] == result.first_loss
    assert len(record["losses"]["per_step"]) == 30
    assert record["recipe"]["steps"] == 30
    assert (
        record["versions"]["torch"] == torch.__version__.split("+")[0]
        or record["versions"]["torch"] == torch.__version__
    )
    assert len(record["shards"]["index_sha256"]) == 64


def test_the_folder_loads_and_the_loop_and_the_pipeline_agree(trained):
    """The reloaded parts give the loss that the loop measured: weights, VAE scale, text and schedule survived."""
    result, _, shards = trained
    pipeline = TextToVideoSDPipeline.from_pretrained(result.out)
    recipe, base, _ = open_folder(result.out)
    net = Net(pipeline.unet)
    grid = make_grid(recipe, Encoder(base, MotionBuckets(())), feed_of(recipe, shards))
    assert grid_loss(recipe, net, schedule(recipe), grid) == result.last_loss


def test_the_unet_comes_back_bit_equal(tmp_path, trained):
    result, _, _ = trained
    once = UNet3DConditionModel.from_pretrained(result.out, subfolder="unet")
    once.save_pretrained(tmp_path)
    twice = UNet3DConditionModel.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(value, twice[key]) for key, value in once.state_dict().items())


def test_the_sample_is_a_playable_video_and_a_sheet(trained):
    result, _, _ = trained
    with av.open(str(result.sample)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 4
    assert frames[0].shape[1] >= 384
    sheet = np.asarray(Image.open(result.out / "sample.png"))
    assert sheet.shape == (2 * 2 * 28, 2 * 4 * 36, 3)
    real = sheet[56 : 56 + 48, : 32 * 2]  # the first real frame: it shows a square of its colour
    colour = COLOURS[json.loads((result.out / "train.json").read_text())["sample"]["prompt"].split()[1]]
    assert (np.abs(real.astype(int) - colour).sum(-1) < 60).sum() > 100


@pytest.mark.slow  # test_resume.py compares trainings to the bit
def test_the_same_seed_gives_the_same_training(trained, tmp_path):
    result, _, shards = trained
    again = train("tiny", shards, tmp_path / "again", SMALL, lambda line: None)
    assert (again.first_loss, again.last_loss) == (result.first_loss, result.last_loss)


def test_a_foreign_folder_is_kept_and_a_training_is_resumed(trained, tmp_path):
    _, _, shards = trained
    foreign = tmp_path / "mine"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("years of work")
    with pytest.raises(TrainError, match="was not written by a training"):
        train("tiny", shards, foreign, SMALL, lambda line: None, restart=True)
    assert (foreign / "thesis.txt").read_text() == "years of work"

    quick = {**SMALL, "steps": "1", "vae_fit_steps": "0", "sample_steps": "1"}
    ours, lines = tmp_path / "ours", []
    result = train("tiny", shards, ours, quick, lines.append)
    # One step of two clips reaches two of eight; the others are named, not silently left out.
    assert result.n_clips_used == 2
    assert sum(reason.startswith("not reached in 1 steps") for reason in result.left_out.values()) == 6
    assert [path.name for path in ours.iterdir() if path.name.startswith(".")] == []

    again = train("tiny", shards, ours, {**quick, "threads": "2", "sample_steps": "2"}, lines.append)
    assert lines[-1] == f"{ours} holds this training, finished; --restart trains again from step 0"
    assert again == result
    with pytest.raises(
        TrainError,
        match=r"holds another training \(recipe\.lr: 0\.002 -> 0\.001; recipe\.steps: 1 -> 3\); --restart starts from step 0",
    ):
        train("tiny", shards, ours, {**quick, "steps": "3", "lr": "1e-3"}, lines.append)
    longer = train("tiny", shards, ours, {**quick, "steps": "3", "lr": "1e-3"}, lines.append, allow_changes=True)
    assert any(line.startswith("resuming at step 1 ") for line in lines)
    losses = json.loads((longer.out / "train.json").read_text())["losses"]["per_step"]
    assert len(losses) == 3
    restarted = train("tiny", shards, ours, quick, lines.append, restart=True)
    assert (restarted.first_loss, restarted.last_loss) == (result.first_loss, result.last_loss)


def test_wrong_calls_fail_before_anything_is_written(tmp_path):
    with pytest.raises(RecipeError, match="no recipe"):
        train("nope", tmp_path, tmp_path / "out")
    with pytest.raises(TrainError, match=r"no index\.json"):
        train("tiny", tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_learning_rate_warms_up_and_comes_down():
    stage = load_recipe("tiny", {"steps": "100", "lr_warmup_steps": "10"})
    assert lr_factor(0, stage) == pytest.approx(0.1)
    assert lr_factor(10, stage) == pytest.approx(1.0)
    assert lr_factor(99, stage) == pytest.approx(0.1)
    assert lr_factor(99, replace(stage, lr_decay="constant")) == 1.0


def test_the_tokenizer_is_clips():
    assert clip_tokenizer()("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]


def test_the_vae_starts_as_a_picture_pyramid():
    """Before any fit, decoding what was encoded is the frame averaged over 4 x 4 pixels, within 2 %."""
    vae = build_base(load_recipe("tiny")).vae
    frames = torch.from_numpy(square_frames((220, 30, 30), 4, 80, 48)).permute(0, 3, 1, 2).float() / 127.5 - 1
    coarse = torch.nn.functional.avg_pool2d(frames, 4)
    with torch.no_grad():
        latents = vae.encode(frames).latent_dist.mean
    assert (latents[:, :3] - coarse).abs().max() < 0.04
    blocky = torch.nn.functional.interpolate(coarse, scale_factor=4)
    assert abs(reconstruction_error(vae, frames) - (blocky - frames).abs().mean().item()) < 0.02


def test_importing_the_package_is_light():
    root = Path(__file__).parents[2]
    heavy = "{'torch', 'diffusers', 'ray', 'curate'}"
    code = f"import sys, train_hooks, train_hooks.recipe; print(sorted({heavy} & set(sys.modules)))"
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True).stdout
        == "[]\n"
    )
