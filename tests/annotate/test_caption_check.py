"""CaptionCheck: right captions rank before wrong ones, on photographs too; every flag; values do not depend on the order."""

import json
from dataclasses import replace
from importlib.metadata import distribution

import cv2
import numpy as np
import pytest

from annotate import CaptionCheck, MiniLM
from annotate.caption_check import ranks, ring
from curate.clip import Clip
from filters import Conse
from filters.models.openclip import unit
from tests.filters import tiny_openclip


def located(address):
    package, inside = address.removeprefix("pip:").split(":", 1)
    return str(distribution(package.split("==")[0]).locate_file(inside))


@pytest.fixture(scope="module")
def check():
    made = CaptionCheck(captions=("vlm",), text_weights=located(MiniLM().weights))
    made.setup()
    return made


def clip(clip_id, caption, vector=None, **columns):
    named = {"caption_vlm": caption, "conse": vector, **columns}
    return Clip(clip_id, "s", 0.0, 1.0, 24.0, 24, 640, 360, (), (), named)


def test_ranks_equal_a_manual_computation():
    frames = np.eye(4, dtype=np.float32)
    assert ranks(frames, frames, 3).tolist() == [0, 0, 0, 0]
    assert ranks(np.roll(frames, -1, axis=0), frames, 3) == pytest.approx([2 / 3] * 4)  # one fits better, two as badly
    assert ranks(np.roll(frames, -1, axis=0), frames, 1) == pytest.approx([1.0] * 4)
    gap = frames.copy()
    gap[2] = np.nan
    assert np.isnan(ranks(gap, frames, 3)).tolist() == [False, False, True, False]
    assert np.isnan(ranks(frames, gap, 3)).tolist() == [False, False, True, False]
    assert np.isnan(ranks(frames[:1], frames[:1], 3)).all()


def test_ring_depends_on_the_set_of_clips_and_not_on_its_order():
    ids = [f"clip{i}" for i in range(20)]
    order = [ids[i] for i in ring(ids, 0)]
    assert order == [ids[::-1][i] for i in ring(ids[::-1], 0)]
    assert order != [ids[i] for i in ring(ids, 1)]


def test_right_captions_rank_before_wrong_ones_on_photographs(check, shared_dir):
    folder = shared_dir / "assets" / "coco_mini"
    pictures = json.loads((folder / "captions.json").read_text())
    labels = Conse(weights=located(Conse().weights), text_weights=located(Conse().text_weights))
    labels.setup()
    vectors = [labels.embed([cv2.imread(str(folder / picture["file"]))[..., ::-1]]) for picture in pictures]
    right, wrong = [], []
    for k in range(2):
        texts = [picture["captions"][k] for picture in pictures]
        for shift, into in ((0, right), (1, wrong)):
            shifted = np.roll(texts, shift).tolist()
            rows = check([clip(f"{i}", text, vectors[i]) for i, text in enumerate(shifted)])
            into += [row["caption_rank_vlm"] for row in rows]
            flagged = sum("vlm:mismatched" in row["caption_flags"] for row in rows)
            assert (flagged <= 3) if shift == 0 else (flagged >= 20)
    auc = np.mean([(w > r) + 0.5 * (w == r) for r in right for w in wrong])
    assert auc >= 0.9
    assert np.mean(right) < 0.1
    assert 0.4 < np.mean(wrong) < 0.6


def test_values_depend_neither_on_order_nor_on_clips_without_captions(check):
    rng = np.random.default_rng(0)
    vectors = unit(rng.normal(size=(12, 384)))
    words = ["a dog", "two cats", "a red bus", "rain", "a boat on a lake", "snow"]
    clips = [clip(f"c{i}", words[i % 6], vectors[i]) for i in range(12)]
    clips += [clip("none", None, vectors[0]), clip("blind", "a dog", None)]
    rows = {row["clip_id"]: row for row in check(clips)}
    assert {row["clip_id"]: row for row in check(clips[::-1])} == rows
    assert rows["none"] == {"clip_id": "none", "caption_rank_vlm": None, "caption_flags": ""}
    assert rows["blind"]["caption_rank_vlm"] is None
    assert all(0 <= rows[f"c{i}"]["caption_rank_vlm"] <= 1 for i in range(12))


def test_flags_name_captioner_and_defect(check):
    both = replace(
        check, captions=("vlm", "coca"), worst_rank=1.0, prompts=("Tell me what you see in this little film.",)
    )
    both.setup()
    cases = [
        ("A dog runs.", "", "stop", "vlm:no coca:empty"),
        ("A boat on a lake near a", "a boat", "length", "vlm:truncated"),
        ("I'm sorry, I cannot.", "a cat", "stop", "vlm:refused"),
        ("Tell me what you see in this little film. A cat.", "a tree", "stop", "vlm:echo"),
        ("go go go go go", "Ein Hund läuft auf der Straße.", "stop", "vlm:repeated coca:language"),
        *[("A bus.", f"bus {i}", "stop", "vlm:common") for i in range(6)],
    ]
    clips = [clip(f"c{i}", v, None, caption_coca=c, finish_reason_vlm=end) for i, (v, c, end, _) in enumerate(cases)]
    rows = both(clips)
    found = {row["clip_id"]: row["caption_flags"] for row in rows}
    assert found == {f"c{i}": wanted.replace("vlm:no ", "") for i, (*_, wanted) in enumerate(cases)}


def test_clip_weights_embed_texts_with_the_model_of_the_frames(tmp_path):
    file, _ = tiny_openclip.build(tmp_path / "tiny")
    stage = CaptionCheck(captions=("vlm",), model=str(file), weights=str(tmp_path / "tiny"), device="cpu")
    assert stage.reads == ("caption_vlm", "finish_reason_vlm?", "openclip")
    stage.setup()
    texts = ["a dog", "two cats on a red chair", "rain", "a boat"]
    vectors = unit(stage._encoder.encode_texts(texts).numpy())
    rows = stage([clip(f"c{i}", text, openclip=vectors[i]) for i, text in enumerate(texts)])
    assert [row["caption_rank_vlm"] for row in rows] == [0.0] * 4


@pytest.mark.parametrize(("options", "message"), [({"others": 0}, "others"), ({"worst_rank": 1.1}, "worst_rank")])
def test_invalid_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        CaptionCheck(**options)


def test_call_before_setup_is_refused():
    with pytest.raises(RuntimeError, match="setup"):
        CaptionCheck(captions=("vlm",))([clip("a", "a dog", np.ones(4, np.float32))])
