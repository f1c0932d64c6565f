"""Conditions of the nets, their trained weights, and recomputed activations: training.md, section 6, tests 5, 7 and 18."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.train_hooks.unets import ONE, image_unet, inputs, sd1_unet, stirred, video_unet
from train_hooks.checkpointing import checkpoint_activations
from train_hooks.conditioning import MotionBuckets, added_time_ids, noisy_first_frame
from train_hooks.errors import TrainError
from train_hooks.net import Net, load_unet, make
from train_hooks.recipe_files import load_recipe
from train_hooks.rng import Rng
from train_hooks.trainable import choose, is_temporal, merge_lora, scale_inherited

TINY = load_recipe("tiny")


def train(net, weights, steps=5, lr=1e-2, weight_decay=0.01):
    optimizer = torch.optim.AdamW(weights, lr=lr, weight_decay=weight_decay)
    x, t, conditions = inputs(batch=2)
    torch.manual_seed(0)
    for _ in range(steps):
        net(x, t, conditions).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


# -- conditions


@pytest.mark.parametrize("kind", ["svd", "svd i2v", "videocrafter"])
def test_fps_motion_and_noise_change_the_answer(kind):
    """Test 18."""
    net = Net(stirred(video_unet(kind)).eval())
    x, t, conditions = inputs()
    if kind == "svd i2v":
        torch.nn.init.normal_(net.unet.conv_in.weight[:, 4:])  # zero at the start
        conditions = replace(
            conditions, first_frame_BChw=torch.zeros(1, 4, 8, 12), first_frame_noise_B=torch.tensor([0.02])
        )
    changes = [{"fps_B": torch.tensor([24.0])}]
    if kind != "videocrafter":
        changes.append({"motion_bucket_B": torch.tensor([250.0])})
    if kind == "svd i2v":
        changes += [{"first_frame_noise_B": torch.tensor([0.7])}, {"first_frame_BChw": torch.ones(1, 4, 8, 12)}]
    with torch.no_grad():
        plain = net(x, t, conditions)
        for change in changes:
            assert (net(x, t, replace(conditions, **change)) - plain).abs().max() > 1e-3, change


def test_fps_is_encoded_as_in_the_pipeline():
    """Test 18: StableVideoDiffusionPipeline(fps=7) gives the net 6."""
    ids = added_time_ids(torch.tensor([7.0]), torch.tensor([127]), torch.tensor([0.02]))
    assert ids.tolist() == [[6.0, 127.0, pytest.approx(0.02)]]
    assert added_time_ids(torch.tensor([7.0]), torch.tensor([127]), None).shape == (1, 2)


def test_a_unet3d_can_be_conditioned_on_the_frame_rate(tmp_path):
    plain = video_unet("unet3d").eval()
    x, t, conditions = inputs()
    with torch.no_grad():
        before = Net(plain)(x, t, conditions)
        net = Net(plain, fps_condition=True)
        assert torch.equal(net(x, t, conditions), before)
        stirred(plain)
        fast = net(x, t, replace(conditions, fps_B=torch.tensor([24.0])))
        assert (fast - net(x, t, conditions)).abs().max() > 1e-3
        plain.save_pretrained(tmp_path)
        again = Net(load_unet(tmp_path))
        # Not to the bit on every CPU: weights read from a file have another memory layout.
    assert (again(x, t, replace(conditions, fps_B=torch.tensor([24.0]))) - fast).abs().max() < 1e-5


def test_motion_buckets_are_ranks_and_can_be_read_back():
    scores = [float(i) ** 2 for i in range(101)]
    buckets = MotionBuckets.of([*scores, None])
    assert (buckets.bucket(-5.0), buckets.bucket(0.0), buckets.bucket(10_000.0), buckets.bucket(1e9)) == (
        0,
        0,
        255,
        255,
    )
    assert buckets.bucket(2500.0) == pytest.approx(127.5, abs=3)
    assert buckets.score(buckets.bucket(900.0)) == pytest.approx(900.0, rel=0.1)
    assert buckets.bucket(None) == 127
    assert MotionBuckets.of([None]).bucket(3.0) == 127
    assert MotionBuckets.of([2.0, 2.0]).bucket(2.0) == 127
    assert MotionBuckets(tuple(json.loads(json.dumps(buckets.quantiles)))) == buckets


def test_the_first_frame_gets_the_stated_noise():
    frames = torch.zeros(4000, 3, 4, 4)
    noisy, sigma = noisy_first_frame(frames, -3.0, 0.5, Rng(0, 0, range(4000)))
    assert sigma.log().mean().item() == pytest.approx(-3.0, abs=0.05)
    assert sigma.log().std().item() == pytest.approx(0.5, rel=0.05)
    assert (noisy.flatten(1).std(dim=1) / sigma).mean().item() == pytest.approx(1.0, rel=0.03)


# -- what is trained


@pytest.mark.parametrize("kind", ONE)
@pytest.mark.parametrize("trainable", ["temporal", "spatial", "attention"])
def test_what_is_not_trained_does_not_move(kind, trainable):
    """Test 5."""
    net = Net(video_unet(kind).train())
    weights = choose(net.unet, replace(TINY, trainable=trainable))
    before = {key: value.clone() for key, value in net.unet.state_dict().items()}
    train(net, weights.values())
    moved = {key for key, value in net.unet.state_dict().items() if not torch.equal(value, before[key])}
    assert moved
    assert moved <= set(weights)
    if trainable != "attention":
        assert all(is_temporal(key) == (trainable == "temporal") for key in moved)
    else:
        assert all(".attn" in key for key in moved)


@pytest.mark.parametrize("where", ["temporal", "spatial", "all"])
@pytest.mark.parametrize("kind", ONE)
def test_a_new_lora_changes_nothing_and_a_trained_one_merges_exactly(kind, where):
    """Test 5."""
    net = Net(video_unet(kind).eval())
    x, t, conditions = inputs()
    with torch.no_grad():
        before = net(x, t, conditions)
    keys = set(net.unet.state_dict())
    weights = choose(net.unet, replace(TINY, trainable="lora", lora_layers=where, lora_rank=2))
    assert all("lora_" in key for key in weights)
    with torch.no_grad():
        assert torch.equal(net(x, t, conditions), before)
        stirred(net.unet)  # the zero half of each
        adapted = net(x, t, conditions)
        lora = merge_lora(net.unet)
        merged = net(x, t, conditions)
    assert (adapted - before).abs().max() > 1e-4
    assert (merged - adapted).abs().max() < 1e-5
    assert len(lora) == len(weights)
    assert set(net.unet.state_dict()) == keys
    if where != "all":
        assert all(is_temporal(key) == (where == "temporal") for key in lora)


def test_a_lora_without_peft_or_attention_is_refused(monkeypatch):
    with pytest.raises(TrainError, match="no attention for a LoRA of rank 2 on the temporal layers"):
        choose(nn.Sequential(nn.Linear(2, 2)), replace(TINY, trainable="lora", lora_rank=2))
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(TrainError, match="needs the package peft"):
        choose(video_unet("unet3d"), replace(TINY, trainable="lora"))


def test_inherited_weights_learn_half_as_fast():
    net = Net(video_unet("unet3d").train())
    x, t, conditions = inputs()
    choose(net.unet, TINY)

    def gradients():
        net.unet.zero_grad()
        torch.manual_seed(1)
        net(x, t, conditions).square().mean().backward()
        return {key: p.grad.clone() for key, p in net.unet.named_parameters() if p.grad is not None}

    plain = gradients()
    end = scale_inherited(net.unet, 0.5)
    half = gradients()
    assert all(torch.equal(half[key], grad * (1.0 if is_temporal(key) else 0.5)) for key, grad in plain.items())
    end()
    assert all(torch.equal(value, plain[key]) for key, value in gradients().items())


# -- activations that are computed again


def saved_bytes(unet, work):
    """What a call gives, and how many bytes of activations it keeps for the way back."""
    weights = {p.untyped_storage().data_ptr() for p in unet.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage  # held, so that its address is not given to another
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = work()
    return result, sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("kind", ONE)
@pytest.mark.parametrize("policy", ["blocks", "selective"])
def test_checkpointing_changes_no_bit_and_saves_memory(kind, policy):
    """Test 7, with dropout on."""
    results = []
    for how in ("none", policy):
        net = Net(stirred(video_unet(kind)).train())
        n = checkpoint_activations(net.unet, how)
        assert (n > 0) == (how != "none")
        x, t, conditions = inputs(frames=4, images=2, per_frame=True)
        torch.manual_seed(2)
        answer, size = saved_bytes(net.unet, lambda: net(x, t, conditions))  # noqa: B023
        answer.square().mean().backward()
        grads = {key: p.grad for key, p in net.unet.named_parameters()}
        results.append((answer, grads, size))
    (plain, plain_grads, most), (again, grads, least) = results
    assert torch.equal(plain, again)
    assert all(torch.equal(grad, grads[key]) for key, grad in plain_grads.items() if grad is not None)
    assert most / least >= (3.0 if policy == "blocks" else 1.1), most / least


# -- the base and the recipe


@pytest.mark.parametrize(
    ("unet", "changes", "says"),
    [
        pytest.param(sd1_unet, {}, "is of Stable Diffusion 1's kind, and the recipe is made for Stable Diffusion 2", id="sd1"),
        pytest.param(lambda: video_unet("svd"), {}, "holds a UNetSpatioTemporalConditionModel, and .* 'unet3d'", id="class"),
        pytest.param(
            lambda: video_unet("svd"),
            {"architecture": "spatiotemporal", "prediction": "edm", "sampler": "euler", "image_condition": "concatenate"},
            "has 4 input channels, and image_condition 'concatenate' needs 8", id="channels",
        ),
        pytest.param(image_unet, {"temporal_convs": False}, "always has temporal convolutions", id="no convolutions"),
    ],
)  # fmt: skip
def test_a_base_of_another_kind_is_refused(unet, changes, says):
    with pytest.raises(TrainError, match=says):
        make(unet(), replace(TINY, **changes))


def test_a_video_unet_is_taken_as_it_is():
    video = video_unet("unet3d")
    assert make(video, TINY) == (video, None, None)
