"""Latents made beforehand: the same as the VAE's, used where they fit and refused where they do not (test 25)."""

import json
import shutil

import numpy as np
import pytest
import torch

from tests.train_hooks.trainings import SMALL, run
from tests.train_hooks.worlds import clip_row, write_shards
from train_hooks import latents
from train_hooks.base import load_base
from train_hooks.conditioning import encode_moments, encode_text
from train_hooks.errors import TrainError
from train_hooks.feed import as_float
from train_hooks.latent_cache import LatentCache
from train_hooks.latent_making import clips_of, plan_latents
from train_hooks.latents import tiny_base
from train_hooks.prepare import prepare
from train_hooks.recipe_files import load_recipe
from train_hooks.rng import Rng
from train_hooks.stage_feed import feed_of

SETTINGS = {**SMALL, "heldout_share": "0.2", "steps": "4"}


@pytest.fixture(scope="module")
def shards(square_rows, tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("latents") / "shards", square_rows, rows_per_file=3)


def make(shards, settings=SETTINGS, recipe="tiny_modelscope", windows=2, text=True, root=None):
    plan = plan_latents(recipe, shards, settings, windows, root, text, lambda line: None)
    plan.job.setup()
    return plan, plan.finish([plan.job.work(unit) for unit in plan.units])


@pytest.fixture(scope="module")
def made(shards):
    return make(shards)


def test_latents_equal_the_output_of_the_vae(shards, made):
    """Test 25: mean and log-variance of every window within float16 of what the VAE says, and the text encoder's states too."""
    (_, ((folder, clips, windows, errors),)) = made
    assert (clips, windows, errors) == (8, 2, {})
    recipe = load_recipe("tiny_modelscope", SETTINGS)
    base = load_base(tiny_base(None, shards, recipe), recipe)
    feed, cache = feed_of(recipe, shards), LatentCache(folder)
    worst = 0.0
    for clip, size in [pair for name in {c.file for c in feed.train} for pair in clips_of(feed, name)]:
        for epoch in range(3):
            cached = cache.read(clip, epoch, with_logvar=True)
            frames, fps = feed.window(clip, epoch % 2, size)
            mean, logvar = encode_moments(base.vae, as_float(frames.transpose(0, 1)[None]))
            worst = max(worst, float((cached.moments.mean_cThw - mean[0]).abs().max() / mean.abs().max()))
            assert (cached.moments.logvar_cThw - logvar[0]).abs().max() < 2e-3 * logvar.abs().max()
            assert cached.fps == fps
        states = cache.text(clip.caption)
        assert (states - encode_text(base, [clip.caption])[0]).abs().max() < 2e-3
    assert worst < 1e-3
    assert cache.text("") is not None
    assert cache.text("no such caption") is None


def test_training_on_them_is_training_on_the_frames(shards, made):
    """The same clips, captions and windows; losses within float16."""
    recipe = load_recipe("tiny_modelscope", {**SETTINGS, "windows_per_clip": "2"})
    live = run(recipe, shards, shards.parent / "live", latents="off")
    cached = run(recipe, shards, shards.parent / "cached")
    assert any(line.startswith("latents: ") and "2 windows of each clip, with text" in line for line in cached.lines)
    assert cached.clips == live.clips
    assert cached.losses == pytest.approx(live.losses, rel=2e-3)
    assert cached.losses != live.losses


def test_what_is_there_is_not_made_again_and_what_is_missing_is(shards, made, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(shards.parent / "latents", copy / "latents")
    shutil.copytree(shards, copy / "shards")
    plan, _ = make(copy / "shards")
    assert plan.units == []
    (folder,) = [path for path in (copy / "latents").iterdir() if not path.name.startswith("base-")]
    (folder / "latents-shard-00001.parquet").unlink()
    assert not list(folder.glob(".part-*"))
    with pytest.raises(TrainError, match=r"names latents-shard-00001\.parquet, which is not there"):
        LatentCache(folder)
    plan, _ = make(copy / "shards")
    assert plan.units == [{"stage": 0, "shard": "shard-00001.parquet"}]
    plan, _ = make(copy / "shards", windows=1)
    assert len([unit for unit in plan.units if "shard" in unit]) == 3
    assert LatentCache(folder).windows == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param(
            {"vae_fit_steps": "1", "unet_channels": "16,32"}, r"vae_sha256: \w{12} -> \w{12}", marks=pytest.mark.slow
        ),
        ({"seed": "1"}, r"seed: 0 -> 1"),
        pytest.param({"fps": "6"}, r"fps: 4.0 -> 6.0", marks=pytest.mark.slow),
        pytest.param({"width_px": "32"}, r"sizes: \[\"16x16x3\"\] -> \[\"32x16x3\"\]", marks=pytest.mark.slow),
    ],
)
def test_latents_of_something_else_are_refused(shards, made, tmp_path, changes, reason):
    """With `--latents` they end the training; latents beside the shards are reported and not used."""
    recipe = load_recipe("tiny_modelscope", {**SETTINGS, **changes})
    with pytest.raises(TrainError, match=rf"the latents in .* are of something else: .*{reason}"):
        prepare(recipe, shards, tmp_path / "base", str(shards.parent / "latents"), lambda line: None)
    lines: list[str] = []
    ready = prepare(recipe, shards, tmp_path / "base", None, lines.append)
    assert ready.latents == [None]
    assert any("are not used, they are of something else" in line for line in lines)


def test_text_of_another_encoder_is_refused(shards, made, tmp_path):
    copy = tmp_path / "latents"
    shutil.copytree(shards.parent / "latents", copy)
    (claim,) = copy.glob("16x*/latents.json")
    claim.write_text(json.dumps({**json.loads(claim.read_text()), "text_encoder_sha256": "0" * 64}))
    recipe = load_recipe("tiny_modelscope", SETTINGS)
    with pytest.raises(TrainError, match="are of another text encoder"):
        prepare(recipe, shards, tmp_path / "base", str(copy), lambda line: None)
    with pytest.raises(TrainError, match=r"nothing holds no finished latents; `rushes latents` makes them"):
        prepare(recipe, shards, tmp_path / "base", str(tmp_path / "nothing"), lambda line: None)


def test_a_clip_that_cannot_be_decoded_has_none_and_is_left_out_with_its_reason(square_rows, tmp_path):
    rows = [*square_rows[:3], clip_row("broken", b"not a video", 24, "x")]
    shards = write_shards(tmp_path / "shards", rows)
    _, ((folder, clips, _, errors),) = make(shards, text=False)
    assert clips == 3
    assert list(errors) == ["broken"]
    ready = prepare(
        load_recipe("tiny_modelscope", SETTINGS), shards, None, folder.rpartition("/")[0], lambda line: None
    )
    assert "cannot be decoded" in ready.feed.left_out["broken"]
    assert not ready.feed.cache.has_text


def test_a_first_frame_comes_along_and_the_posterior_can_be_drawn_from(shards, tmp_path):
    settings = {
        "frames": "3",
        "threads": "1",
        "vae_fit_steps": "0",
        "width_px": "32",
        "height_px": "32",
        "heldout_share": "0",
    }
    make(shards, settings, "tiny_svd_i2v", root=str(tmp_path / "latents"), text=False)
    recipe = load_recipe("tiny_svd_i2v", {**settings, "sample_posterior": "true"})
    ready = prepare(recipe, shards, None, str(tmp_path / "latents"), lambda line: None)
    stage, feed = ready.plan[0], ready.feeds[0]
    loaded = feed.load(feed.chunk(0, [0, 1]))
    pixels, _ = feed.window(feed.train[loaded.chunk.clips[0][0]], 0, feed.sizes[0])
    assert torch.equal(loaded.samples[0].pixels_CTHW[:, 0], pixels[0])
    tools = ready.tools
    batches = [tools.encoder.batch(stage, loaded.samples, [], Rng(0, step, [0, 1])).latents_BCFhw for step in (0, 0, 1)]
    assert torch.equal(batches[0], batches[1])
    assert not torch.equal(batches[0], batches[2])
    moments = loaded.samples[0].latents
    mean = moments.mean_cThw.float() * ready.base.vae.config.scaling_factor
    deviation = np.exp(0.5 * moments.logvar_cThw.float().numpy()) * ready.base.vae.config.scaling_factor
    z = (batches[0][0] - mean).numpy() / deviation
    assert abs(z.mean()) < 0.1
    assert z.std() == pytest.approx(1.0, abs=0.1)


def test_training_works_on_a_storage_that_cannot_be_listed(shards, tmp_path, monkeypatch):
    def refused(root):
        raise PermissionError(13, "Access Denied")

    monkeypatch.setattr(latents, "_claims", refused)
    recipe = load_recipe("tiny_modelscope", SETTINGS)
    assert prepare(recipe, shards, tmp_path / "base", None, lambda line: None).latents == [None]
    with pytest.raises(TrainError, match=r"cannot be read: .*Access Denied"):
        prepare(recipe, shards, tmp_path / "base", str(tmp_path / "asked"), lambda line: None)


def test_more_windows_are_other_latents_to_a_training(shards, made, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(shards.parent / "latents", copy / "latents")
    shutil.copytree(shards, copy / "shards")
    recipe = load_recipe("tiny_modelscope", SETTINGS)
    two = prepare(recipe, copy / "shards", None, None, lambda line: None).latents
    make(copy / "shards", windows=1)
    one = prepare(recipe, copy / "shards", None, None, lambda line: None).latents
    assert two[0].endswith(", 2 windows, text")
    assert one[0] == two[0].replace("2 windows", "1 windows")
