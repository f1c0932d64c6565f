"""The fast layout is the same network (test 27), and bfloat16 weights learn (test 23)."""

import importlib.util
import os
import signal
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from diffusers.models.resnet import ResnetBlock2D

from tests.train_hooks.trainings import SMALL, run
from tests.train_hooks.unets import inputs, stirred, video_unet
from train_hooks import loop
from train_hooks.errors import StoppedBySignal, TrainError
from train_hooks.fast import compile_blocks, speed_up
from train_hooks.net import Net
from train_hooks.optim import AdamWBf16, round_stochastically
from train_hooks.recipe_files import load_recipe


def answers(kind, change):
    net = Net(stirred(video_unet(kind)).eval())
    keys = list(net.unet.state_dict())
    change(net.unet)
    assert list(net.unet.state_dict()) == keys
    found = []
    for frames in (5, 1):
        x, t, conditions = inputs(batch=2, frames=frames)
        answer = net(x, t, conditions)
        answer.square().mean().backward()
        found.append(answer)
    return [*found, *(p.grad for p in net.unet.parameters() if p.grad is not None)]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        pytest.param("unet3d", {}, id="unet3d"),
        pytest.param("unet3d", {"temporal_conv": "conv1d", "short_attention": False}, id="unet3d, conv1d"),
        pytest.param("unet3d", {"temporal_conv": "conv3d", "channels_last": False}, id="unet3d, short attention alone"),
        pytest.param("svd", {}, id="svd"),
        pytest.param("videocrafter", {}, id="videocrafter"),
        pytest.param("lavie", {}, id="lavie"),
    ],
)
def test_the_fast_layout_answers_alike(kind, options):
    """Outputs and gradients within 1e-5, relatively, and the same keys."""
    plain, fast = answers(kind, lambda unet: None), answers(kind, lambda unet: speed_up(unet, **options))
    most = max(float(grad.abs().max()) for grad in plain[2:])
    assert len(plain) == len(fast)
    assert all((a - b).abs().max() < 1e-5 * a.abs().max() for a, b in zip(plain[:2], fast[:2], strict=True))
    assert all((a - b).abs().max() < 1e-5 * most for a, b in zip(plain[2:], fast[2:], strict=True))


def test_all_temporal_convolutions_are_found():
    assert speed_up(video_unet("unet3d")) == sum(isinstance(m, torch.nn.Conv3d) for m in video_unet("unet3d").modules())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's compiler hides its own warnings, which makes errors of them here
def test_compiled_blocks_answer_alike():
    """The graphs are captured and differentiated; no code is generated here, which would take minutes (`backend="inductor"` is torch's)."""
    torch._dynamo.reset()
    plain = answers("unet3d", lambda unet: None)
    made = []  # of one block, to be quick: each is compiled for itself
    compiled = answers("unet3d", lambda unet: made.append(compile_blocks(unet.down_blocks[0], backend="aot_eager")))
    assert made == [4]
    assert compile_blocks(video_unet("unet3d")) > 10
    assert all((a - b).abs().max() < 1e-5 for a, b in zip(plain, compiled, strict=True))


@pytest.mark.filterwarnings("ignore")  # as above
def test_more_kinds_of_blocks_than_torch_compiles_by_itself_are_all_compiled():
    """torch.compile leaves a `forward` as it is after 8 kinds of it; Stable Diffusion's residual blocks have 12 pairs of widths."""
    torch._dynamo.reset()
    compiled: list[object] = []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph.forward

    widths = [8 * n for n in range(1, 14)]
    blocks = torch.nn.Sequential(
        *(ResnetBlock2D(in_channels=a, out_channels=b, temb_channels=None, groups=8) for a, b in pairwise(widths))
    )
    with torch._dynamo.config.patch(recompile_limit=8):
        assert compile_blocks(blocks, backend=backend) == 12
        x = torch.randn(1, 8, 4, 4)
        for block in blocks:
            x = block(x, None)
    assert len(compiled) == 12


@pytest.mark.filterwarnings("ignore")  # as above
@pytest.mark.parametrize("interrupted", [False, True])
def test_a_compiler_that_fails_is_one_sentence(interrupted, square_rows, make_shards, tmp_path, monkeypatch):
    """Ctrl-C reaches the compilers as well as the training; what they then fail with is not what the user wants to read."""
    torch._dynamo.reset()

    def failing(graph, inputs):
        if interrupted:
            os.kill(os.getpid(), signal.SIGINT)
        raise ImportError("main.so: file too short")

    monkeypatch.setattr(loop, "compile_blocks", lambda unet: compile_blocks(unet, backend=failing))
    recipe = load_recipe("tiny_modelscope", {**SMALL, "steps": "2", "compile": "true"})
    sentence = (
        "stopped while torch.compile was at work"
        if interrupted
        else "torch.compile failed: .*file too short; --set comp"
    )
    with pytest.raises(StoppedBySignal if interrupted else TrainError, match=sentence) as caught:
        run(recipe, make_shards(square_rows[:4]), tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_the_mean_of_many_roundings_is_the_number():
    """Test 23: unbiased to 2e-5 where rounding to the nearest is off by 1e-3."""
    exact = torch.full((400_000,), 1.0009766)
    rng = torch.Generator().manual_seed(0)
    rounded = round_stochastically(exact, rng)
    assert rounded.dtype == torch.bfloat16
    assert set(rounded.unique().tolist()) == {1.0, 1.0078125}
    assert abs(rounded.double().mean().item() - 1.0009766) < 2e-5
    assert abs(exact.to(torch.bfloat16).double().mean().item() - 1.0009766) > 9e-4
    for value in (0.0, -3.5, float("inf"), 1.0):
        assert round_stochastically(torch.tensor([value]), rng).item() == value
    assert round_stochastically(torch.tensor([float("nan")]), rng).isnan().all()


def test_bf16_weights_learn_where_rounding_to_the_nearest_stands_still():
    """Steps of 1e-4 on weights of 1: a hundredth of the distance between two bfloat16 numbers there."""
    target = torch.zeros(2000)
    ends = {}
    for name in ("stochastic", "nearest", "fp32"):
        weight = torch.nn.Parameter(torch.ones(2000, dtype=torch.float32 if name == "fp32" else torch.bfloat16))
        if name == "stochastic":
            optimizer = AdamWBf16([weight], lr=1e-4, weight_decay=0.0, seed=0)
        else:
            optimizer = torch.optim.AdamW([weight], lr=1e-4, weight_decay=0.0)
        for _ in range(200):
            (weight.float() - target).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        ends[name] = weight.detach().float().mean().item()
    assert ends["nearest"] == 1.0
    assert ends["fp32"] == pytest.approx(0.98, abs=1e-3)
    assert ends["stochastic"] == pytest.approx(ends["fp32"], abs=1e-3)


def test_bf16_adamw_is_adamw():
    """On weights that bfloat16 holds exactly, three steps are those of torch's AdamW, rounded one way or the other."""
    rng = torch.Generator().manual_seed(0)
    start = torch.randn(64, generator=rng).to(torch.bfloat16)
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.float())
    mine = AdamWBf16([ours], lr=0.1, weight_decay=0.01, seed=0)
    plain = torch.optim.AdamW([theirs], lr=0.1, weight_decay=0.01)
    grad = torch.randn(64, generator=rng)
    for _ in range(3):
        ours.grad, theirs.grad = grad.to(torch.bfloat16), grad.to(torch.bfloat16).float()
        mine.step()
        plain.step()
    assert (ours.float() - theirs).abs().max() < 0.02
    assert torch.allclose(mine.state[ours]["exp_avg"], plain.state[theirs]["exp_avg"])
    assert mine.state[ours]["step"] == 3


def test_the_gpu_benchmark_runs_at_small_size():
    """What it checks and measures on a GPU, here without one: the figures mean nothing, the code is the same."""
    path = Path(__file__).parents[2] / "benchmarks" / "train_gpu.py"
    spec = importlib.util.spec_from_file_location("train_gpu", path)
    bench = importlib.util.module_from_spec(spec)
    sys.modules["train_gpu"] = bench
    spec.loader.exec_module(bench)
    bench.WARM_UP, bench.STEPS = 1, 1
    cpu = torch.device("cpu")
    variant = bench.PARTS[2]
    assert max(bench.check(variant, bench.SMALL, cpu).values()) < 1e-4
    result = bench.in_turn(bench.PLAIN, variant, bench.SMALL, "32x32x3", 1, cpu)
    assert result["times_as_fast"] > 0
    bf16 = bench.in_turn(
        bench.PLAIN, bench.Variant("bf16", {}, "selective", bf16_weights=True), bench.SMALL, "32x32x3", 1, cpu
    )
    assert bf16["times_as_fast"] > 0
    with pytest.raises(SystemExit):
        bench.main(["--device", "cpu"])
