"""The stage contract: options, schema, keyed results, and a bad clip affects only itself."""

import cv2
import numpy as np
import pyarrow as pa
import pytest

from curate.clip import Clip, ThumbnailError
from curate.errors import ConfigError, UsageError
from curate.stages import stage
from curate.stages.stage import StageSpec


def clip(clip_id: str, level: int = 100, n: int = 3, jpeg: bytes | None = None) -> Clip:
    picture = cv2.imencode(".jpg", np.full((16, 16, 3), level, np.uint8))[1].tobytes()
    return Clip(clip_id, "s", 0.0, n / 2, 25.0, 12 * n, 16, 16, (jpeg or picture,) * n, tuple(i / 2 for i in range(n)))


def ready(use: str, **options: object) -> tuple[object, dict[str, str]]:
    spec = StageSpec(f"tests.stages.{use}", "x", options)
    built = stage.ready(spec)
    return built, stage.column_names(built, spec, "measure")


def test_results_do_not_depend_on_order_or_batch_size() -> None:
    built, names = ready("Brightness")
    clips = [clip(f"{i:x}", level=10 * i) for i in range(16)]
    rows = {row["clip_id"]: row for row in stage.apply(built, clips, names)}
    order = np.random.default_rng(0).permutation(16)
    for size in (1, 3, 16):
        again = [
            row
            for i in range(0, 16, size)
            for row in stage.apply(built, [clips[k] for k in order[i : i + size]], names)
        ]
        assert {row["clip_id"]: row for row in again} == rows


def test_bad_clip_affects_only_itself() -> None:
    built, names = ready("Fussy", on="7")
    rows = {row["clip_id"]: row for row in stage.apply(built, [clip(f"{i:x}") for i in range(16)], names)}
    assert rows["7"] == {"clip_id": "7", "fussy": None, "error": "clip 7 is not to my taste"}
    assert all(row["error"] is None and row["fussy"] == 1.0 for key, row in rows.items() if key != "7")


@pytest.mark.parametrize(
    ("use", "message"),
    [
        ("NotANumber", "nan is not a finite number"),
        ("Swapped", "RuntimeError: the stage was asked for 1 clips and answered with 0 rows"),
    ],
)
def test_invalid_result_becomes_a_failed_row(use: str, message: str) -> None:
    built, names = ready(use)
    for row in stage.apply(built, [clip("a"), clip("b")], names):
        assert row["error"].startswith(message)
        assert all(row[name] is None for name in names.values())


def test_corrupt_or_missing_thumbnail_fails_only_its_clip() -> None:
    built, names = ready("Brightness")
    rows = stage.apply(built, [clip("good"), clip("torn", jpeg=b"\xff\xd8 not a picture"), clip("none", n=0)], names)
    message = {row["clip_id"]: row["error"] for row in rows}
    assert message == {
        "good": None,
        "torn": "thumbnail 1 of clip torn cannot be decoded",
        "none": "clip none has no thumbnail",
    }


def test_table_schema_has_the_declared_columns() -> None:
    built, names = ready("Brightness")
    schema = stage.table_schema(built, names)
    assert schema == pa.schema([("clip_id", pa.string()), ("brightness", pa.float32()), ("error", pa.string())])


def test_caption_column_has_the_name_of_its_captioner() -> None:
    spec = StageSpec("tests.stages.Says", "plain")
    assert stage.column_names(stage.build(spec), spec, "caption") == {"caption": "caption_plain"}


def test_missing_package_is_reported_with_the_install_command() -> None:
    with pytest.raises(UsageError, match=r"needs the package 'no_such_package_at_all'.*pip install"):
        stage.ready(StageSpec("tests.stages.NeedsNothingThere", "x"))


@pytest.mark.parametrize("use", ["Motion", "json.JSONDecoder", "filters.Motoin", "no.such.Thing"])
def test_name_of_no_stage_raises_config_error(use: str) -> None:
    with pytest.raises(ConfigError):
        stage.build(StageSpec(use, "x"))


@pytest.mark.parametrize(
    ("use", "name"),
    [("filters.Motion", "motion"), ("filters.TextArea", "text_area"), ("annotate.MiniLM", "mini_lm"), ("a.b.X", "x")],
)
def test_default_table_name_is_the_stage_in_snake_case(use: str, name: str) -> None:
    assert stage.table_name(use) == name


def test_frames_are_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    imdecode = cv2.imdecode
    monkeypatch.setattr(cv2, "imdecode", lambda *given: (decoded.append(1), imdecode(*given))[1])
    pictures = [cv2.imencode(".png", np.full((8, 8, 3), level, np.uint8))[1].tobytes() for level in (10, 20, 30, 40)]
    four = Clip("c", "s", 0.0, 2.0, 25.0, 50, 8, 8, tuple(pictures), (0.0, 0.5, 1.0, 1.5))
    assert [int(frame.mean()) for frame in (four.first, four.middle, four.last)] == [10, 30, 40]
    assert four.frames_THWC.shape == (4, 8, 8, 3)
    assert four.frames_THWC is four.frames_THWC
    assert [int(frame.mean()) for frame in (four.first, four.middle, four.last)] == [10, 30, 40]
    assert len(decoded) == 4
    with pytest.raises(ThumbnailError):
        _ = clip("none", n=0).frames_THWC
