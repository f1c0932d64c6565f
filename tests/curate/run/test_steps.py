"""The order of the stages, the columns they read, and stages that need all clips at once."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curate.config import pipeline_file
from curate.dataset.run import Run
from curate.errors import ConfigError
from curate.pipeline.plan import _grouped
from curate.run.steps import _writer_of
from tests.project import Rushes, moving
from tests.stages import vector_of
from tests.videos import write_video

STAGES = "tests.stages"
PIPELINE = f"""\
run: run
sources: footage
scan: {{min_clip_s: 1.0, max_clip_s: 4.0}}
measure:
  - use: {STAGES}.Length
  - use: {STAGES}.Brightness
  - use: {STAGES}.Vector
  - use: {STAGES}.VectorSum
  - use: {STAGES}.Rank
caption:
  - use: {STAGES}.Says
  - {{use: {STAGES}.Says, name: again}}
keep:
  rank: {{above: p30}}
  length_says: {{above: 3}}
"""


def made(folder: Path, text: str = PIPELINE) -> Run:
    (folder / "footage").mkdir(exist_ok=True)
    (folder / "pipeline.yaml").write_text(text)
    return Run(str(folder / "run"), pipeline_file.load(folder / "pipeline.yaml"))


def test_measures_run_before_captions_and_reviews_after_them(tmp_path: Path) -> None:
    found = [(step.spec.name, step.kind, step.level) for step in made(tmp_path).steps]
    assert found == [
        ("brightness", "measure", 0),
        ("vector", "measure", 0),
        ("vector_sum", "measure", 1),
        ("rank", "measure", 2),
        ("says", "caption", 0),
        ("again", "caption", 0),
        ("length", "review", 0),
    ]


def test_stage_reads_all_captioners_or_the_named_ones(tmp_path: Path) -> None:
    every = made(tmp_path).steps[-1]
    assert every.columns == ["length_says", "length_again"]
    assert every.made_from == ("clips", "says", "again")
    one = made(tmp_path, PIPELINE.replace(".Length", ".Length\n    captions: [says]")).steps[-1]
    assert one.columns == ["length_says"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            PIPELINE[PIPELINE.index("caption:") : PIPELINE.index("keep:")],
            "",
            "reads captions, but no captioner runs before it",
        ),
        (f"  - use: {STAGES}.Vector\n", "", "reads the column 'vector', which no earlier stage writes"),
    ],
)
def test_reading_a_missing_column_raises_config_error(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _ = made(tmp_path, PIPELINE.replace(old, new)).steps


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("caption: {sais: 1}", "shards: caption: there is no captioner 'sais'; did you mean 'says'"),
        ("caption: {says: 0}", "shards.caption.says: Input should be greater than 0"),
        (
            "suffix: {', dark': {brightnes: {below: 9}}}",
            "suffix ', dark': there is no column 'brightnes'; did you mean",
        ),
        ("suffix: {', dark': {brightness: {under: 9}}}", "unknown key 'shards.suffix., dark.brightness.under'"),
    ],
)
def test_training_caption_with_an_unknown_captioner_or_column_raises_config_error(
    tmp_path: Path, line: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        _ = made(tmp_path, f"{PIPELINE}shards:\n  {line}\n").steps


def test_failed_stage_check_stops_the_run_before_it_starts(tmp_path: Path, rushes: Rushes) -> None:
    (tmp_path / "footage").mkdir()
    write_video(tmp_path / "footage" / "one.mp4", moving(60, 1, 20), 25, gop=25)
    made(tmp_path, f"run: run\nsources: footage\nmeasure:\n  - {{use: {STAGES}.Needy, server: nowhere}}\n")
    for command in ("run", "check"):
        done = rushes(command, cwd=tmp_path)
        assert (done.code, done.err) == (2, f"rushes: pipeline.yaml:4: {STAGES}.Needy: no server answers at nowhere\n")
    assert not (tmp_path / "run").exists()


def test_failed_setup_names_the_stage_and_the_run_resumes_with_other_weights(tmp_path: Path, rushes: Rushes) -> None:
    (tmp_path / "footage").mkdir()
    write_video(tmp_path / "footage" / "a.mp4", moving(80, 1), 25, gop=25)
    for name in ("bad", "good"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(name)
    made(tmp_path, f"run: run\nsources: footage\nmeasure:\n  - {{use: {STAGES}.Picky, weights: 'dir:bad'}}\n")
    done = rushes("run", cwd=tmp_path)
    message = f"rushes: picky ({STAGES}.Picky) cannot start with weights bad: OSError: there are no tensors\n"
    assert (done.code, done.err) == (1, message)
    made(tmp_path, (tmp_path / "pipeline.yaml").read_text().replace("bad", "good"))
    assert rushes("run", cwd=tmp_path).code == 0


def test_small_parts_are_grouped_into_batches(tmp_path: Path) -> None:
    run = made(tmp_path)
    run.clips_table.begin({})
    for part in range(5):
        rows = [dict.fromkeys(run.clips_table.schema.names) | {"clip_id": f"{part}{i}"} for i in range(10)]
        run.clips_table.write(rows)
    wanted = {f"{part}{i}" for part in (0, 1, 2, 4) for i in range(10)}
    groups = list(_grouped(run.clips_table, pa.array(sorted(wanted)), 16))
    assert sorted(len(ids) for group in groups for ids in group.values()) == [10] * 4
    assert [sum(map(len, group.values())) for group in groups] == [20, 20]
    assert {i for group in groups for ids in group.values() for i in ids} == wanted


def test_batch_size_comes_from_pipeline_then_stage_then_default(tmp_path: Path) -> None:
    text = f"run: run\nsources: x\nmeasure:\n  - use: {STAGES}.Needy\n  - use: {STAGES}.Vector\n"
    assert [step.spec.batch_size for step in made(tmp_path, text).steps] == [5, 16]
    assert [step.spec.workers for step in made(tmp_path, text).steps] == [1, None]
    text = text.replace("Needy", "Needy\n    batch_size: 7\n    workers: 3")
    spec = made(tmp_path, text).steps[0].spec
    assert (spec.batch_size, spec.workers) == (7, 3)


def test_options_that_change_no_value_are_not_in_the_claim(tmp_path: Path) -> None:
    def claimed(options: str) -> object:
        return made(tmp_path, f"run: run\nsources: x\nmeasure:\n  - {{use: {STAGES}.Needy{options}}}\n").claims["needy"]

    assert claimed(", timeout_s: 5") == claimed("")
    assert claimed(", server: there") != claimed("")


def test_missing_required_option_raises_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"pipeline.yaml:4: annotate.OpenAIServer needs the option 'model'"):
        _ = made(tmp_path, "run: run\nsources: x\ncaption:\n  - use: annotate.OpenAIServer\n").steps


def test_values_match_their_clips_and_whole_stages_rerun_when_a_clip_is_new(tmp_path: Path, rushes: Rushes) -> None:
    (tmp_path / "footage").mkdir()
    write_video(tmp_path / "footage" / "one.mp4", np.concatenate([moving(60, 1, 20), moving(75, 3, 60)]), 25, gop=25)
    run = made(tmp_path)
    for n in (1, 2):
        done = rushes("run", cwd=tmp_path)
        assert done.code == 0, done.err
        wide = run.wide().set_index("clip_id")
        assert wide["error"].isna().all()
        assert {i: list(v) for i, v in wide["vector"].items()} == {i: vector_of(str(i)) for i in wide.index}
        assert wide["vector_sum"].to_dict() == {i: sum(vector_of(str(i))) for i in wide.index}
        by_rank = wide["vector_sum"].rank(method="min").sub(1).div(len(wide))
        assert wide["rank"].to_numpy() == pytest.approx(by_rank.to_numpy())
        captioned = set(run.selection(("measure",)).clip_ids)
        assert 0 < len(captioned) < len(wide)
        captioned_rows = wide[wide["length_says"].notna()]
        assert captioned <= set(captioned_rows.index)
        assert (captioned_rows["length_says"] == captioned_rows["caption_says"].str.len()).all()
        if n == 1:
            write_video(tmp_path / "footage" / "two.mp4", moving(150, 4, 90), 25, gop=25)
    assert len(list((tmp_path / "run" / "measures" / "rank").glob("part-*"))) == 1


def test_comparing_vectors_of_different_models_raises_config_error(tmp_path: Path) -> None:
    measures = f"  - use: {STAGES}.Brightness\n  - {{use: filters.OpenClip, model: ViT-B-32}}\n  - use: filters.CaptionSimilarity\n"
    text = f"run: run\nsources: x\nmeasure:\n{measures}caption:\n  - use: {STAGES}.Says\n"
    with pytest.raises(
        ConfigError,
        match=r"has model ViT-L-14, but reads the vectors of filters\.OpenClip with ViT-B-32; set the same model",
    ):
        _ = made(tmp_path, text).steps
    assert made(tmp_path, text.replace("CaptionSimilarity", "CaptionSimilarity\n    model: ViT-B-32")).steps


def test_svd_pipeline_runs_in_the_order_of_the_paper() -> None:
    file = Path(__file__).resolve().parents[3] / "pipelines" / "svd.yaml"
    run = Run("nowhere", pipeline_file.load(file))
    found = [(step.spec.name, step.kind, step.level) for step in run.steps]
    assert found == [
        ("motion", "measure", 0),
        ("text_area", "measure", 0),
        ("open_clip", "measure", 0),
        ("aesthetic", "measure", 1),
        ("coca", "caption", 0),
        ("vlm", "caption", 0),
        ("summary", "caption", 1),
        ("caption_similarity", "review", 0),
        ("mini_lm", "embed", 0),
    ]
    keep = {name: rule.above or rule.below for name, rule in run.pipeline.config.keep.items()}
    assert keep == {"motion": "p25", "aesthetic": "p25", "text_area": 0.07, "sim_coca": "p50"}
    assert run.pipeline.config.shards.caption == {"coca": 0.5, "vlm": 0.25, "summary": 0.25}


def test_rule_on_a_column_of_an_unused_filter_names_the_filter() -> None:
    assert _writer_of("aesthetic") == "; filters.Aesthetic writes it: add `- use: filters.Aesthetic` under measure:"
    assert (
        _writer_of("caption_flags")
        == "; annotate.CaptionCheck writes it: add `- use: annotate.CaptionCheck` under measure:"
    )
    assert _writer_of("nosuch") == ""
