"""Overhead of captioning over the bare model, and utilisation of a server.

    python benchmarks/annotate.py [local] [server] [gpu]

- local: throughput of `Coca`, `Vlm` and `Summary` through the stage (JPEG decode, preparation, padding, decoding of text) over the bare
  model's generation in a tight loop with the same batch and inputs made beforehand. CPU seconds on one thread, in pairs that take turns
  in going first, after a pair that does not count; the median of their ratios, the least and the greatest. The models
  are of the real architectures, randomly initialised, a tenth to a third of the real width; a larger model makes the ratio better, for
  what the stage adds stays the same.
- server: mean requests in flight over `concurrency`, from the first to the last, against a server on loopback with
  latencies of 0.5 to 1.5 s, those of a small model on a GPU.
- gpu: `Vlm` with a randomly initialised Qwen2.5-VL of the 3B model's size in bf16: clips/s, and the ratio to the bare model.
"""

import argparse
import multiprocessing
import os
import random
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import cv2
import numpy as np

import annotate
from annotate.coca import LEAST_TOKENS, beam_search
from annotate.models.generate import write
from annotate.models.vlm_inputs import processed
from curate.clip import Clip
from curate.stages import stage
from tests.annotate import tiny_models
from tests.annotate.chat_server import ChatServer, busy_share, drawn

CLIPS, PAIRS = 16, 9
COCA = {
    "embed_dim": 256,
    "custom_text": True,
    "multimodal_cfg": {"context_length": 76, "vocab_size": 49408, "width": 256, "heads": 4, "layers": 4},
    "vision_cfg": {
        "image_size": 224, "layers": 6, "width": 384, "patch_size": 14, "attentional_pool": True, "attn_pooler_heads": 4,
        "output_tokens": True,
    },
    "text_cfg": {
        "context_length": 76, "vocab_size": 49408, "width": 256, "heads": 4, "layers": 4, "embed_cls": True, "output_tokens": True,
    },
}  # fmt: skip


def clip_of(i: int) -> Clip:
    """A clip of eight thumbnails at the scan's default size, with two captions."""
    rng = np.random.default_rng(i)
    blurred = cv2.GaussianBlur(rng.integers(0, 255, (360, 640, 3), np.uint8), (0, 0), 3)
    jpegs = tuple(
        cv2.imencode(".jpg", np.roll(blurred, 8 * k, axis=1), [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
        for k in range(8)
    )
    columns = {
        "caption_a": f"a red bus number {i} on a wet street",
        "caption_b": f"Bus {i} drives along a street in the rain.",
    }
    return Clip(f"clip{i}", "s", 0.0, 4.0, 24.0, 96, 640, 360, jpegs, tuple(k / 2 for k in range(8)), columns)


def cpu_s() -> float:
    """CPU seconds of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def compare(name: str, built: Any, bare: Callable[[], None], n_clips: int = CLIPS) -> None:
    """Prints the stage's throughput over the bare model's, on as many clips."""
    names = {column: column for column in built.columns}

    def staged() -> None:
        rows = stage.apply(built, clips, names)
        assert all(row["error"] is None for row in rows), rows[0]

    ratios = []
    for i in range(PAIRS + 1):
        clips = [clip_of(i) for i in range(n_clips)]  # new clips: a clip caches its decoded thumbnails
        used = {}
        for work in (staged, bare) if i % 2 else (bare, staged):
            began = cpu_s()
            work()
            used[work] = cpu_s() - began
        ratios.append(used[bare] / used[staged])
    value, least, greatest = statistics.median(ratios[1:]), min(ratios[1:]), max(ratios[1:])
    print(
        f"  {name + ': throughput over the bare model':<52} {value:6.3f} ({least:.2f}-{greatest:.2f})   wanted 0.90  "
        f"{'met' if value >= 0.9 else 'NOT MET'}",
        flush=True,
    )


def local(folder: Path) -> None:
    """Coca, Vlm and Summary beside their bare models."""
    import torch

    torch.set_num_threads(1)
    clips = [clip_of(i) for i in range(CLIPS)]

    tiny_models.build_coca(folder / "coca", COCA)
    coca = annotate.Coca(model=str(folder / "coca.json"), weights=str(folder / "coca"), device="cpu")
    coca.setup()
    encoder = coca._encoder
    assert encoder is not None
    pictures = np.stack([encoder.picture(clip.middle) for clip in clips[:4]])

    def bare_coca() -> None:
        with torch.inference_mode():
            for picture in pictures:  # the same batch: on the CPU the stage takes one clip at a time
                latent, embs = (
                    m.repeat_interleave(6, dim=0) for m in encoder.net(encoder.pixels(picture[None])).values()
                )
                beam_search(
                    lambda ids, e=embs, t=latent: encoder.net(None, ids, t, e, output_labels=False)["logits"][
                        :, -1
                    ].log_softmax(-1),
                    *(1, 6, LEAST_TOKENS, 31),
                )

    compare("Coca", coca, bare_coca, len(pictures))

    tiny_models.build_vlm(folder / "vlm", width=384, layers=6, pixels=64 * 28 * 28)
    vlm = annotate.Vlm(weights=str(folder / "vlm"), device="cpu", max_tokens=48)
    vlm.setup()
    asks = [vlm._ask(clip) for clip in clips]
    inputs = processed(vlm._processor, asks, vlm.as_video)
    compare("Vlm", vlm, lambda: generate(vlm._net, inputs, [ask.key for ask in asks], vlm))

    tiny_models.build_text(folder / "text", width=384, layers=6)
    summary = annotate.Summary(weights=str(folder / "text"), captions=("a", "b"), device="cpu", max_tokens=48)
    summary.setup()
    prompts = [[{"role": "user", "content": summary.ask(clip)}] for clip in clips]
    texts = summary._tokenizer.apply_chat_template(
        prompts, add_generation_prompt=True, return_dict=True, return_tensors="pt", padding=True
    )
    compare("Summary", summary, lambda: generate(summary._net, dict(texts), [clip.clip_id for clip in clips], summary))


def generate(net: Any, inputs: dict[str, Any], keys: list[str], built: Any) -> None:
    """The bare model's generation."""
    write(net, inputs, keys, built.decoding, 0)


def served(pipe: Any) -> None:
    """A server in a process of its own: tells its address, and when asked to stop, what was in flight when."""
    with ChatServer() as there:
        there.latency_s = lambda: random.uniform(0.5, 1.5)
        threading.Thread(target=there.serve_forever, daemon=True).start()
        pipe.send(there.url)
        pipe.recv()
        there.shutdown()
        pipe.send(there.events)


def server() -> None:
    """How busy `OpenAIServer` keeps what it is allowed."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=served, args=(theirs,))
    process.start()
    built = annotate.OpenAIServer(model="codes", base_url=ours.recv(), frames=2, concurrency=16)
    clips = [
        replace(clip_of(0), clip_id=f"{i}", jpegs=(cv2.imencode(".jpg", drawn(i))[1].tobytes(),) * 8)
        for i in range(built.batch_size)
    ]
    rows = built(clips)
    ours.send("stop")
    value = busy_share(ours.recv(), built.concurrency)
    process.join()
    assert [row["caption"] for row in rows] == [f"code {i}" for i in range(len(clips))]
    met = "met" if value >= 0.95 else "NOT MET"
    print(f"  {'OpenAIServer: share of the concurrency kept busy':<52} {value:6.3f}   wanted 0.95  {met}")


def gpu() -> None:
    """A Qwen2.5-VL of the 3B model's size on a GPU."""
    import torch

    if not torch.cuda.is_available():
        print("  Vlm at full size: no GPU here: not run")
        return
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    with tempfile.TemporaryDirectory() as name:
        vlm = annotate.Vlm(weights=str(tiny_models.build_vlm(Path(name), pixels=256 * 28 * 28)), max_tokens=96)
        vlm.setup()
    small = vlm._net.config
    config = Qwen2_5_VLConfig(
        text_config={
            **small.text_config.to_dict(), "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36,
            "num_attention_heads": 16, "num_key_value_heads": 2, "vocab_size": 151936,
            "rope_parameters": {"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1e6},
        },
        vision_config={
            **small.vision_config.to_dict(), "depth": 32, "hidden_size": 1280, "num_heads": 16, "intermediate_size": 3420,
            "out_hidden_size": 2048, "fullatt_block_indexes": [7, 15, 23, 31],
        },
        image_token_id=small.image_token_id, video_token_id=small.video_token_id,
        vision_start_token_id=small.vision_start_token_id, vision_end_token_id=small.vision_end_token_id,
    )  # fmt: skip
    with torch.device("cuda"):
        torch.set_default_dtype(torch.bfloat16)
        net = Qwen2_5_VLForConditionalGeneration(config).eval()
        torch.set_default_dtype(torch.float32)
    net.generation_config.eos_token_id, net.generation_config.pad_token_id = -1, 0
    vlm._net = net
    clips = [clip_of(i) for i in range(64)]
    asks = [vlm._ask(clip) for clip in clips[:CLIPS]]
    inputs = {
        k: v.cuda() if hasattr(v, "cuda") else v for k, v in processed(vlm._processor, asks, vlm.as_video).items()
    }
    inputs["pixel_values_videos"] = inputs["pixel_values_videos"].bfloat16()
    generate(net, inputs, [ask.key for ask in asks], vlm)  # warm
    began = time.perf_counter()
    generate(net, inputs, [ask.key for ask in asks], vlm)
    torch.cuda.synchronize()
    bare_s = (time.perf_counter() - began) / len(asks)
    began = time.perf_counter()
    for start in range(0, len(clips), CLIPS):
        vlm(clips[start : start + CLIPS])
    stage_s = (time.perf_counter() - began) / len(clips)
    parameters = sum(p.numel() for p in net.parameters()) / 1e9
    line = f"Vlm, {parameters:.1f}B parameters, bf16, {torch.cuda.get_device_name()}: {1 / stage_s:.2f} clips/s"
    print(f"  {line}, {bare_s / stage_s:.3f} of the bare model's throughput")


def main() -> None:
    """Runs the parts asked for."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("parts", nargs="*", choices=["local", "server", "gpu", []], default=[])
    for part in ask.parse_args().parts or ("local", "server", "gpu"):
        print(f"== {part}", flush=True)
        if part == "local":
            with tempfile.TemporaryDirectory() as name:
                local(Path(name))
        else:
            {"server": server, "gpu": gpu}[part]()


if __name__ == "__main__":
    main()
