import pytest
import torch
from diffusers import UNet2DConditionModel

from train_hooks import inflate as under_test
from train_hooks.errors import TrainError
from train_hooks.inflate import copy_spatial, identity_error, inflate, video_unet_like, zero_temporal_outputs


def image_unet(**changes):
    torch.manual_seed(3)
    sizes = {
        "sample_size": (8, 12), "block_out_channels": (32, 64), "layers_per_block": 1, "norm_num_groups": 8,
        "cross_attention_dim": 32, "attention_head_dim": (2, 4), "use_linear_projection": True,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }  # fmt: skip
    return UNet2DConditionModel(**(sizes | changes))


@pytest.mark.parametrize(("frames", "bound"), [(1, 1e-6), (4, 5e-6)])
def test_step_0_equals_the_image_model_frame_by_frame(frames, bound):
    image = image_unet()
    video, _, _ = inflate(image)
    assert identity_error(image, video, frames) <= bound


def test_step_0_identity_in_double_precision():
    image = image_unet()
    video, _, _ = inflate(image)
    assert identity_error(image.double(), video.double(), frames=4) <= 1e-12


def test_without_zeroing_the_identity_fails_and_training_would_stop(monkeypatch):
    image = image_unet()
    video = video_unet_like(image)
    copy_spatial(image, video)
    assert identity_error(image, video, frames=4) > 1e-2
    monkeypatch.setattr(under_test, "zero_temporal_outputs", lambda unet: 0)
    with pytest.raises(TrainError, match="does not equal the image UNet at step 0"):
        inflate(image)


def test_key_report_copies_every_image_key_and_adds_only_temporal_ones():
    image = image_unet()
    video, report, _ = inflate(image)
    assert set(report.matched) == set(image.state_dict())
    assert report.unexpected == ()
    assert set(report.matched) | set(report.new) == set(video.state_dict())
    assert report.new
    assert all("temp_" in key or key.startswith("transformer_in.") for key in report.new)


def test_every_temporal_transformer_is_zeroed():
    video = video_unet_like(image_unet())
    names = [
        name for name, _ in video.named_parameters() if name.endswith("proj_out.weight") and "temp_attentions" in name
    ]
    assert zero_temporal_outputs(video) == len(names) + 1  # and transformer_in


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        pytest.param({"use_linear_projection": False}, "Stable Diffusion 1", id="SD 1 projections"),
        pytest.param({"attention_head_dim": (4, 4)}, "different widths", id="head widths"),
    ],
)
def test_another_kind_of_base_is_refused(changes, says):
    with pytest.raises(TrainError, match=says):
        inflate(image_unet(**changes))


def test_sizes_of_the_full_model():
    """865.9 M spatial and 545.3 M temporal parameters (recipes.md, section 2), on the meta device."""
    with torch.device("meta"):
        image = UNet2DConditionModel(
            sample_size=96, cross_attention_dim=1024, attention_head_dim=(5, 10, 20, 20), use_linear_projection=True
        )
        video = video_unet_like(image)
    n_image = sum(p.numel() for p in image.parameters())
    n_video = sum(p.numel() for p in video.parameters())
    assert (n_image, n_video - n_image) == (865_910_724, 545_323_136)
