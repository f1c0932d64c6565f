"""Captions that come with the footage: each on its own clips only."""

import json
from pathlib import Path

import numpy as np
import pytest

from annotate import Existing
from annotate.existing import Span, beside, fitting, spans_of
from curate.clip import Clip
from curate.dataset.run import Run
from tests.project import Rushes, moving
from tests.videos import write_video

WHOLE = float("inf")


def clip(uri: Path | str, start_s: float = 0.0, end_s: float = 4.0, manifest: dict | None = None) -> Clip:
    columns = {"uri": str(uri), "manifest": json.dumps(manifest) if manifest is not None else None}
    return Clip(f"{start_s:g}", "s", start_s, end_s, 24.0, 96, 64, 36, (), (), columns)


@pytest.fixture(autouse=True)
def fresh():
    beside.cache_clear()


@pytest.mark.parametrize(
    ("found", "spans"),
    [
        ({"caption": "a dog"}, [Span(0, WHOLE, "a dog")]),
        ([{"start_s": 1, "end_s": 2.5, "caption": "x"}], [Span(1, 2.5, "x")]),
        ({"captions": [{"start": 1, "end": 2, "text": "x"}, {"text": "y"}]}, [Span(1, 2, "x"), Span(0, WHOLE, "y")]),
        ([], []),
    ],
)
def test_forms_of_json(found, spans):
    assert spans_of(found) == spans


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ("a dog", "expected a caption"),
        (["a dog"], "expected an object"),
        ([{"start_s": 1}], "no caption"),
        ([{"caption": 3}], "no caption"),
        ([{"caption": "x", "start_s": 2, "end_s": 1}], "below end_s"),
        ([{"caption": "x", "start_s": "0:01"}], "must be a number"),
    ],
)
def test_other_json_structures_are_refused(found, message):
    with pytest.raises(ValueError, match=message):
        spans_of(found)


@pytest.mark.parametrize(
    ("start_s", "end_s", "caption"),
    [
        (0, 4, "one"), (4, 8, "two"), (3, 7, "two"), (6, 10, "two"), (6.1, 12, None), (20, 24, None), (9.9, 30, None), (40, 44, "five"),
    ],
)  # fmt: skip
def test_caption_belongs_to_clips_within_its_times(start_s, end_s, caption):
    spans = [Span(0, 4, "one"), Span(4, 8, "two"), Span(30, 50, "four"), Span(39, 45, "five")]
    assert fitting(spans, start_s, end_s, 0.5) == caption


def test_order_of_caption_files(tmp_path):
    video = tmp_path / "film.v2.mp4"
    assert Existing()([clip(video)])[0] == {"clip_id": "0", "caption": None}
    beside.cache_clear()
    (tmp_path / "film.v2.txt").write_text("\ufeff A dog\nruns. \n", encoding="utf-8")
    assert Existing()([clip(video)])[0]["caption"] == "A dog runs."
    beside.cache_clear()
    (tmp_path / "film.v2.json").write_text('{"caption": "from json"}')
    assert Existing()([clip(video)])[0]["caption"] == "from json"
    assert Existing(suffixes=(".txt",))([clip(video)])[0]["caption"] == "A dog runs."
    assert Existing()([clip(video, manifest={"caption": "from the manifest"})])[0]["caption"] == "from the manifest"
    assert Existing(column="alt")([clip(video, manifest={"alt": "other"})])[0]["caption"] == "other"
    assert Existing()([clip(video, manifest={"caption": ""})])[0]["caption"] == "from json"


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe\x00", b'["x"]'])
def test_unreadable_file_is_an_error_of_its_clips(tmp_path, content):
    (tmp_path / "bad.json").write_bytes(content)
    (tmp_path / "good.txt").write_text("good")
    rows = Existing()([clip(tmp_path / "bad.mp4"), clip(tmp_path / "good.mp4", 4, 8)])
    assert rows[0]["error"].startswith(f"the captions in {tmp_path / 'bad.json'} cannot be read")
    assert rows[1] == {"clip_id": "4", "caption": "good"}


@pytest.mark.parametrize(
    ("options", "message"), [({"min_overlap": 0}, "min_overlap"), ({"suffixes": (".srt",)}, "suffixes")]
)
def test_invalid_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Existing(**options)


def test_captions_of_the_footage_go_through_a_run(tmp_path: Path, rushes: Rushes) -> None:
    """Through the engine: a manifest for one file, times for another, no caption for a third."""
    shots = np.concatenate([moving(50, 1, 40), moving(50, 2, 120)])
    for name in ("listed", "timed", "bare"):
        write_video(tmp_path / f"{name}.mp4", shots if name == "timed" else moving(50, len(name), 90), 25, gop=25)
    (tmp_path / "timed.json").write_text(json.dumps([{"start_s": 2.0, "end_s": 4.0, "caption": "the second shot"}]))
    (tmp_path / "list.csv").write_text("uri,caption\nlisted.mp4,from the list\ntimed.mp4,\nbare.mp4,\n")
    (tmp_path / "pipeline.yaml").write_text(
        "run: run\nsources: list.csv\nscan: {min_clip_s: 1.0, max_clip_s: 4.0}\ncaption:\n  - use: annotate.Existing\n"
    )
    done = rushes("run", cwd=tmp_path)
    assert done.code == 0, done.err
    wide = Run.open(tmp_path / "run").wide()
    captions = {
        (Path(row.uri).stem, round(row.start_s)): row.caption_existing
        for row in wide.astype(object).where(wide.notna(), None).itertuples()
    }
    assert captions == {
        ("listed", 0): "from the list",
        ("timed", 0): None,
        ("timed", 2): "the second shot",
        ("bare", 0): None,
    }
