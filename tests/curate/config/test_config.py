"""pipeline.yaml: valid files, and the error for each invalid one."""

from pathlib import Path

import jsonschema
import pytest
import yaml

from curate.cli.schema import build as build_schema
from curate.config import pipeline_file
from curate.config.config import Pipeline
from curate.dataset.run import Run
from curate.errors import ConfigError, UsageError

ROOT = Path(__file__).resolve().parents[3]
GOOD = """\
#!/usr/bin/env -S rushes run
run: runs/x
sources: footage
scan:
  min_clip_s: 2
  cuts: {use: curate.cuts.PySceneDetect, detector: content}
measure:
  - use: filters.Motion
    fps: 2
    workers: 2
keep:
  motion: {above: p25}
"""


def load(tmp_path: Path, text: str = GOOD, *overrides: str) -> Pipeline:
    path = tmp_path / "pipeline.yaml"
    path.write_text(text)
    return pipeline_file.load(path, overrides)


def test_valid_file_is_loaded(tmp_path: Path) -> None:
    loaded = load(tmp_path)
    assert loaded.config.sources.from_ == ["footage"]
    assert loaded.measure[0].name == "motion"
    assert loaded.measure[0].options == {"fps": 2}
    assert loaded.measure[0].workers == 2
    assert loaded.config.keep["motion"].above == "p25"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            ("min_clip_s: 2", "min_clip: 2"),
            "pipeline.yaml:5: unknown key 'scan.min_clip'; did you mean 'min_clip_s'?",
            id="key",
        ),
        pytest.param(
            ("measure:", "mesure:"),
            "pipeline.yaml:7: unknown key 'mesure'; did you mean 'measure'?",
            id="top-level key",
        ),
        pytest.param(
            ("measure:", "structure: 1\nmeasure:"),
            "pipeline.yaml:7: unknown key 'structure'",
            id="a key that begins like a type",
        ),
        pytest.param(("min_clip_s: 2", "min_clip_s: two"), "pipeline.yaml:5: scan.min_clip_s: ", id="type"),
        pytest.param(("min_clip_s: 2", "min_clip_s: -1"), "pipeline.yaml:5: scan.min_clip_s: ", id="range"),
        pytest.param(
            ("above: p25", "abov: p25"),
            "pipeline.yaml:12: unknown key 'keep.motion.abov'; did you mean 'above'?",
            id="rule key",
        ),
        pytest.param(
            ("above: p25", "above: q25"),
            "pipeline.yaml:12: keep.motion.above: expected a number, or a percentile",
            id="percentile",
        ),
        pytest.param(
            ("{above: p25}", "{}"),
            "pipeline.yaml:12: keep.motion: a rule needs 'above', 'below' or 'is'",
            id="empty rule",
        ),
        pytest.param(("sources: footage\n", ""), "pipeline.yaml: the key 'sources' is missing", id="missing"),
        pytest.param(("workers: 2", "workers: 0"), "pipeline.yaml:10: workers: ", id="runner key"),
        pytest.param(("use: filters.Motion", "fps: 3"), "pipeline.yaml:9: duplicate key 'fps'", id="twice"),
        pytest.param(
            ("run: runs/x", "run: ${RUSHES_TEST_UNSET}"), "pipeline.yaml:2: the environment variable", id="env"
        ),
        pytest.param(("keep:", "keep: ["), "pipeline.yaml:13: not valid YAML", id="syntax"),
        pytest.param(("- use: filters.Motion", "- name: x"), "pipeline.yaml:8: a stage needs `use:`", id="no use"),
    ],
)
def test_invalid_key_or_value_is_reported_with_line_and_nearest_key(
    tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    assert change[0] in GOOD
    with pytest.raises(ConfigError) as error:
        load(tmp_path, GOOD.replace(*change))
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("measure.motion.fsp=3", "filters.Motion has no option 'fsp'; did you mean 'fps'?"),
        ("measure.motion.use=filters.Motoin", "there is no stage 'filters.Motoin'; did you mean 'filters.Motion'?"),
        ("measure.motion.use=.nowhere.Motion", "'.nowhere.Motion' is not a dotted name such as filters.Motion"),
        ("measure.motion.use=nowhere.Motion", "there is no module 'nowhere' on the path"),
        ("measure.motion.fps=-1", "filters.Motion: "),
        ("scan.cuts.detector=adaptve", "Input should be 'adaptive', 'content'"),
        ("keep.moton.above=1", "keep: there is no column 'moton'; did you mean 'motion'?"),
        ("embed={use: annotate.MiniLM}", "reads the column 'caption', which no earlier stage writes"),
        (
            "measure=[{use: filters.Motion}, {use: filters.Motion, name: again}]",
            "writes the column 'motion', which the table 'motion' already has",
        ),
        ("measure=[{use: filters.Motion}, {use: filters.Motion}]", "two tables are called 'motion'"),
    ],
)
def test_invalid_stage_is_reported_before_anything_runs(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        _ = Run(str(tmp_path / "run"), load(tmp_path, GOOD, override)).claims
    assert message in str(error.value)


def test_overrides_change_nested_values_and_stage_options(tmp_path: Path) -> None:
    loaded = load(
        tmp_path,
        GOOD,
        "scan.min_clip_s=1.5",
        "measure.motion.fps=4",
        "measure.0.batch_size=3",
        "shards.fps=8",
        "keep.motion.above=0.2",
    )
    assert loaded.config.scan.min_clip_s == 1.5
    assert loaded.measure[0].options == {"fps": 4}
    assert loaded.measure[0].batch_size == 3
    assert loaded.config.shards.fps == 8
    assert loaded.config.keep["motion"].above == 0.2


@pytest.mark.parametrize("setting", ["nonsense", "measure.nosuch.fps=1", "run.deeper=1", "scan.min_clip_s=[1"])
def test_override_with_an_unknown_path_raises_usage_error(tmp_path: Path, setting: str) -> None:
    with pytest.raises(UsageError):
        load(tmp_path, GOOD, setting)


def test_variables_are_expanded_with_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUSHES_TEST_WHERE", "/data")
    loaded = load(tmp_path, GOOD.replace("footage", "${RUSHES_TEST_WHERE}/${RUSHES_TEST_UNSET:-clips}"))
    assert loaded.config.sources.from_ == ["/data/clips"]


def test_expanding_yaml_aliases_are_limited(tmp_path: Path) -> None:
    bomb = "a: &a [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
        f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcde", "bcdef", strict=True)
    )
    with pytest.raises(ConfigError, match="more than"):
        load(tmp_path, bomb + GOOD)


def test_schema_accepts_the_default_pipeline_and_rejects_unknown_keys() -> None:
    schema = build_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    pipeline = yaml.safe_load((ROOT / "pipeline.yaml").read_text())
    jsonschema.validate(pipeline, schema)
    for wrong in ({**pipeline, "mesure": []}, {**pipeline, "measure": [{"use": "filters.Motion", "fsp": 2}]}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)


def test_default_pipeline_is_an_executable_script() -> None:
    path = ROOT / "pipeline.yaml"
    assert path.stat().st_mode & 0o111
    assert path.read_text().splitlines()[0] == "#!/usr/bin/env -S rushes run"


def test_rule_outside_keep_suggests_its_path_under_keep(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text("sources: footage\n")
    with pytest.raises(ConfigError, match=r"unknown key 'motion'; did you mean 'keep\.motion\.above'\?"):
        pipeline_file.load(path, ["motion.above=p50"])
