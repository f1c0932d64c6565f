"""What a training starts from: the parts of a folder, and what is wrong with one."""

import shutil
from dataclasses import replace

import pytest
import torch
from diffusers import AutoencoderKL

from train_hooks.base import check_size, folder_of, load_base, temporal_vae
from train_hooks.errors import TrainError
from train_hooks.recipe_files import load_recipe
from train_hooks.tiny_base import build_base, save_base

SMALL = {"width_px": "32", "height_px": "32"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A base for text and one for pictures."""
    made = {}
    for name in ("tiny", "tiny_svd_i2v"):
        made[name] = tmp_path_factory.mktemp("base") / name
        save_base(build_base(load_recipe(name, SMALL)), made[name])
    return made


@pytest.mark.parametrize("name", ["tiny", "tiny_svd_i2v"])
def test_a_base_is_read_as_it_was_built(folders, name):
    recipe = load_recipe(name, SMALL)
    built, read = build_base(recipe), load_base(folders[name], recipe)
    for part in ("unet", "vae", "text_encoder", "image_encoder"):
        a, b = getattr(built, part), getattr(read, part)
        assert (a is None) == (b is None)
        if a is not None:
            weights = a.state_dict()
            if part == "vae" and name == "tiny_svd_i2v":  # its decoder has become SVD's
                weights = {key: value for key, value in weights.items() if key.startswith("encoder.")}
            assert all(torch.equal(value, b.state_dict()[key]) for key, value in weights.items())
            assert part == "unet" or not any(p.requires_grad for p in b.parameters())


@pytest.mark.parametrize(
    ("name", "damage", "says"),
    [
        pytest.param("tiny", lambda f: shutil.rmtree(f / "text_encoder"), "it has no text_encoder/", id="no text encoder"),
        pytest.param(
            "tiny", lambda f: [shutil.rmtree(f / p) for p in ("unet", "tokenizer")], "no unet/ and no tokenizer/", id="two"
        ),
        pytest.param("tiny_svd_i2v", lambda f: shutil.rmtree(f / "image_encoder"), "it has no image_encoder/", id="no eyes"),
        pytest.param("tiny", lambda f: (f / "vae" / "config.json").write_text("{"), "vae cannot be read", id="broken json"),
        pytest.param(
            "tiny", lambda f: (f / "unet" / "config.json").write_text('{"_class_name": "Flux"}'), "holds a Flux; known are", id="class"
        ),
        pytest.param(
            "tiny", lambda f: next((f / "vae").glob("*.safetensors")).write_bytes(b"no"), "vae cannot be read", id="weights"
        ),
        pytest.param(
            "tiny",
            lambda f: save_base(build_base(load_recipe("tiny", {**SMALL, "text_width": "32"})), f / "x")
            or shutil.rmtree(f / "text_encoder") or shutil.copytree(f / "x" / "text_encoder", f / "text_encoder"),
            "text_encoder gives states of 32 numbers, and its unet reads 64", id="width",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_base_is_one_sentence(folders, tmp_path, name, damage, says):
    folder = tmp_path / "base"
    shutil.copytree(folders[name], folder)
    damage(folder)
    with pytest.raises(TrainError, match=says) as caught:
        load_base(folder, load_recipe(name, SMALL))
    assert "\n" not in str(caught.value)


def test_a_size_that_the_vae_cannot_encode_is_refused(folders):
    recipe = load_recipe("tiny", {**SMALL, "base": "x"})
    base = load_base(folders["tiny"], recipe)
    check_size(base.vae, recipe)
    with pytest.raises(TrainError, match="frames of 34 x 32 px do not fit this VAE, whose latents are 4 times smaller"):
        check_size(base.vae, replace(recipe, width_px=34))


def test_a_missing_base_is_refused(monkeypatch):
    with pytest.raises(TrainError, match=r"there is no folder \./nope"):
        folder_of("./nope")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import huggingface_hub

    def missing(*_, **__):
        raise huggingface_hub.errors.LocalEntryNotFoundError("not here\nand not there")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", missing)
    with pytest.raises(
        TrainError, match=r"'nobody/nothing' is no folder here and cannot be fetched from the hub: not here$"
    ):
        folder_of("nobody/nothing")


def test_svds_vae_decodes_as_the_image_vae_does():
    """Its temporal layers do nothing yet, and the convolution that it lacks is folded into the next."""
    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(32, 32), layers_per_block=2, down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=32, sample_size=16,
    ).eval()  # fmt: skip
    video = temporal_vae(vae)
    frames, latents = torch.randn(3, 3, 16, 16), torch.randn(3, 4, 8, 8)
    with torch.no_grad():
        assert torch.equal(vae.encode(frames).latent_dist.mean, video.encode(frames).latent_dist.mean)
        # The padding of the folded convolution lacks the bias, so it differs at the border and nowhere else.
        wanted, got = vae.decoder.conv_in(vae.post_quant_conv(latents)), video.decoder.conv_in(latents)
        assert (got - wanted)[:, :, 1:-1, 1:-1].abs().max() < 1e-5
        torch.nn.init.zeros_(vae.post_quant_conv.bias)
        exact = temporal_vae(vae).decode(latents, num_frames=3).sample
        assert (exact - vae.decode(latents).sample).abs().max() < 1e-5
    assert temporal_vae(video) is video
    with pytest.raises(TrainError, match="normalises 32 groups, and this one 8"):
        temporal_vae(AutoencoderKL(block_out_channels=(32,), norm_num_groups=8))
