"""Inflation as identities: training.md, section 6, tests 1 to 6 and 28."""

import pytest
import torch
from diffusers import UNet2DConditionModel, UNet3DConditionModel, UNetSpatioTemporalConditionModel
from torch.utils.flop_counter import FlopCounterMode

from tests.train_hooks.unets import STYLES, image_unet, sd1_unet, svd_base, video_unet
from train_hooks import inflate as under_test
from train_hooks.errors import TrainError
from train_hooks.inflate import (
    copy_spatial,
    identity_error,
    image_eps,
    inflate,
    spatiotemporal_unet_like,
    video_unet_like,
    zero_temporal_outputs,
)
from train_hooks.net import load_unet
from train_hooks.trainable import is_temporal
from train_hooks.video_unet import VideoUNet


@pytest.mark.parametrize(("frames", "bound"), [(1, 1e-6), (4, 5e-6)])
@pytest.mark.parametrize("base", [image_unet, sd1_unet], ids=["sd2", "sd1"])
@pytest.mark.parametrize("kind", ["unet3d", *STYLES])
def test_step_0_equals_the_image_model_frame_by_frame(kind, base, frames, bound):
    """Test 1, in the mode it is in and with dropout on."""
    image = base()
    video = video_unet(kind, image)
    assert identity_error(image, video, frames) <= bound


def test_step_0_equals_the_image_model_in_training_too():
    """Dropout comes before layers that are zero."""
    image, x = image_unet().eval(), torch.randn(2, 4, 3, 8, 12)
    video = video_unet("unet3d", image).train()
    text, t = torch.randn(2, 8, 32), torch.tensor([20, 700])
    frames = torch.stack([image(x[:, :, i], t, text).sample for i in range(3)], dim=2)
    assert (video(x, t, text).sample - frames).abs().max() <= 5e-6


@pytest.mark.parametrize("kind", ["unet3d", *STYLES])
def test_step_0_identity_in_double_precision(kind):
    image = image_unet()
    video = video_unet(kind, image)
    assert identity_error(image.double(), video.double(), frames=4) <= 1e-12


def test_without_zeroing_the_identity_fails_and_training_would_stop(monkeypatch):
    """Test 2."""
    image = image_unet()
    video = video_unet_like(image)
    copy_spatial(image, video)
    assert identity_error(image, video, frames=4) > 1e-2
    monkeypatch.setattr(under_test, "zero_temporal_outputs", lambda unet: None)
    with pytest.raises(TrainError, match="does not equal the image UNet at step 0"):
        inflate(image)


@pytest.mark.parametrize("image_condition", [False, True])
def test_svd_equals_the_image_model_but_for_its_epsilon(image_condition):
    """Test 3: with SD's group norm epsilon exactly; with SVD's own, in which it is saved, by about 1e-4."""
    image = svd_base()
    video, report, error = inflate(image, lambda unet: spatiotemporal_unet_like(unet, image_condition))
    assert error <= 5e-6
    assert len(report.matched) == len(image.state_dict())
    with image_eps(video):
        assert identity_error(image, video, 1) <= 5e-6
    assert 1e-5 < identity_error(image, video, 4) < 1e-3
    assert video.conv_in.weight.shape[1] == (8 if image_condition else 4)


@pytest.mark.parametrize("kind", ["unet3d", "svd", *STYLES])
def test_every_key_of_the_image_model_is_copied_and_every_new_one_is_temporal(kind):
    """Test 4."""
    image = svd_base() if kind == "svd" else image_unet()
    make = {"unet3d": video_unet_like, "svd": lambda unet: spatiotemporal_unet_like(unet, False)}
    video, report, _ = inflate(image, make.get(kind, lambda unet: VideoUNet.like(unet, STYLES[kind])))
    assert len(report.matched) == len(image.state_dict())
    assert report.unexpected == ()
    assert report.new
    assert all(is_temporal(key) for key in report.new)
    n_new = sum(p.numel() for k, p in video.named_parameters() if is_temporal(k))
    n_image = sum(p.numel() for p in image.parameters())
    assert sum(p.numel() for p in video.parameters()) == n_new + n_image


def test_every_temporal_transformer_is_zeroed():
    video = video_unet_like(image_unet())
    names = [
        name for name, _ in video.named_parameters() if name.endswith("proj_out.weight") and "temp_attentions" in name
    ]
    assert zero_temporal_outputs(video) == len(names) + 1  # and transformer_in


def test_gradients_reach_the_zeroed_outputs_first_and_all_temporal_layers_by_the_third_step():
    """Test 6."""
    video = video_unet("unet3d").train()
    x, t, text = torch.randn(1, 4, 3, 8, 12), torch.tensor([400]), torch.randn(1, 8, 32)
    optimizer = torch.optim.AdamW(video.parameters(), lr=1e-3)
    temporal = {key: p for key, p in video.named_parameters() if is_temporal(key)}
    reached = []
    for _ in range(3):
        optimizer.zero_grad()
        (video(x, t, text).sample - 1).square().mean().backward()
        reached.append({key for key, p in temporal.items() if p.grad is not None and p.grad.any()})
        optimizer.step()
    last = {key for key in temporal if key.endswith(("proj_out.weight", "proj_out.bias")) or ".conv4." in key}
    assert reached[0] <= last
    assert len(reached[0]) < 0.2 * len(temporal)
    # A key's bias moves nothing: softmax does not see what all keys share.
    assert reached[2] == set(temporal), set(temporal) - reached[2]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        pytest.param(lambda: inflate(image_unet(attention_head_dim=(4, 2))), "neither SD 1.x nor SD 2.x", id="heads"),
        pytest.param(
            lambda: inflate(sd1_unet(), lambda u: spatiotemporal_unet_like(u, False)), "Stable Diffusion 1", id="svd on sd1"
        ),
        pytest.param(
            lambda: inflate(image_unet(), lambda u: spatiotemporal_unet_like(u, False)), "normalise 32 groups", id="groups"
        ),
        pytest.param(
            lambda: inflate(image_unet(), lambda u: video_unet_like(image_unet(cross_attention_dim=64))),
            "does not fit the video UNet: .*attn2.to_k.weight", id="text width",
        ),
        pytest.param(
            lambda: inflate(image_unet(layers_per_block=2), lambda u: video_unet_like(image_unet())),
            "does not fit the video UNet: up_blocks.0.resnets.1", id="layers",
        ),
    ],
)  # fmt: skip
def test_another_kind_of_base_is_refused(make, says):
    with pytest.raises(TrainError, match=says) as caught:
        make()
    assert "\n" not in str(caught.value)


def full_size():
    return UNet2DConditionModel(
        sample_size=96, cross_attention_dim=1024, attention_head_dim=(5, 10, 20, 20), use_linear_projection=True
    )


def test_sizes_of_the_full_models():
    """865.9 M spatial and 545.3 M temporal parameters for ModelScope, 1,521,987,562 for SVD (recipes.md), on the meta device."""
    with torch.device("meta"):
        image = full_size()
        video = video_unet_like(image)
        svd = spatiotemporal_unet_like(image, image_condition=False)
    n_image, n_video, n_svd = (sum(p.numel() for p in unet.parameters()) for unet in (image, video, svd))
    assert (n_image, n_video - n_image) == (865_910_724, 545_323_136)
    # The paper's count of new layers leaves out the embedding of fps and motion.
    assert n_svd - sum(p.numel() for p in svd.add_embedding.parameters()) == 1_521_987_562


def test_the_full_model_costs_what_it_should():
    """Test 28: 14.60 TFLOP a sample of 256x256x16, forwards and back, on the meta device."""
    with torch.device("meta"):
        video = video_unet_like(full_size())
        x, t, text = torch.randn(1, 4, 16, 32, 32), torch.zeros(1), torch.randn(1, 77, 1024)
    with FlopCounterMode(display=False) as counter:
        video(x, t, text).sample.sum().backward()
    assert counter.get_total_flops() / 1e12 == pytest.approx(14.60, rel=0.005)


@pytest.mark.parametrize("kind", ["unet3d", "svd", "sd1", *STYLES])
def test_a_saved_unet_comes_back_bit_equal(kind, tmp_path):
    video = video_unet("unet3d", sd1_unet()) if kind == "sd1" else video_unet(kind)
    video.save_pretrained(tmp_path)
    again = load_unet(tmp_path)
    assert type(again) is type(video)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in video.state_dict().items())
    if kind in ("unet3d", "svd"):  # with stock diffusers too
        stock = {"unet3d": UNet3DConditionModel, "svd": UNetSpatioTemporalConditionModel}[kind].from_pretrained(
            tmp_path
        )
        assert all(torch.equal(value, stock.state_dict()[key]) for key, value in video.state_dict().items())
