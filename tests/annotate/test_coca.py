"""Coca on a small randomly initialised CoCa, and its beam search against exhaustive search."""

from itertools import product

import numpy as np
import pytest
import torch

from annotate import Coca
from annotate.coca import END, START, beam_search
from annotate.models.caption import COLUMNS, TOO_LARGE
from filters import OpenClip
from tests.filters.families import family


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from tests.annotate.tiny_models import build_coca

    return build_coca(tmp_path_factory.mktemp("coca") / "tiny")


def ready(folder, **options):
    stage = Coca(model=str(folder.with_suffix(".json")), weights=str(folder), device="cpu", max_tokens=8, **options)
    stage.setup()
    return stage


@pytest.fixture(scope="module")
def clips(make_clip):
    rng = np.random.default_rng(1)
    return [
        make_clip([rng.integers(0, 255, (48, 80, 3), np.uint8) // (1 + i % 3) for _ in range(1 + i)], f"clip{i}")
        for i in range(5)
    ]


def without_seconds(rows):
    return {row["clip_id"]: {k: v for k, v in row.items() if k != "seconds"} for row in rows}


def test_caption_depends_on_neither_order_nor_batch(folder, clips):
    stage = ready(folder)
    together = without_seconds(stage(clips))
    assert without_seconds(stage(clips[::-1])) == together
    assert {clip.clip_id: without_seconds(stage([clip]))[clip.clip_id] for clip in clips} == together
    assert set(together["clip0"]) == {"clip_id", *COLUMNS} - {"seconds"}
    assert len({row["caption"] for row in together.values()}) >= 3
    assert all(row["frames"] == 1 and 0 < row["output_tokens"] <= 8 for row in together.values())


def test_batch_equals_single_frames(folder, clips):
    """The GPU's code path, on the CPU."""
    stage = ready(folder)
    frames = [clip.middle for clip in clips]
    assert [a.text for a in stage._write(frames)] == [a.text for frame in frames for a in stage._write([frame])]


def test_one_beam_takes_the_likeliest_tokens(folder, clips):
    """Against the network's own forward pass."""
    stage = ready(folder, beams=1)
    encoder = stage._encoder
    pixels = encoder.pixels(np.stack([encoder.picture(clips[2].middle)]))
    ids = [START]
    with torch.inference_mode():
        for length in range(1, 9):
            logits = encoder.net(pixels, torch.tensor([ids]), output_labels=False)["logits"][0, -1]
            if length < 5:
                logits[END] = -torch.inf
            ids.append(int(logits.argmax()))
            if ids[-1] == END:
                break
    found = stage([clips[2]])[0]
    assert found["caption"] == " ".join(encoder.tokenize.decode([i for i in ids[1:] if i != END]).split())


@pytest.mark.parametrize("seed", family(range(6)))
def test_beam_search_finds_the_likeliest_text(seed):
    """Five words, at most four tokens, a beam for every prefix: against exhaustive search."""
    words, most = [*range(4), END], 5
    rng = np.random.default_rng(seed)
    table = {}

    def next_word(ids):
        if tuple(ids) not in table:
            table[tuple(ids)] = np.log(rng.dirichlet(np.full(len(words), 0.5)) + 1e-12)
        return table[tuple(ids)]

    def likelihood(ids):
        out = torch.full((len(ids), END + 1), -torch.inf)
        for row, beginning in zip(out, ids.tolist(), strict=True):
            row[words] = torch.tensor(next_word(beginning), dtype=torch.float32)
        return out

    (found,) = beam_search(likelihood, 1, beams=300, least=1, most=most)
    texts = {}
    for length in range(1, most):
        for text in product(words[:-1], repeat=length - 1):
            for last in words if length == most - 1 else [END]:
                whole = [*text, last]
                score = sum(next_word([START, *whole[:i]])[words.index(word)] for i, word in enumerate(whole))
                texts[tuple(whole)] = score / (len(whole) + (last != END))
    best = max(texts, key=texts.__getitem__)
    assert found.tokens == [word for word in best if word != END]
    assert found.finish_reason == ("stop" if best[-1] == END else "length")


def test_tagged_frames(folder, clips):
    row = ready(folder, tag_frames=3)(clips)[4]
    assert [tag["frame_index"] for tag in row["tagged_frames"]] == [0, 23, 23]
    assert row["tagged_frames"][1]["prompt"] == row["caption"]


def test_clip_too_large_for_the_gpu_affects_only_itself(folder, clips, monkeypatch):
    stage = ready(folder)
    wanted, real = without_seconds(stage(clips)), Coca._write

    def small_gpu(self, frames):
        if len(frames) > 1 or np.array_equal(frames[0], clips[3].middle):
            raise torch.OutOfMemoryError("no room")
        return real(self, frames)

    monkeypatch.setattr(Coca, "_write", small_gpu)
    monkeypatch.setattr("filters.models.openclip.Encoder.on_cpu", False)
    assert without_seconds(stage(clips)) == {**wanted, "clip3": {"clip_id": "clip3", "error": TOO_LARGE}}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beams": 0}, "beams"),
        ({"max_tokens": 5}, "max_tokens"),
        ({"max_tokens": 77}, "max_tokens"),
        ({"tag_frames": -1}, "tag_frames"),
    ],
)
def test_invalid_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Coca(**options)


def test_model_without_a_text_decoder_is_refused(tmp_path):
    from tests.filters import tiny_openclip

    file, _ = tiny_openclip.build(tmp_path / "clip")
    with pytest.raises(ValueError, match="no text decoder"):
        Coca(model=str(file), weights=str(tmp_path / "clip"), device="cpu").setup()
    assert OpenClip(model=str(file), weights=str(tmp_path / "clip")).columns


def test_call_before_setup_is_refused(clips):
    with pytest.raises(RuntimeError, match="setup"):
        Coca()(clips)
