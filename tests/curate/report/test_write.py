"""The files of the report: exact columns, sheets drawn once, facts. test_report_page.py tests the page."""

import base64
import json
import re
import shutil
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.dataset.run import Run
from curate.errors import RunError
from curate.report import columns as report_columns
from curate.report import facts as report_facts
from curate.report import write as report
from curate.report.pictures import Look


def facts_of(run: Path) -> tuple[dict[str, Any], Path]:
    """The facts in run.js, and the data folder."""
    index = (run / "report" / "index.html").read_text()
    folder = run / "report" / re.search(r'data-folder="([^"]+)"', index)[1]  # type: ignore[index]
    return json.loads(opened(folder / "run.js", "run")), folder


def opened(path: Path, name: str) -> bytes:
    """The bytes of a piece."""
    found = re.fullmatch(rf'deliver\("{name}","([A-Za-z0-9+/=]*)"\);\n', path.read_text())
    assert found, path
    return zlib.decompress(base64.b64decode(found[1]))


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("values", "kind", "of"),
    [
        ([1.5, None, -2.0], pa.float64(), "f32"),
        ([0.1, None, -2.0], pa.float64(), "f64"),
        ([0.1, None, 1e-45], pa.float32(), "f32"),
        ([1, None, 2**24 + 1], pa.int64(), "f64"),
        ([1, 2, None], pa.int8(), "f32"),
        ([1e300, None, 5e-324], pa.float64(), "f64"),
    ],
)
def test_numbers_are_exact(values: list[float | None], kind: pa.DataType, of: str) -> None:
    packed = report_columns.pack(pa.table({"clip_id": ["a", "b", "c"], "x": pa.array(values, kind)}))
    column = packed.columns[1]
    assert (column["kind"], column["type"], column["nulls"]) == ("number", of, 1)
    back = np.frombuffer(packed.pieces[column["piece"]], {"f32": "<f4", "f64": "<f8"}[of]).astype(np.float64)
    expected = pa.array(values, kind).cast(pa.float64()).to_numpy(zero_copy_only=False)
    np.testing.assert_array_equal(back, expected)


def test_kinds_of_columns() -> None:
    many = [f"text {i}" for i in range(report_columns.WORDS + 1)] + [None] * 2
    n = len(many)
    table = pa.table({
        "clip_id": [f"id{i}" for i in range(n)],
        "flag": pa.array([True, False, None] + [None] * (n - 3)),
        "word": ["a", "b", None] + ["a"] * (n - 3),
        "twin": ["id2", None, "id0"] + [None] * (n - 3),
        "text": many,
        "boxes": [[[0.0, float("nan")]], None, []] + [None] * (n - 3),
        "vector": pa.array([[1.0, 2.0]] * n, pa.list_(pa.float32(), 2)),
        "nothing": pa.nulls(n, pa.string()),
    })  # fmt: skip
    packed = report_columns.pack(table)
    kinds = {column["name"]: column["kind"] for column in packed.columns}
    assert kinds == {
        "clip_id": "text", "flag": "flag", "word": "word", "twin": "clip", "text": "text", "boxes": "text", "nothing": "word",
    }  # fmt: skip
    piece = {column["name"]: packed.pieces.get(column.get("piece", "")) for column in packed.columns}
    assert list(piece["flag"][:3]) == [1, 0, 255]
    assert np.frombuffer(piece["word"], "<u2")[:3].tolist() == [0, 1, 65535]
    assert np.frombuffer(piece["twin"], "<i4")[:3].tolist() == [2, -1, 0]
    rows = [
        row for name in sorted(packed.pieces) if name.startswith("text-") for row in json.loads(packed.pieces[name])
    ]
    assert len(rows) == n
    assert rows[0] == {"clip_id": "id0", "text": "text 0", "boxes": [[0.0, None]]}
    assert rows[-1] == {"clip_id": f"id{n - 1}"}


def test_sheets_of_thumbnails_are_drawn_once_and_removed_with_their_clips(run: Path) -> None:
    report.write(Run.open(run))
    facts, _ = facts_of(run)
    folder = run / "report" / "pictures"
    names = facts["pictures"]["sheets"]
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)
    look, sheet = facts["pictures"], cv2.imread(str(folder / names[0]))
    assert sheet.shape[1] == look["frames"] * look["width_px"]
    assert sheet.mean() > 5
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    (folder / "old.jpg").write_bytes(b"of a removed clip")
    (folder / names[-1]).unlink()
    report.write(Run.open(run))
    after = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert after.keys() == before.keys()
    assert [name for name in before if after[name] != before[name]] == [names[-1]]


def test_places_point_to_the_picture_of_each_clip(run: Path) -> None:
    opened_run = Run.open(run)
    facts, folder = facts_of(run)
    ids = json.loads(opened(folder / "ids.js", "ids"))
    places = np.frombuffer(opened(folder / "places.js", "places"), "<i4").reshape(-1, 2)
    look = facts["pictures"]
    for clip_id, jpegs in opened_run.thumbnails(set(ids)):
        sheet, row = places[ids.index(clip_id)]
        picture = cv2.imread(str(run / "report" / "pictures" / look["sheets"][sheet]))
        cell = picture[row * look["height_px"] : (row + 1) * look["height_px"], : look["width_px"]]
        first = cv2.imdecode(np.frombuffer(jpegs[0], np.uint8), cv2.IMREAD_COLOR)
        middle = cell[:, look["width_px"] // 2 - 20 : look["width_px"] // 2 + 20].mean()
        assert abs(middle - first[:, first.shape[1] // 3 : -first.shape[1] // 3].mean()) < 25
    assert len(ids) == len(opened_run.clip_ids())


def test_few_clips_have_large_pictures() -> None:
    assert Look.of(10) == Look(6, 256, 144)
    assert Look.of(10_000) == Look(6, 160, 90)
    assert Look.of(200_000) == Look(1, 160, 90)
    assert Look.of(0).frames == 6


def test_a_large_run_is_sampled(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MOST_CLIPS", 3)
    report.write(Run.open(run))
    facts, folder = facts_of(run)
    assert facts["rows"] == 3
    assert facts["clips"] == len(Run.open(run).clip_ids()) > 3
    assert len(set(json.loads(opened(folder / "ids.js", "ids")))) == 3


def test_errors_are_grouped_by_message_without_names_and_numbers() -> None:
    failures = [
        {"table": "sources", "uri": f"/v/{i}.mp4", "clip_id": None, "error": f"/v/{i}.mp4 is no video (frame {i})"}
        for i in range(9)
    ]
    failures += [{"table": "motion", "uri": "/v/1.mp4", "clip_id": "0123456789abcdef", "error": "out of memory"}]
    first, second = report_facts.error_groups(iter(failures))
    assert (first["count"], first["table"], len(first["examples"])) == (9, "sources", 5)
    assert (second["count"], second["message"]) == (1, "out of memory")


def test_trainings_come_with_their_curves_and_samples(run: Path) -> None:
    folder = run / "train" / "tiny"
    (folder / "samples").mkdir(parents=True)
    (run / "train" / "empty").mkdir()
    steps = 3 * report_facts.CURVE_STEPS
    losses = [None if i == 1 else float("nan") if i == 2 else 1.0 / (i + 1) for i in range(steps)]
    held = [0.5 if i == 1001 else None for i in range(steps)]
    stages = ["all"] * steps
    pq.write_table(
        pa.table(
            {
                "step": range(1, steps + 1),
                "stage": stages,
                "loss": losses,
                "heldout_loss": held,
                "fvd": pa.nulls(steps, pa.float64()),
            }
        ),
        folder / "metrics.parquet",
    )
    for i in range(10):
        (folder / "samples" / f"step-{i:04d}.png").write_bytes(b"png")
    (folder / "sample.mp4").write_bytes(b"mp4")
    report.write(Run.open(run))
    facts, _ = facts_of(run)
    (training,) = facts["trainings"]
    assert training["name"] == "tiny"
    assert set(training["curves"]) == {"step", "loss", "heldout_loss"}
    assert 0.5 in training["curves"]["heldout_loss"]
    assert len(training["curves"]["step"]) <= report_facts.CURVE_STEPS + 1
    titles = [sheet["title"] for sheet in training["sheets"]]
    assert (len(titles), titles[0], titles[-1]) == (report_facts.SHEETS, "step-0000", "step-0009")
    written = {path.name for path in (run / "report" / "trainings").iterdir()}
    assert written == {training["video"], *(sheet["file"] for sheet in training["sheets"])}


def test_a_damaged_training_has_a_problem_and_a_damaged_spent_json_is_an_error(run: Path) -> None:
    (run / "train" / "torn").mkdir(parents=True)
    (run / "train" / "torn" / "metrics.parquet").write_bytes(b"PAR1 and no more")
    report.write(Run.open(run))
    facts, _ = facts_of(run)
    assert facts["trainings"][0]["problem"].endswith("train/torn/metrics.parquet is damaged and cannot be read")
    (run / "spent.json").write_text("{half")
    with pytest.raises(RunError, match=r"spent\.json is not valid JSON"):
        report.write(Run.open(run))


def test_an_unfinished_run_has_a_page_without_ledger(run: Path) -> None:
    opened_run = Run.open(run)
    (part, *_) = opened_run.clips_table.parts()
    keys = dict(opened_run.clips_table.parts_with_keys())[part]
    opened_run.clips_table.drop_rows(set(keys[:1]))
    spans = opened_run.spans()
    opened_run.clips_table.drop_rows(
        {(clip,) for clip in spans[spans["source_id"] == spans["source_id"].iloc[0]]["clip_id"]}
    )
    report.write(Run.open(run))
    facts, _ = facts_of(run)
    assert facts["ledger"] is None


def test_the_previous_data_folder_is_kept(run: Path) -> None:
    folders = []
    for bound in ("p40", "p50", "p60"):
        report.write(Run.open(run, (f"keep.brightness.above={bound}",)))
        facts, folder = facts_of(run)
        assert facts["keep"] == [{"column": "brightness", "above": bound}]
        folders.append(folder)
        assert {path.name for path in (run / "report" / "data").iterdir()} >= {path.name for path in folders[-2:]}
    assert {path.name for path in (run / "report" / "data").iterdir()} == {path.name for path in folders[-2:]}


def test_the_page_refers_to_no_other_host() -> None:
    page = Path(report.__file__).parent / "page"
    for path in [*page.glob("*.js"), *page.glob("*.html"), *page.glob("*.css")]:
        assert not re.search(
            r"https?://|//cdn|innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", path.read_text()
        ), path
