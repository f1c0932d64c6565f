"""Batched generation: a row is the same in any batch."""

import math
from collections import Counter

import pytest
import torch

from annotate.models.generate import Decoding, Halving, SeededChoice, Written, device_and_dtype, seed_of, write

PROMPTS = {"a": "Hello", "b": "A longer prompt, of more bytes", "c": "x", "d": "Hello"}


@pytest.fixture(scope="module")
def model(tiny_text):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_text, padding_side="left")
    return AutoModelForCausalLM.from_pretrained(tiny_text, dtype="float32").eval(), tokenizer


def written_rows(model, keys, decoding) -> dict[str, Written]:
    net, tokenizer = model
    inputs = tokenizer([PROMPTS[key] for key in keys], padding=True, return_tensors="pt")
    rows = write(net, dict(inputs), keys, decoding, tokenizer.pad_token_id)
    return dict(zip(keys, rows, strict=True))


@pytest.mark.parametrize("decoding", [Decoding(12), Decoding(12, 1.0, 0.9, seed=3)], ids=["greedy", "sampled"])
def test_row_depends_on_neither_order_nor_batch(model, decoding):
    together = written_rows(model, list(PROMPTS), decoding)
    assert written_rows(model, ["c", "d", "a", "b"], decoding) == together
    assert {key: written_rows(model, [key], decoding)[key] for key in PROMPTS} == together
    assert together["b"].prompt_tokens == len(PROMPTS["b"])
    assert len({tuple(row.tokens) for row in together.values()}) >= 3


def test_samples_depend_on_the_seed_and_the_key(model):
    one, two = (written_rows(model, list(PROMPTS), Decoding(12, 1.0, seed=seed)) for seed in (1, 2))
    assert one["a"].tokens != one["d"].tokens  # the same prompt, another clip
    assert one["a"].tokens != two["a"].tokens
    assert written_rows(model, ["a"], Decoding(12))["a"].tokens == written_rows(model, ["d"], Decoding(12))["d"].tokens


def test_an_answer_ends_at_its_end_token_or_at_the_limit(model):
    net, tokenizer = model
    free = written_rows(model, ["a"], Decoding(8))["a"]
    assert (free.finish_reason, len(free.tokens)) == ("length", 8)
    net.generation_config.eos_token_id = [free.tokens[3], tokenizer.eos_token_id]
    try:
        ended = written_rows(model, ["a"], Decoding(8))["a"]
    finally:
        net.generation_config.eos_token_id = tokenizer.eos_token_id
    assert ended.finish_reason == "stop"
    assert ended.tokens == free.tokens[: free.tokens.index(free.tokens[3])]


def test_samples_follow_the_probabilities():
    scores = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    drawn = Counter(
        int(SeededChoice(Decoding(1, temperature=2.0), [f"clip {i}"])(None, scores).argmax()) for i in range(4000)
    )
    wanted = (scores[0] / 2.0).softmax(0)
    assert [drawn[i] / 4000 for i in range(4)] == pytest.approx(wanted.tolist(), abs=0.03)


def test_top_p_excludes_unlikely_tokens():
    scores = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]]))
    kept = SeededChoice(Decoding(1, 1.0, top_p=0.79), ["a"])(None, scores).isfinite()
    assert kept.tolist() == [[True, True, False, False]]
    assert SeededChoice(Decoding(1, 1.0, top_p=0.01), ["a"])(None, scores).isfinite().sum() == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [((0,), "max_tokens"), ((1, -1.0), "temperature"), ((1, math.nan), "temperature"), ((1, 1.0, 0.0), "top_p")],
)
def test_invalid_values_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Decoding(*values)


def test_batch_is_halved_when_memory_runs_out_and_the_size_is_kept():
    sizes = []

    def work(items):
        sizes.append(len(items))
        if len(items) > 3:
            raise torch.OutOfMemoryError("no room")
        return [item * 10 for item in items]

    halving = Halving()
    assert halving.run(range(10), work) == [item * 10 for item in range(10)]
    assert sizes == [10, 5, 2, 2, 2, 2, 2]
    halving.run(range(4), work)
    assert sizes[7:] == [2, 2]


def test_item_too_large_alone_affects_only_itself():
    def work(items):
        if 3 in items:
            raise torch.OutOfMemoryError("no room")
        return list(items)

    assert Halving().run(range(6), work) == [0, 1, 2, None, 4, 5]


def test_seeds_are_stable():
    assert seed_of(0, "clip") == 6908975956495798920
    assert device_and_dtype("cpu", "auto") == ("cpu", torch.float32)
    assert device_and_dtype("cpu", "bf16") == ("cpu", torch.bfloat16)
