"""`pipelines/svd.yaml` from footage to training captions, with small random models in place of the large ones."""

import json
from pathlib import Path

import pytest

from curate.dataset.run import Run
from tests.annotate import tiny_models
from tests.filters import tiny_openclip
from tests.project import ROOT, Rushes
from train_hooks.shard_index import read_index

CLIP = {**tiny_openclip.TINY, "embed_dim": 768}  # as long as the real vectors, which the real aesthetic head wants


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, shared_dir: Path) -> list[str]:
    """Local addresses in place of the pipeline's weights."""
    folder = tmp_path_factory.mktemp("weights")
    tiny_openclip.build(folder / "clip", CLIP)
    tiny_models.build_coca(folder / "coca")
    tiny_models.build_vlm(folder / "vlm")
    tiny_models.build_text(folder / "text")
    head = shared_dir / "assets" / "laion_heads" / "sac_logos_ava1_l14_linearMSE.pth"
    values = {
        "measure.open_clip.model": folder / "clip.json",
        "measure.open_clip.weights": f"dir:{folder / 'clip'}",
        "measure.caption_similarity.model": folder / "clip.json",
        "measure.caption_similarity.weights": f"dir:{folder / 'clip'}",
        "measure.aesthetic.weights": f"dir:{head}",
        "caption.coca.model": folder / "coca.json",
        "caption.coca.weights": f"dir:{folder / 'coca'}",
        "caption.coca.max_tokens": 8,
        "caption.vlm.weights": f"dir:{folder / 'vlm'}",
        "caption.vlm.max_tokens": 8,
        "caption.summary.weights": f"dir:{folder / 'text'}",
        "caption.summary.max_tokens": 8,
        "keep.text_area.below": 1,
    }
    return [part for key, value in values.items() for part in ("--set", f"{key}={value}")]


def test_svd_pipeline_runs_from_footage_to_training_captions(
    settings: list[str], shared_dir: Path, tmp_path: Path, rushes: Rushes
) -> None:
    reel = shared_dir / "footage" / "reel_a.mp4"
    where = ["--run", tmp_path / "run", "--sources", reel]
    done = rushes("run", ROOT / "pipelines" / "svd.yaml", *where, *settings)
    assert done.code == 0, done.err
    run = Run.open(tmp_path / "run")
    wide = run.wide()
    assert wide["error"].isna().all()
    captioned = wide[wide["caption_coca"].notna()]
    assert 0 < len(captioned) < len(wide)
    for name in ("coca", "vlm", "summary"):
        assert captioned[f"caption_{name}"].notna().all()
        assert (captioned[f"output_tokens_{name}"] <= 8).all()
        assert captioned[f"sim_{name}"].between(-1, 1).all()
    assert captioned["prompt_tokens_summary"].nunique() > 1
    index = json.loads((tmp_path / "run" / "shards" / "index.json").read_text())
    assert index["captions"] == {"mix": {"coca": 0.5, "vlm": 0.25, "summary": 0.25}, "suffix": []}
    clips = read_index(tmp_path / "run" / "shards").clips
    rows = wide.set_index("clip_id")
    assert {clip.clip_id for clip in clips} == set(run.selection().clip_ids)
    for clip in clips:
        shares = {rows.loc[clip.clip_id, f"caption_{name}"]: share for name, share in index["captions"]["mix"].items()}
        assert dict(clip.captions) == pytest.approx(shares)
