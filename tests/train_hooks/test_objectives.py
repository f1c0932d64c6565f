"""Objectives as identities: training.md, section 6, tests 12 to 16, and what was there before."""

import math
from dataclasses import replace

import pytest
import torch

from train_hooks.objectives import (
    draw_levels,
    draw_noise,
    drop_captions,
    edm,
    log_sigma,
    min_snr_weight,
    noised,
    preconditioning,
    schedule,
    signal_scale,
    snr,
)
from train_hooks.recipe_files import load_recipe
from train_hooks.rng import Rng
from train_hooks.sample import sampler

TINY = load_recipe("tiny")


def rng_of(n, seed=0):
    return Rng(seed, 0, range(n))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_the_target_is_what_the_sampler_needs_to_recover_the_clean_latents(prediction):
    recipe = replace(TINY, prediction=prediction, timestep_power=1.0)
    plan = schedule(recipe)
    plan.set_timesteps(10)
    latents, noise = torch.randn(1, 4, 3, 2, 2), torch.randn(1, 4, 3, 2, 2)
    draw = noised(recipe, plan, latents, noise, torch.tensor([0.7015]))
    assert draw.time_B.item() == 701
    recovered = plan.step(draw.target_BCTHW, 701, draw.input_BCTHW).pred_original_sample
    assert (recovered - latents).abs().max() < 1e-5


def test_the_loss_is_the_mean_square_per_clip_and_frame():
    recipe = replace(TINY, prediction="epsilon")
    noise = torch.stack([torch.full((4, 2, 2, 2), 1.0), torch.full((4, 2, 2, 2), 3.0)])
    draw = noised(recipe, schedule(recipe), torch.zeros_like(noise), noise, torch.tensor([0.1, 0.9]))
    assert draw.loss(torch.zeros_like(noise)).tolist() == [[1.0, 1.0], [9.0, 9.0]]


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_timesteps_follow_the_power_law(power):
    recipe = replace(TINY, timestep_power=power)
    zeros = torch.zeros(20000, 1, 1, 1, 1)
    t = noised(recipe, schedule(recipe), zeros, zeros, draw_levels(rng_of(20000))).time_B
    assert 0 <= t.min() <= t.max() <= 999
    assert t.float().mean().item() == pytest.approx(1000 / (power + 1), rel=0.02)


def test_caption_dropout_drops_its_share_and_repeats_by_seed():
    captions = [str(i) for i in range(4000)]
    kept = drop_captions(captions, 0.1, rng_of(len(captions), 5))
    assert 0.08 < kept.count("") / 4000 < 0.12
    assert all(a in ("", b) for a, b in zip(kept, captions, strict=True))
    assert kept == drop_captions(captions, 0.1, rng_of(len(captions), 5))
    assert drop_captions(captions, 0.0, rng_of(len(captions), 5)) == captions


def test_offset_noise_is_the_same_for_all_frames_of_a_clip():
    """Test 12: variance 1 + s^2; of a clip's mean s^2 + 1/(THW); correlation of frames' means s^2 / (s^2 + 1/HW); within 3 %."""
    s, t, h, w = 0.5, 4, 8, 8
    noise = draw_noise((4000, 4, t, h, w), s, rng_of(4000))
    assert noise.var().item() == pytest.approx(1 + s**2, rel=0.03)
    assert noise.mean(dim=(2, 3, 4)).var().item() == pytest.approx(s**2 + 1 / (t * h * w), rel=0.03)
    frames = noise.mean(dim=(3, 4)).flatten(0, 1)
    assert torch.corrcoef(frames.T)[0, 1].item() == pytest.approx(s**2 / (s**2 + 1 / (h * w)), rel=0.03)
    assert torch.equal(draw_noise((2, 4, 1, 2, 2), 0.0, rng_of(2)), rng_of(2).normal(4, 1, 2, 2))


def test_zero_terminal_snr_changes_the_schedule_itself():
    """Test 13: the last of alphas_cumprod is zero, so nothing but noise is seen there, and the trained schedule is the sampled one."""
    recipe = replace(TINY, prediction="v_prediction", zero_terminal_snr=True, timestep_power=1.0)
    plan, plain = schedule(recipe), schedule(replace(recipe, zero_terminal_snr=False))
    assert plan.alphas_cumprod[-1] == 0.0
    assert plain.alphas_cumprod[-1] > 0.004
    assert plan.alphas_cumprod[0] == pytest.approx(plain.alphas_cumprod[0])
    noise = torch.randn(1, 4, 1, 2, 2)
    assert torch.equal(noised(recipe, plan, torch.randn_like(noise), noise, torch.tensor([0.9999])).input_BCTHW, noise)
    assert torch.equal(sampler(recipe).alphas_cumprod, plan.alphas_cumprod)


@pytest.mark.parametrize("gamma", [1.0, 5.0])
def test_min_snr_weighs_the_error_of_the_clean_latents(gamma):
    """Test 14: w_eps snr = w_v (snr + 1) = w_x0 = min(snr, gamma)."""
    plan = schedule(TINY)
    snr_B = snr(plan, torch.arange(0, 1000, 37)).double()
    wanted = snr_B.clamp(max=gamma)
    for prediction, times in (("epsilon", snr_B), ("v_prediction", snr_B + 1), ("sample", torch.ones_like(snr_B))):
        got = min_snr_weight(snr_B, gamma, prediction) * times
        assert ((got - wanted) / wanted).abs().max() < 1e-6
    recipe = replace(TINY, min_snr_gamma=gamma)
    draw = noised(recipe, plan, torch.zeros(1, 1, 1, 1, 1), torch.zeros(1, 1, 1, 1, 1), torch.tensor([0.25]))
    assert draw.weight_B.item() == pytest.approx(min(gamma, snr(plan, draw.time_B).item()))


def test_edm_has_unit_input_and_target_and_a_weight_of_one():
    """Test 15."""
    sigma = torch.exp(torch.linspace(-6, 6, 25, dtype=torch.float64))
    c_skip, c_out, c_in, c_noise = preconditioning(sigma)
    assert ((1 + sigma**2) / sigma**2 * c_out**2 - 1).abs().max() < 1e-12
    assert torch.equal(c_noise, torch.log(sigma) / 4)
    assert (c_skip - 1 / (sigma**2 + 1)).abs().max() < 1e-15
    assert (c_in**2 * (1 + sigma**2) - 1).abs().max() < 1e-12
    x0 = torch.randn(25, 4, 8, 16, 16, dtype=torch.float64, generator=seeded(1))
    noise = torch.randn(25, 4, 8, 16, 16, dtype=torch.float64, generator=seeded(2))
    draw = edm(x0, noise, sigma, sigma)
    root = torch.sqrt(1 + sigma**2)[:, None, None, None, None]
    v = (noise - sigma[:, None, None, None, None] * x0) / root
    assert (draw.target_BCTHW - v).abs().max() < 1e-12
    assert draw.input_BCTHW.std().item() == pytest.approx(1, rel=0.02)
    assert draw.target_BCTHW.std().item() == pytest.approx(1, rel=0.02)


@pytest.mark.parametrize(("mean", "std"), [(-1.2, 1.0), (0.7, 1.6)])
def test_log_sigma_is_normal(mean, std):
    """Test 15: the mean and deviation that a stage names."""
    for u in (draw_levels(rng_of(40000)), draw_levels(rng_of(40000), 40000)):
        values = log_sigma(u, mean, std)
        assert values.mean().item() == pytest.approx(mean, abs=0.02 * std)
        assert values.std().item() == pytest.approx(std, rel=0.02)


def test_edm_loss_is_the_weighted_error_of_the_denoiser():
    """Test 16: lambda |D - x0|^2 with D = c_skip x + c_out F is the plain error of F against the velocity."""
    x0, noise, answer = (torch.randn(6, 4, 3, 5, 5, dtype=torch.float64, generator=seeded(i)) for i in range(3))
    sigma = torch.exp(torch.randn(6, dtype=torch.float64, generator=seeded(4)))
    draw = edm(x0, noise, sigma, sigma)
    c_skip, c_out, _, _ = (c[:, None, None, None, None] for c in preconditioning(sigma))
    s = sigma[:, None, None, None, None]
    denoised = c_skip * (x0 + s * noise) + c_out * answer
    wanted = ((1 + s**2) / s**2 * (denoised - x0).square()).mean(dim=(1, 3, 4))
    assert (draw.loss(answer) - wanted).abs().max() < 1e-5 * wanted.max()


def test_signal_scale_falls_over_400_timesteps():
    t = torch.tensor([0, 200, 400, 999])
    assert signal_scale(t, 0.7).tolist() == pytest.approx([1.0, 0.85, 0.7, 0.7])
    assert signal_scale(t, 1.0).tolist() == [1.0] * 4


@pytest.mark.parametrize("world", [1, 2, 4])
def test_stratified_levels_take_one_from_each_part_over_all_ranks(world):
    n = 8 // world
    places = range(n * world)
    levels = torch.cat([draw_levels(Rng(0, 0, places[rank::world]), n * world) for rank in range(world)]).sort().values
    assert (levels * 8).long().tolist() == list(range(8))
    assert math.isclose(draw_levels(rng_of(20000), 20000).mean().item(), 0.5, abs_tol=1e-3)
