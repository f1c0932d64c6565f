"""Batched writing: a row says the same whatever stands beside it, alone or in a batch."""

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


def said(model, keys, decoding) -> dict[str, Written]:
    net, tokenizer = model
    inputs = tokenizer([PROMPTS[key] for key in keys], padding=True, return_tensors="pt")
    rows = write(net, dict(inputs), keys, decoding, tokenizer.pad_token_id)
    return dict(zip(keys, rows, strict=True))


@pytest.mark.parametrize("decoding", [Decoding(12), Decoding(12, 1.0, 0.9, seed=3)], ids=["greedy", "sampled"])
def test_neither_order_nor_batch_changes_a_row(model, decoding):
    together = said(model, list(PROMPTS), decoding)
    assert said(model, ["c", "d", "a", "b"], decoding) == together
    assert {key: said(model, [key], decoding)[key] for key in PROMPTS} == together
    assert together["b"].prompt_tokens == len(PROMPTS["b"])
    assert len({tuple(row.tokens) for row in together.values()}) >= 3


def test_draws_depend_on_the_seed_and_the_key(model):
    one, two = (said(model, list(PROMPTS), Decoding(12, 1.0, seed=seed)) for seed in (1, 2))
    assert one["a"].tokens != one["d"].tokens  # the same prompt, another clip
    assert one["a"].tokens != two["a"].tokens
    assert said(model, ["a"], Decoding(12))["a"].tokens == said(model, ["d"], Decoding(12))["d"].tokens


def test_an_answer_ends_at_its_end_token_or_at_the_limit(model):
    net, tokenizer = model
    free = said(model, ["a"], Decoding(8))["a"]
    assert (free.finish_reason, len(free.tokens)) == ("length", 8)
    net.generation_config.eos_token_id = [free.tokens[3], tokenizer.eos_token_id]
    try:
        ended = said(model, ["a"], Decoding(8))["a"]
    finally:
        net.generation_config.eos_token_id = tokenizer.eos_token_id
    assert ended.finish_reason == "stop"
    assert ended.tokens == free.tokens[: free.tokens.index(free.tokens[3])]


def test_draws_follow_the_probabilities():
    scores = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    drawn = Counter(
        int(SeededChoice(Decoding(1, temperature=2.0), [f"clip {i}"])(None, scores).argmax()) for i in range(4000)
    )
    wanted = (scores[0] / 2.0).softmax(0)
    assert [drawn[i] / 4000 for i in range(4)] == pytest.approx(wanted.tolist(), abs=0.03)


def test_top_p_leaves_the_unlikely_out():
    scores = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]]))
    kept = SeededChoice(Decoding(1, 1.0, top_p=0.79), ["a"])(None, scores).isfinite()
    assert kept.tolist() == [[True, True, False, False]]
    assert SeededChoice(Decoding(1, 1.0, top_p=0.01), ["a"])(None, scores).isfinite().sum() == 1


@pytest.mark.parametrize(
    ("values", "told"),
    [((0,), "max_tokens"), ((1, -1.0), "temperature"), ((1, math.nan), "temperature"), ((1, 1.0, 0.0), "top_p")],
)
def test_values_that_make_no_sense(values, told):
    with pytest.raises(ValueError, match=told):
        Decoding(*values)


def test_a_batch_is_halved_when_memory_runs_out_and_the_size_is_kept():
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


def test_what_is_too_large_alone_costs_itself():
    def work(items):
        if 3 in items:
            raise torch.OutOfMemoryError("no room")
        return list(items)

    assert Halving().run(range(6), work) == [0, 1, 2, None, 4, 5]


def test_seeds_do_not_change():
    assert seed_of(0, "clip") == 6908975956495798920
    assert device_and_dtype("cpu", "auto") == ("cpu", torch.float32)
    assert device_and_dtype("cpu", "bf16") == ("cpu", torch.bfloat16)
