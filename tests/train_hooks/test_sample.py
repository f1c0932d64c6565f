"""`rushes sample` and the pictures it reads and writes."""

import subprocess
import sys

import av
import numpy as np
import pytest
import torch
from PIL import Image

from tests.project import environment
from tests.train_hooks.worlds import encode, square_frames, write_shards
from train_hooks.errors import RecipeError, TrainError
from train_hooks.pictures import read_picture, read_video, write_video
from train_hooks.sample import sample_to
from train_hooks.train import train

SMALL = {
    "frames": "4", "width_px": "32", "height_px": "32", "unet_channels": "16,32", "text_width": "32", "vae_fit_steps": "0", "steps": "2",
    "batch": "1", "sample_steps": "2", "threads": "1", "heldout_share": "0", "prediction": "epsilon",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(square_rows, tmp_path_factory):
    here = tmp_path_factory.mktemp("sample")
    return train("tiny", write_shards(here / "shards", square_rows[:2]), here / "out", SMALL, lambda line: None).out


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "given.mp4"
    path.write_bytes(encode(square_frames((220, 30, 30), 6)))
    return path


def test_the_command_writes_a_video_and_prints_its_path(folder, tmp_path):
    out = tmp_path / "s.mp4"
    done = subprocess.run(
        [sys.executable, "-c", "from curate.cli import main; main()", "sample", str(folder), "--prompt", "a", "--out", str(out)],
        capture_output=True, text=True, env=environment(), check=True,
    )  # fmt: skip
    assert done.stdout == f"sample: {out}\n"
    assert done.stderr == ""
    with av.open(str(out)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 4


@pytest.mark.parametrize("ending", ["gif", "png", "mp4"])
def test_every_ending_and_changed_values(folder, tmp_path, ending):
    out = tmp_path / f"s.{ending}"
    sample_to(folder, out, {"frames": 3, "width_px": 48, "fps": 5.0, "sampler": "dpm++", "guidance": 3.0}, "a")
    if ending == "gif":
        with Image.open(out) as picture:
            assert picture.n_frames == 3
            assert picture.info["duration"] == 200
    elif ending == "png":
        assert np.asarray(Image.open(out)).shape == (2 * 36, 3 * 2 * 52, 3)


def test_a_second_pass_keeps_more_of_the_video_the_weaker_it_is(folder, tmp_path, video):
    """ZeroScope XL's use: noised to a strength and denoised from there."""
    given = read_video(video, 4, 32, 32)
    seen = []
    for strength in (0.1, 1.0):
        out = tmp_path / f"{strength}.mp4"
        sample_to(folder, out, {"sample_steps": 10, "guidance": 1.0}, video=video, strength=strength)
        seen.append(float((read_video(out, 4, 32, 32) - given).abs().mean()))
    assert seen[0] < 0.5 * seen[1]


@pytest.mark.parametrize(
    ("how", "error", "says"),
    [
        pytest.param({"changes": {"sampler": "nope"}}, RecipeError, "sampler must be one of ddim", id="sampler"),
        pytest.param({"changes": {"width_px": 30}}, RecipeError, "must be a multiple", id="width"),
        pytest.param({"changes": {"sample_steps": 0}}, RecipeError, "sample_steps must be above 0", id="steps"),
        pytest.param({"strength": 0.0}, RecipeError, "strength must be above 0 and at most 1", id="strength"),
        pytest.param({"motion_bucket": 256}, RecipeError, "motion bucket must be 0 to 255", id="bucket"),
        pytest.param({"image": "no.png"}, TrainError, r"no\.png cannot be read as a picture", id="no picture"),
        pytest.param({"video": "no.mp4"}, TrainError, r"no\.mp4 cannot be read as a video", id="no video"),
        pytest.param({"changes": {"frames": 9}, "video": "given.mp4"}, TrainError, "has 6 frames, and 9 are needed", id="short"),
        pytest.param({"out": "s.avi"}, TrainError, "written as .mp4, .gif or .png", id="ending"),
        pytest.param({"out": "none/s.mp4"}, TrainError, "cannot be written", id="no folder"),
    ],
)  # fmt: skip
def test_what_cannot_be_sampled_is_one_sentence(folder, tmp_path, video, how, error, says):
    how = {"changes": {}, "out": "s.mp4", **how}
    paths = {key: tmp_path / how[key] for key in ("out", "image", "video") if key in how}
    with pytest.raises(error, match=says) as caught:
        sample_to(folder, **{**how, **paths})
    assert "\n" not in str(caught.value)


def test_pictures_are_read_at_the_size_asked_for(tmp_path):
    Image.new("RGB", (60, 20), (255, 0, 0)).save(tmp_path / "a.png")
    picture = read_picture(tmp_path / "a.png", 32, 32)
    assert picture.shape == (3, 32, 32)
    assert picture[0].min() > 0.99
    assert picture[1].max() < -0.99
    write_video(torch.zeros(2, 3, 8, 8), 4, tmp_path / "b.png")
    (tmp_path / "c.png").write_bytes(b"no")
    with pytest.raises(TrainError, match="cannot be read as a picture"):
        read_picture(tmp_path / "c.png", 8, 8)
