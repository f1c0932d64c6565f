import pytest
import torch
from diffusers import DDIMScheduler

from train_hooks.objectives import draw_timesteps, drop_captions, loss_per_clip, noised, target


def scheduler(prediction):
    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=prediction, clip_sample=False
    )


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_the_target_is_what_the_sampler_needs_to_recover_the_clean_latents(prediction):
    plan = scheduler(prediction)
    plan.set_timesteps(10)
    latents, noise = torch.randn(1, 4, 3, 2, 2), torch.randn(1, 4, 3, 2, 2)
    t = torch.tensor([701])
    x_t = noised(plan, latents, noise, t)
    recovered = plan.step(target(plan, latents, noise, t), 701, x_t).pred_original_sample
    assert (recovered - latents).abs().max() < 1e-5


def test_loss_is_the_mean_square_per_clip():
    plan = scheduler("epsilon")

    class Zero(torch.nn.Module):
        def forward(self, x, t, text):
            return type("Answer", (), {"sample": torch.zeros_like(x)})

    noise = torch.stack([torch.full((4, 2, 2, 2), 1.0), torch.full((4, 2, 2, 2), 3.0)])
    loss = loss_per_clip(Zero(), plan, torch.zeros_like(noise), None, noise, torch.tensor([10, 900]))
    assert loss.tolist() == [1.0, 9.0]


def test_caption_dropout_drops_its_share_and_repeats_by_seed():
    captions = [str(i) for i in range(4000)]
    kept = drop_captions(captions, 0.1, torch.Generator().manual_seed(5))
    assert 0.08 < kept.count("") / 4000 < 0.12
    assert all(a in ("", b) for a, b in zip(kept, captions, strict=True))
    assert kept == drop_captions(captions, 0.1, torch.Generator().manual_seed(5))
    assert drop_captions(captions, 0.0, torch.Generator().manual_seed(5)) == captions


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_timesteps_follow_the_power_law(power):
    t = draw_timesteps(20000, 1000, power, torch.Generator().manual_seed(0))
    assert 0 <= t.min() <= t.max() <= 999
    assert t.float().mean().item() == pytest.approx(1000 / (power + 1), rel=0.02)
