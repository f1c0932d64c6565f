"""The training loop on a CUDA GPU. A machine without one skips.

It needs neither Ray nor the engine: torch, diffusers, accelerate, transformers, PyAV and decord are enough for this file.
"""

import json
import signal
from pathlib import Path

import pytest
import torch

from tests.train_hooks.trainings import SMALL, ignoring_sigterm, run, stop_after
from tests.train_hooks.worlds import write_shards
from train_hooks.plan import plan
from train_hooks.recipe_files import load_recipe
from train_hooks.train import train

pytestmark = [
    pytest.mark.slow,  # and it has not been run on a GPU yet: none was lent when it was written
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
    pytest.mark.filterwarnings("default"),  # of torch's compiler and profiler, which come and go with its releases
]

STEPS = 12
WIDER = {**SMALL, "steps": str(STEPS), "batch": "4", "micro_batch": "4", "frames": "8", "width_px": "32", "height_px": "32",
         "unet_channels": "32,64", "lr": "2e-3"}  # fmt: skip


@pytest.fixture(scope="module")
def shards(square_rows, tmp_path_factory) -> Path:
    return write_shards(tmp_path_factory.mktemp("gpu") / "shards", square_rows)


def recipe(**more: str):
    return load_recipe("tiny_modelscope", {**WIDER, **more})


@pytest.fixture(scope="module")
def plain(shards, tmp_path_factory):
    """The training that the others are compared with: float32, nothing fast."""
    return run(recipe(), shards, tmp_path_factory.mktemp("plain") / "out")


def apart(one: list[float], other: list[float]) -> float:
    return max(abs(a - b) / abs(a) for a, b in zip(one, other, strict=True))


def test_the_gpu_computes_what_the_cpu_computes(plain, shards, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    on_cpu = run(recipe(steps="2"), shards, tmp_path / "out")
    print("first losses, GPU and CPU:", plain.losses[:2], on_cpu.losses)
    assert apart(on_cpu.losses, plain.losses[:2]) < 2e-2  # TensorFloat32: 10 bits


@pytest.mark.parametrize(
    "more",
    [
        {"precision": "bf16"},
        {"precision": "fp16"},
        {"precision": "bf16", "fast": "true"},
        {"precision": "bf16", "fast": "true", "compile": "true"},
        {"precision": "bf16", "bf16_weights": "true"},
        {"precision": "bf16", "checkpointing": "selective", "fast": "true", "compile": "true"},
    ],
    ids=lambda more: ",".join(f"{key}={value}" for key, value in more.items()),
)
def test_each_way_of_being_fast_learns_the_same(more, plain, shards, tmp_path) -> None:
    done = run(recipe(**more), shards, tmp_path / "out")
    print("losses", [round(loss, 4) for loss in done.losses], "plain", [round(loss, 4) for loss in plain.losses])
    assert len(done.losses) == STEPS
    assert apart(plain.losses, done.losses) < 0.15
    assert sum(done.losses[-3:]) < 0.9 * sum(done.losses[:3])


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_stopped_training_goes_on_as_if_it_had_not_been(precision, shards, tmp_path) -> None:
    whole = run(recipe(precision=precision, steps="7"), shards, tmp_path / "whole")
    with ignoring_sigterm():
        first = run(recipe(precision=precision, steps="7"), shards, tmp_path / "out", stop_after(3))
    assert first.training.stopped_by == signal.SIGTERM
    second = run(recipe(precision=precision, steps="7"), shards, tmp_path / "out")
    # Some of cuDNN's sums come in any order, so bits may differ here; on the CPU they may not (test_resume.py).
    print(precision, "same bits:", second.weights == whole.weights, "losses apart:", apart(whole.losses, second.losses))
    assert apart(whole.losses, second.losses) < 1e-2


def test_memory_that_runs_out_costs_pieces_not_the_training(plain, shards, tmp_path) -> None:
    free()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run(recipe(steps="1"), shards, tmp_path / "measure")
    needed = torch.cuda.max_memory_allocated() - before
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    try:
        torch.cuda.set_per_process_memory_fraction((before + 0.75 * needed) / total)
        done = run(recipe(), shards, tmp_path / "out")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    messages = [line for line in done.lines if line.startswith("memory r")]
    print(messages, needed)
    assert messages
    assert apart(plain.losses, done.losses) < 2e-2


def free() -> None:
    torch.cuda.synchronize()
    torch.cuda.empty_cache()


def test_the_plan_tells_what_a_step_will_need(shards, tmp_path) -> None:
    lines: list[str] = []
    plan("tiny_modelscope", shards, WIDER, lines.append)
    bucket = next(line for line in lines if line.startswith("bucket "))
    predicted_gib = float(bucket.split(" GiB")[0].split()[-1])
    free()
    torch.cuda.reset_peak_memory_stats()
    done = run(recipe(steps="2"), shards, tmp_path / "out")
    peak = done.training.metrics.table().to_pylist()[-1]["memory_gb"]
    print(bucket, "| peak", round(peak, 3), "GiB")
    assert 0.5 < predicted_gib / peak < 1.5


def test_from_shards_to_a_sample(shards, tmp_path) -> None:
    """The whole of `rushes train`, in half precision, and the folder's sample."""
    lines: list[str] = []
    result = train(
        "tiny_modelscope", shards, tmp_path / "out", {**WIDER, "precision": "bf16", "fast": "true"}, lines.append
    )
    print("\n".join(lines))
    assert (tmp_path / "out" / "sample.mp4").stat().st_size > 0
    assert result.last_loss < 1.0
    assert json.loads((tmp_path / "out" / "model_index.json").read_text())["_class_name"]
