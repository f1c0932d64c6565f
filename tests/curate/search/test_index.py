"""Search: by words, clip and picture, under conditions; an index that grows with the shards and can be opened as it was."""

import json
import shutil
from pathlib import Path

import cv2
import pytest

from curate.dataset.run import Run
from curate.errors import UsageError
from curate.search import index
from tests.project import Rushes, moving
from tests.videos import write_video

STAGES = "tests.stages"
PIPELINE = f"""\
run: run
sources: footage
scan: {{min_clip_s: 1.0, max_clip_s: 2.0, workers: 1}}
measure:
  - use: {STAGES}.Brightness
  - use: {STAGES}.Seen
caption:
  - use: {STAGES}.Says
  - {{use: {STAGES}.Repeats, name: other}}
embed:
  use: {STAGES}.CaptionVector
keep: {{brightness: {{above: 70}}}}
shards: {{workers: 1}}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory, rushes: Rushes) -> Path:
    folder = tmp_path_factory.mktemp("index")
    (folder / "footage").mkdir()
    for i in range(3):
        write_video(folder / "footage" / f"{i}.mp4", moving(100, i + 1, 40 + 50 * i), 25, gop=25)
    (folder / "pipeline.yaml").write_text(PIPELINE)
    done = rushes("run", cwd=folder)
    assert done.code == 0, done.err
    return folder


@pytest.fixture
def run(project: Path) -> Run:
    return Run.open(project / "run")


def test_a_clip_finds_what_looks_like_it(run: Run) -> None:
    clips = run.clips(columns=["brightness"]).sort_values("brightness")
    kept = [clip_id for clip_id in clips["clip_id"] if clip_id in run.selection().clip_ids]
    hits = index.search(run, clip=kept[0])
    assert kept[0] not in [hit["clip_id"] for hit in hits]
    assert len(hits) == len(kept) - 1
    assert hits[0]["score"] >= hits[-1]["score"]
    assert hits[0]["ranked_by"] == "seen"
    assert "seen" not in hits[0]
    assert "picture" not in hits[0]


def test_a_picture_finds_the_clip_it_is_of(run: Run, tmp_path: Path) -> None:
    wanted = max(run.selection().clip_ids)
    cv2.imwrite(str(tmp_path / "p.png"), run.frames(wanted)[0][..., ::-1])
    assert index.search(run, image=str(tmp_path / "p.png"))[0]["clip_id"] == wanted
    (tmp_path / "no.png").write_text("no picture")
    for path, message in (
        (tmp_path / "no.png", "is not a picture that can be read"),
        (tmp_path / "x", "there is no picture"),
    ):
        with pytest.raises(UsageError, match=message):
            index.search(run, image=str(path))


def test_words_are_compared_with_captions_pictures_or_letter_by_letter(run: Run) -> None:
    assert index.search(run, "anything")[0]["ranked_by"] == "seen"
    assert index.search(run, "anything", by="caption")[0]["ranked_by"] == "caption_vector"
    hits = index.search(run, "another", by="words")  # the second captioner's
    assert len(hits) == len(run.selection().clip_ids)
    assert hits[0]["ranked_by"] == "full text"
    assert index.search(run, "nowhere", by="words") == []
    with pytest.raises(UsageError, match="one at a time"):
        index.search(run, "a", clip="b")
    with pytest.raises(UsageError, match="searched --by picture"):
        index.search(run, clip="b", by="caption")
    with pytest.raises(UsageError, match="there is no clip 'b'"):
        index.search(run, clip="b")
    with pytest.raises(UsageError, match="is not the id of a clip"):
        index.search(run, clip="' or 1=1")


def test_search_without_a_hit_is_a_frame_with_its_columns(run: Run) -> None:
    hits = run.search("anything")
    none = run.search("anything", where="brightness > 1000")
    assert none.empty
    assert list(none.columns) == list(hits.columns)
    assert none["ranked_by"].tolist() == []


def test_poor_fit_is_reported_below_the_limit_of_the_stage(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    hits = index.search(run, "anything", by="caption")
    assert index.poor_fit(run, hits) is None, "a stage without a limit"
    monkeypatch.setitem(index.GOOD_COSINE, f"{STAGES}.CaptionVector", hits[0]["score"] + 0.01)
    assert "no clip fits well" in str(index.poor_fit(run, hits))
    monkeypatch.setitem(index.GOOD_COSINE, f"{STAGES}.CaptionVector", hits[0]["score"] - 0.01)
    assert index.poor_fit(run, hits) is None
    assert index.poor_fit(run, []) is None


def test_conditions_narrow_every_kind_of_search(run: Run) -> None:
    wide = run.clips(columns=["brightness"])
    kept = wide[wide["clip_id"].isin(run.selection().clip_ids)]
    limit = float(kept["brightness"].median())
    wanted = set(kept.loc[kept["brightness"] > limit, "clip_id"])
    for how in ({}, {"words": "anything"}, {"words": "another", "by": "words"}, {"words": "x", "by": "picture"}):
        hits = index.search(run, **how, where=f"brightness > {limit}")
        assert {hit["clip_id"] for hit in hits} == wanted
    with pytest.raises(UsageError, match="there is no column 'brightnes'; did you mean 'brightness'"):
        index.search(run, where="brightnes > 1")


def test_the_command(project: Path, run: Run, rushes: Rushes) -> None:
    done = rushes(
        "search", "run", "anything", "--where", "brightness > 0", "--sheet", "sheet.png", "-n", "2", cwd=project
    )
    assert done.code == 0, done.err
    assert "(ranked by seen)" in done.out
    assert cv2.imread(str(project / "sheet.png")).shape[0] > 200
    clip_id = run.selection().clip_ids[0]
    hits = json.loads(rushes("search", "run", "--clip", clip_id, "--json", cwd=project).out)
    assert hits
    assert rushes("search", "run", cwd=project).err.startswith("rushes: nothing to search for:")
    assert "--by is auto" in rushes("search", "run", "x", "--by", "smell", cwd=project).err
    assert "has no version 7 of the shards" in rushes("search", "run", "x", "--version", "7", cwd=project).err


def test_the_index_follows_the_shards_and_old_versions_can_be_opened(project: Path, run: Run, rushes: Rushes) -> None:
    copy = project / "copy"
    shutil.copytree(project / "run", copy)
    kept = {hit["clip_id"] for hit in index.search(run, where="brightness > 0", limit=99)}
    assert rushes("run", "--run", "copy", "--set", "keep={}", cwd=project).code == 0
    grown = Run.open(copy)
    everything = {hit["clip_id"] for hit in index.search(grown, where="brightness > 0", limit=99)}
    assert kept < everything == set(grown.selection().clip_ids)
    assert {hit["clip_id"] for hit in index.search(grown, "another", by="words", limit=99)} == everything
    assert rushes("run", "--run", "copy", "--set", "keep.brightness.above=p70", cwd=project).code == 0
    shrunk = Run.open(copy)
    few = {hit["clip_id"] for hit in index.search(shrunk, "anything", limit=99)}
    assert few == set(shrunk.selection().clip_ids) < everything
    assert {hit["clip_id"] for hit in index.search(shrunk, "anything", limit=99, version=1)} == everything
    # An index of another format, or a broken one, is rebuilt.
    for fault in ("format", "broken"):
        claim = json.loads((copy / "index.lance" / "_claim.json").read_text())
        if fault == "format":
            claim["format"] = 1
        else:
            shutil.rmtree(copy / "index.lance" / "clips.lance" / "_versions")
            claim["shards"] = {}
        (copy / "index.lance" / "_claim.json").write_text(json.dumps(claim))
        done = rushes("run", "--run", "copy", "--set", "keep.brightness.above=p70", cwd=project)
        assert done.code == 0, done.err
        assert {hit["clip_id"] for hit in index.search(Run.open(copy), "anything", limit=99)} == few


def test_a_notebook_has_all_of_it(run: Run) -> None:
    clip_ids = run.selection().clip_ids
    assert run.frames(clip_ids[0]).ndim == 4
    assert run.show(clip_ids[:2])._repr_jpeg_()[:3] == b"\xff\xd8\xff"
    assert run.play(clip_ids[0])._repr_html_().startswith("<video")
    assert list(run.search("anything", limit=2)["ranked_by"]) == ["seen", "seen"]
    funnel = run.funnel()
    assert funnel.loc["brightness >= 70", "left_clips"] == len(clip_ids)
    assert run.funnel({"brightness": {"above": "p50"}}).attrs["thresholds"]["brightness p50"] > 0
    narrow = run.arrow(columns=["brightness"], where="duration_s > 1 and brightness > 70")
    assert narrow.column("clip_id").to_pylist() == sorted(clip_ids)
    assert "caption_says" not in narrow.column_names
    for bad in (lambda: run.frames("x"), lambda: run.show(["x"]), lambda: run.play("x")):
        with pytest.raises(UsageError, match="x' "):
            bad()
