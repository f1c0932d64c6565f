"""Every recipe on shards, at small size: it learns one batch, and what it leaves behind loads where it should (tests 17, 22 and 24)."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import StableVideoDiffusionPipeline, TextToVideoSDPipeline
from safetensors.torch import load_file

from tests.train_hooks.unets import stirred
from tests.train_hooks.worlds import write_shards
from train_hooks.conditioning import encode_image, encode_text, first_frame_latents
from train_hooks.errors import TrainError
from train_hooks.export_keys import as_lavie, as_videocrafter, from_videocrafter, videocrafter_keys
from train_hooks.net import Conditions, Net
from train_hooks.objectives import edm, noised, schedule, signal_scale
from train_hooks.recipe_files import load_recipe
from train_hooks.sample import Ask, denoise, open_folder, sample, sampler
from train_hooks.train import train
from train_hooks.trainable import load_lora

QUICK_ONE = "tiny_modelscope"
RECIPES = ["tiny_modelscope", "tiny_zeroscope_576w", "tiny_videocrafter", "tiny_lavie", "tiny_svd_t2v", "tiny_svd_i2v"]
SMALL = {
    "frames": "4", "width_px": "32", "height_px": "32", "vae_fit_steps": "0", "steps": "30", "overfit": "1", "sample_steps": "3",
    "threads": "1", "heldout_share": "0", "lr_decay": "constant", "lr": "3e-3", "caption_dropout": "0", "image_dropout": "0",
}  # fmt: skip


@pytest.fixture(scope="module")
def shards(square_rows, tmp_path_factory):
    rows = [
        {
            **row,
            "motion": float(i),
            "tagged_frames_vlm": [{"frame_index": 2 * i, "prompt": f"tag {i} {j}"} for j in range(3)],
        }
        for i, row in enumerate(square_rows)
    ]
    return write_shards(tmp_path_factory.mktemp("recipes") / "shards", rows)


@pytest.fixture(scope="module")
def trained(shards, tmp_path_factory):
    """Trains a recipe, once for all tests that look at it."""
    made = {}

    def of(name):
        if name not in made:
            out = tmp_path_factory.mktemp("trained") / name
            made[name] = train(name, shards, out, SMALL, lambda line: None, pickled=True)
        return made[name].out

    return of


@pytest.fixture(scope="module")
def finished(shards, tmp_path_factory):
    """A folder of a recipe trained for four steps, for tests of what is exported."""
    made = {}

    def of(name):
        if name not in made:
            out = tmp_path_factory.mktemp("finished") / name
            made[name] = train(name, shards, out, {**SMALL, "steps": "4"}, lambda line: None, pickled=True)
        return made[name].out

    return of


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n == QUICK_ONE else pytest.mark.slow) for n in RECIPES])
def test_it_learns_one_batch_and_can_be_sampled(trained, name):
    """Test 22: the loss of a batch that is shown again and again falls below 5 % of its start."""
    out = trained(name)
    record = json.loads((out / "train.json").read_text())
    losses = record["losses"]["per_step"]
    stages = load_recipe(name, SMALL).plan()
    assert len(losses) == 30
    end = stages[0].steps if name == "tiny_videocrafter" else 30  # its second stage sees pictures
    assert losses[end - 1] < 0.05 * losses[0], (losses[0], losses[end - 1])
    assert record["identity_error"] <= 5e-6
    assert len(record["clips"]["used"]) <= 2
    assert list((out / "unet").glob("*.safetensors"))
    assert (out / "sample.mp4").is_file()
    recipe, base, net = open_folder(out)
    ask = Ask(seed=3, first_frame_CHW=torch.zeros(3, 32, 32))
    frames = sample(recipe, base, net, ask)
    assert frames.shape == (4, 3, 32, 32)
    assert torch.equal(frames, sample(recipe, base, net, ask))
    assert not torch.equal(frames, sample(recipe, base, net, replace(ask, seed=4)))
    card = (out / "README.md").read_text()
    assert record["shards"]["index_sha256"] in card
    assert f"# {name}" in card
    assert "polyline" in (out / "loss.svg").read_text()


def test_the_pipeline_and_the_loop_agree(trained):
    """Test 24: one step of TextToVideoSDPipeline is one step of ours, exactly."""
    out = trained("tiny_modelscope")
    pipeline = TextToVideoSDPipeline.from_pretrained(out)
    pipeline.set_progress_bar_config(disable=True)
    recipe, base, net = open_folder(out)
    recipe = replace(recipe, sample_steps=1)
    theirs = pipeline(
        "a red square", height=32, width=32, num_frames=4, num_inference_steps=1, guidance_scale=recipe.guidance,
        generator=torch.Generator().manual_seed(5), output_type="latent",
    ).frames  # fmt: skip
    scheduler = sampler(recipe)
    scheduler.set_timesteps(1)
    noise = torch.randn(1, 4, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    text = encode_text(base, ["a red square", ""])
    fps, bucket = torch.tensor([4.0]), torch.tensor([127])
    conditions, unconditional = Conditions(text[:1], fps, bucket), Conditions(text[1:], fps, bucket)
    with torch.no_grad():
        ours = denoise(recipe, net, scheduler, scheduler.timesteps, noise, conditions, unconditional)
    # It runs both halves of the guidance as one batch, which rounds otherwise.
    assert (ours - theirs).abs().max() < 1e-6 * ours.abs().max()
    times = torch.tensor([700])
    with torch.no_grad():
        theirs, ours = pipeline.unet(noise, times, text[:1]).sample, net(noise, times, conditions)
    assert torch.equal(ours, theirs)


def test_svd_loads_in_its_pipeline_with_the_same_conditions(finished, monkeypatch):
    """Tests 18 and 24: StableVideoDiffusionPipeline(fps=4) hands the net what the training did."""
    out = finished("tiny_svd_i2v")
    pipeline = StableVideoDiffusionPipeline.from_pretrained(out)
    pipeline.set_progress_bar_config(disable=True)
    _, base, net = open_folder(out)
    seen = []
    plain = type(net.unet).forward

    def forward(self, sample, timestep, encoder_hidden_states, added_time_ids, **how):
        seen.append((sample, timestep, encoder_hidden_states, added_time_ids))
        return plain(self, sample, timestep, encoder_hidden_states, added_time_ids, **how)

    monkeypatch.setattr(type(net.unet), "forward", forward)
    picture = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    frames = pipeline(
        picture, height=32, width=32, num_frames=4, fps=4, motion_bucket_id=127, noise_aug_strength=0.0, num_inference_steps=1,
        generator=torch.Generator().manual_seed(1), output_type="np", min_guidance_scale=1.0, max_guidance_scale=1.0,
    ).frames  # fmt: skip
    assert np.asarray(frames).shape == (1, 4, 32, 32, 3)
    conditions = Conditions(
        encode_image(base, picture * 2 - 1), torch.tensor([4.0]), torch.tensor([127]),
        first_frame_latents(base.vae, picture * 2 - 1), torch.zeros(1),
    )  # fmt: skip
    with torch.no_grad():
        net(seen[0][0][:, :, :4].transpose(1, 2), seen[0][1][None], conditions)
    (theirs, _, embedding, ids), (ours, _, own_embedding, own_ids) = seen
    assert torch.equal(ids, own_ids)
    assert (theirs - ours).abs().max() < 1e-4
    assert (embedding - own_embedding).abs().max() < 2e-2, "the pipeline blurs by itself before it scales down"


@pytest.mark.parametrize("name", ["tiny_modelscope", pytest.param("tiny_svd_i2v", marks=pytest.mark.slow)])
def test_a_finished_folder_is_a_base_too(name, finished, shards, tmp_path):
    """ModelScope's, ZeroScope's and SVD's folders load as they are, and so do ours."""
    lines: list[str] = []
    changes = {**SMALL, "steps": "3", "sample_steps": "1", "base": str(finished(name)), "lr": "1e-8"}
    out = train(name, shards, tmp_path / name, changes, lines.append).out
    assert any("is trained on as it is" in line for line in lines)
    assert json.loads((out / "train.json").read_text())["identity_error"] is None
    before, after = open_folder(finished(name))[2].unet.state_dict(), open_folder(out)[2].unet.state_dict()
    assert all((after[key] - value).abs().max() < 1e-6 for key, value in before.items())


@pytest.mark.parametrize("name", ["tiny_videocrafter", pytest.param("tiny_lavie", marks=pytest.mark.slow)])
def test_other_projects_files_hold_the_same_weights(finished, name):
    out = finished(name)
    _, _, net = open_folder(out)
    if name == "tiny_videocrafter":
        safe, pickled = (
            load_file(out / "model.safetensors"),
            torch.load(out / "model.ckpt", weights_only=True)["state_dict"],
        )
        back = from_videocrafter(safe, net.unet)
        assert len(set(videocrafter_keys(net.unet).values())) == len(net.unet.unet.state_dict())
    else:
        safe, pickled = load_file(out / "lavie_base.safetensors"), torch.load(out / "lavie_base.pt", weights_only=True)
        back = safe
    assert all(torch.equal(value, pickled[key]) for key, value in safe.items())
    assert all(torch.equal(value, back[key]) for key, value in net.unet.unet.state_dict().items())


@pytest.mark.slow
def test_videocrafter_can_be_shown_a_first_frame(shards, tmp_path):
    """Its image-to-video: `--set image_condition=attention`."""
    quick = {**SMALL, "steps": "4", "sample_steps": "2", "image_condition": "attention", "image_dropout": "0.2"}
    out = train("tiny_videocrafter", shards, tmp_path / "out", quick, lambda line: None).out
    recipe, base, net = open_folder(out)
    stirred(net.unet)
    frames = [sample(recipe, base, net, Ask("a", first_frame_CHW=torch.full((3, 32, 32), x))) for x in (-1.0, 1.0)]
    assert (frames[0] - frames[1]).abs().max() > 1e-3
    back = from_videocrafter(load_file(out / "model.safetensors"), open_folder(out)[2].unet)
    assert len(back) == len(net.unet.unet.state_dict())
    assert any(key.startswith("image_proj_model.layers.0.0.to_kv") for key in load_file(out / "model.safetensors"))


def test_a_pickle_is_written_only_when_asked_for(shards, tmp_path):
    quick = {**SMALL, "steps": "2", "sample_steps": "1"}
    out = train("tiny_lavie", shards, tmp_path / "out", quick, lambda line: None).out
    assert sorted(path.name for path in out.iterdir() if path.suffix in (".ckpt", ".pt")) == []
    assert (out / "lavie_base.safetensors").is_file()


@pytest.mark.parametrize("name", ["tiny_modelscope", pytest.param("tiny_svd_t2v", marks=pytest.mark.slow)])
def test_a_lora_is_merged_and_can_be_loaded_again(shards, tmp_path, name):
    """The merged UNet, and the plain one with the LoRA beside it, answer alike."""
    quick = {**SMALL, "steps": "4", "trainable": "lora", "lora_rank": "2", "lora_layers": "all", "sample_steps": "1"}
    out = train(name, shards, tmp_path / "out", quick, lambda line: None).out
    _, _, merged = open_folder(out)
    _, _, plain = open_folder(out)
    lora = load_file(out / "lora" / "pytorch_lora_weights.safetensors")
    weights = plain.unet.state_dict()
    for key in lora:
        if key.endswith("lora_A.weight"):
            owner = key.removeprefix("unet.").removesuffix(".lora_A.weight")
            weights[f"{owner}.weight"] -= lora[key.replace("lora_A", "lora_B")] @ lora[key]
    plain.unet.load_state_dict(weights)
    x, t = torch.randn(1, 4, 4, 8, 8), torch.tensor([0.7])
    conditions = Conditions(torch.randn(1, 77, 64), torch.tensor([8.0]), torch.tensor([127]))
    with torch.no_grad():
        wanted, before = merged(x, t, conditions), plain(x, t, conditions)
        load_lora(plain.unet, lora)
        got = plain(x, t, conditions)
    assert (wanted - before).abs().max() > 1e-4
    assert (got - wanted).abs().max() < 1e-5


@pytest.mark.parametrize(
    "name", ["tiny_modelscope", "tiny_zeroscope_576w", "tiny_videocrafter", "tiny_lavie", "tiny_svd_t2v"]
)
def test_a_perfect_net_samples_the_clip_itself(name):
    """Test 17: scale, schedule, fps and noise levels of training and of sampling are the same, for every recipe's sampler."""
    recipe = replace(load_recipe(name).shown(), sample_steps=20, guidance=1.0)
    plan, scheduler = schedule(recipe), sampler(recipe)
    scheduler.set_timesteps(recipe.sample_steps)
    clean = torch.randn(1, 4, 3, 4, 4, generator=torch.Generator().manual_seed(0))

    class Perfect(Net):
        """Answers what the objective wants of it for the clean latents."""

        def __init__(self):
            pass

        def __call__(self, x, time_B, conditions):
            if recipe.prediction == "edm":
                sigma = torch.exp(4 * time_B.float())
                noise = (x * torch.sqrt(sigma**2 + 1) - clean) / sigma
                return edm(clean, noise, sigma, sigma).target_BCTHW
            u = ((time_B + 0.5) / 1000) ** (1 / recipe.timestep_power)
            nothing = noised(recipe, plan, clean, torch.zeros_like(clean), u)
            assert nothing.time_B.item() == time_B.item()
            noise = (x - nothing.input_BCTHW) / (1 - plan.alphas_cumprod[time_B]).sqrt()
            return noised(recipe, plan, clean, noise, u).target_BCTHW

    start = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1)) * scheduler.init_noise_sigma
    conditions = Conditions(torch.zeros(1, 1, 1), torch.ones(1), torch.ones(1))
    got = denoise(recipe, Perfect(), scheduler, scheduler.timesteps, start, conditions, conditions)
    if recipe.sampler == "ddim":  # Stable Diffusion's ends at the first timestep's noise, a share sqrt(1 - abar_0)
        first, last = plan.alphas_cumprod[scheduler.timesteps[0]], plan.final_alpha_cumprod
        noise = (start - first.sqrt() * signal_scale(scheduler.timesteps[:1], recipe.signal_scale) * clean) / (
            1 - first
        ).sqrt()
        clean = last.sqrt() * clean + (1 - last).sqrt() * noise
    assert (got - clean).abs().max() < 1e-4


def test_a_folder_without_a_training_is_refused(tmp_path):
    with pytest.raises(TrainError, match=r"is not a finished training: it has no train\.json"):
        open_folder(tmp_path)


def test_exports_name_every_weight():
    from tests.train_hooks.unets import STYLES, video_unet

    for kind in STYLES:
        video = video_unet(kind)
        made = as_lavie(video) if kind == "lavie" else as_videocrafter(video)
        assert len(made) == len(video.unet.state_dict())
        assert kind == "lavie" or all(key.startswith("model.diffusion_model.") for key in made)
