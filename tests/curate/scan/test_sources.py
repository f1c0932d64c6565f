"""Discovery, content-derived ids, duplicates."""

import io
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from curate.config.config import SourcesConfig
from curate.errors import UsageError
from curate.scan import ids, sources


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two videos (one in a subfolder, with an unusual name), a text file and a hidden file."""
    (tmp_path / "in" / "deep er 🎬").mkdir(parents=True)
    (tmp_path / "in" / "a.mp4").write_bytes(b"a")
    (tmp_path / "in" / "deep er 🎬" / "b'ö[1].MKV").write_bytes(b"b")
    (tmp_path / "in" / "notes.txt").write_bytes(b"n")
    (tmp_path / "in" / ".hidden.mp4").write_bytes(b"h")
    return tmp_path


def named(given: str) -> SourcesConfig:
    return SourcesConfig.model_validate(given)


def found(given: str, base: Path) -> list[str]:
    return [str(Path(uri).relative_to(base)) for uri in sources.discover(named(given), base)]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param("in", ["in/a.mp4", "in/deep er 🎬/b'ö[1].MKV"], id="directory, recursive, videos only"),
        pytest.param("in/a.mp4", ["in/a.mp4"], id="file"),
        pytest.param("in/notes.txt", ["in/notes.txt"], id="a file named outright is taken, whatever it is called"),
        pytest.param("in/*.mp4", ["in/a.mp4"], id="glob"),
        pytest.param("in/**/*", ["in/a.mp4", "in/deep er 🎬/b'ö[1].MKV", "in/notes.txt"], id="glob, recursive"),
        pytest.param(
            "in/deep er 🎬/b'ö[1].MKV", ["in/deep er 🎬/b'ö[1].MKV"], id="a name with brackets is a name first"
        ),
    ],
)
def test_given_sources_are_found(folder: Path, given: str, expected: list[str]) -> None:
    assert [name for name in found(given, folder) if "hidden" not in name] == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("nowhere", "there is no file or directory 'nowhere'"),
        ("in/*.avi", "no file matches 'in/*.avi'"),
        ("empty", "the directory 'empty' holds no video file"),
        ("nouri.csv", "the manifest 'nouri.csv' has no column 'uri' (it has path)"),
        ("torn.parquet", "the manifest 'torn.parquet' cannot be read"),
        ("nosuchscheme://bucket/x", "'nosuchscheme://bucket/x' cannot be reached: Protocol not known"),
    ],
)
def test_a_missing_source_is_reported_by_the_given_path(folder: Path, given: str, message: str) -> None:
    (folder / "empty").mkdir()
    (folder / "nouri.csv").write_text("path\na.mp4\n")
    (folder / "torn.parquet").write_bytes(b"PAR1")
    with pytest.raises(UsageError) as error:
        sources.discover(named(given), folder)
    assert message in str(error.value)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_manifest_names_files_relative_to_itself_and_keeps_its_other_columns(folder: Path, suffix: str) -> None:
    frame = pd.DataFrame({"uri": ["a.mp4", "gone.mp4"], "licence": ["CC0", "CC-BY"]})
    path = folder / "in" / f"list.{suffix}"
    frame.to_csv(path, index=False) if suffix == "csv" else frame.to_parquet(path)
    listed = sources.discover(named(f"in/list.{suffix}"), folder)
    assert listed == {
        str(folder / "in" / "a.mp4"): '{"licence": "CC0"}',
        str(folder / "in" / "gone.mp4"): '{"licence": "CC-BY"}',
    }


def test_any_fsspec_url_is_listed() -> None:
    import fsspec

    fs = fsspec.filesystem("memory")
    fs.pipe_file("/bucket/x/a.mp4", b"a")
    assert list(sources.discover(named("memory://bucket/x"), Path("/"))) == ["memory:///bucket/x/a.mp4"]
    assert sources.identify("memory:///bucket/x/a.mp4", "sampled")["bytes"] == 1


def test_an_id_comes_from_the_content() -> None:
    big = bytes(range(256)) * 4096 * 5  # 5 MiB
    same, other = io.BytesIO(big), io.BytesIO(big[:-1] + b"?")
    assert ids.source_id(same, len(big)) == ids.source_id(io.BytesIO(big), len(big))
    assert ids.source_id(same, len(big)) != ids.source_id(other, len(big))
    assert ids.source_id(same, len(big)) != ids.source_id(same, len(big), "full")
    between = bytearray(big)
    between[int(1.5 * 2**20)] ^= 1  # outside the three samples: only the full digest changes
    assert ids.source_id(io.BytesIO(between), len(big)) == ids.source_id(same, len(big))
    assert ids.source_id(io.BytesIO(between), len(big), "full") != ids.source_id(same, len(big), "full")


def test_duplicate_files_are_one_source_in_any_order() -> None:
    rows = [("z.mp4", "s1", None), ("a.mp4", "s1", None), ("b.mp4", "s2", None), ("0.mp4", "s1", "broken")]
    blank = dict.fromkeys(sources.SCHEMA.names)
    for order in (rows, rows[::-1]):
        records = [{**blank, "uri": uri, "source_id": content, "error": error} for uri, content, error in order]
        frame = sources.with_duplicates(pa.Table.from_pylist(records, schema=sources.SCHEMA))
        duplicates = {
            uri: None if pd.isna(of) else of for uri, of in zip(frame["uri"], frame["duplicate_of"], strict=True)
        }
        assert duplicates == {"0.mp4": None, "a.mp4": None, "b.mp4": None, "z.mp4": "a.mp4"}
        assert [row["uri"] for row in sources.primary(frame)] == ["a.mp4", "b.mp4"]
