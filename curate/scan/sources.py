"""The source files: a glob, a directory, a file, or a Parquet/CSV manifest with a `uri` column, local or any fsspec URL.

`discover` lists the files. `probe_file` reads the header of one in the sandbox; a file that is not a video becomes a row with an `error`.
Files with the same bytes have the same `source_id`. `duplicate_of` is not stored; `with_duplicates` computes it, so it depends neither on the
order of discovery nor on the order of probing.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from curate.config.config import SourcesConfig
from curate.errors import UsageError, printable
from curate.scan import ids
from curate.scan.uri_policy import Rules
from curate.tables import store
from curate.video import open as video
from curate.video.container import refuse_special
from curate.video.limits import Limits

SCHEMA = pa.schema(
    [
        ("uri", pa.string()),
        ("source_id", pa.string()),
        ("bytes", pa.int64()),
        ("duration_s", pa.float64()),
        ("fps", pa.float64()),
        ("width_px", pa.int32()),
        ("height_px", pa.int32()),
        ("codec", pa.string()),
        ("container", pa.string()),
        ("rotation_deg", pa.int32()),
        ("has_audio", pa.bool_()),
        ("bitrate_bps", pa.int64()),
        ("manifest", pa.string()),
        ("error", pa.string()),
    ]
)
VIDEO_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *(
            "3gp",
            "asf",
            "avi",
            "dv",
            "f4v",
            "flv",
            "gif",
            "h264",
            "hevc",
            "m2ts",
            "m2v",
            "m4v",
            "mkv",
            "mov",
            "mp4",
            "mpeg",
            "mpg",
        ),
        *("mts", "mxf", "ogm", "ogv", "rm", "ts", "vob", "webm", "wmv", "y4m"),
    )
)
MANIFEST_SUFFIXES = (".parquet", ".csv")
MANIFEST_ROWS = 20_000_000
"""Maximum rows of a manifest: about what the driver can hold in 16 GB. Ours."""


def discover(sources: SourcesConfig, base: Path) -> dict[str, str | None]:
    """Maps the uri of each source file to the manifest's other columns as JSON (None without a manifest), sorted by uri.

    Relative paths are relative to `base`, those in a manifest to the manifest's directory.

    Raises UsageError with the path as given when there is no file, and for a uri that the policy forbids (curate/scan/uri_policy.py).
    """
    root = sources.root
    rules = Rules(str(base / store.local_path_of(root)) if root and store.is_local(root) else root, sources.allow)
    found: dict[str, str | None] = {}
    for given in sources.from_:
        try:
            rules.check_credentials(given)
        except UsageError as error:
            raise UsageError(f"sources: an entry {error}") from error
        where = str(base / store.local_path_of(given)) if store.is_local(given) else given
        found.update(_expand(given, where, rules))
    for uri in found if root else ():
        try:
            rules.check_inside(uri)
        except UsageError as error:
            raise UsageError(f"sources: {printable(uri)} {error}") from error
    return dict(sorted(found.items()))


def _expand(given: str, where: str, rules: Rules) -> dict[str, str | None]:
    fs, path = store.filesystem(where)
    try:
        there = fs.exists(path)
    except (OSError, ValueError, PermissionError) as error:
        raise UsageError(f"sources: '{given}' cannot be reached: {error}") from error
    if not there:
        if not any(mark in given for mark in "*?["):
            raise UsageError(
                f"sources: there is no file or directory '{given}'; name your footage under sources: or with --sources, "
                f"or fetch four sample videos with  rushes footage footage"
            )
        matches = [str(match) for match in fs.glob(path) if not fs.isdir(match)]
        if not matches:
            raise UsageError(f"sources: no file matches '{given}'")
        return {_uri(fs, match): None for match in matches}
    if fs.isdir(path):
        videos = [
            str(file)
            for file in fs.find(path)
            if Path(str(file)).suffix.lower() in VIDEO_SUFFIXES and not Path(str(file)).name.startswith(".")
        ]
        if not videos:
            raise UsageError(
                f"sources: the directory '{given}' holds no video file (looked for {', '.join(sorted(VIDEO_SUFFIXES)[:6])} and others)"
            )
        return {_uri(fs, file): None for file in videos}
    if where.lower().endswith(MANIFEST_SUFFIXES):
        return _manifest(given, where, rules)
    return {_uri(fs, path): None}


def _uri(fs: Any, path: str) -> str:
    return store.normalise(str(fs.unstrip_protocol(path)))


def _manifest(given: str, where: str, rules: Rules) -> dict[str, str | None]:
    try:
        with store.open_arrow(where) as file:
            table = _parquet(given, file) if where.lower().endswith(".parquet") else pyarrow.csv.read_csv(file)
        columns, listed = table.column_names, table.to_pylist()  # raises on text that is not valid UTF-8
    except (OSError, ValueError, OverflowError, pa.ArrowException) as error:
        raise UsageError(f"sources: the manifest '{given}' cannot be read: {error}") from error
    if "uri" not in columns:
        raise UsageError(f"sources: the manifest '{given}' has no column 'uri' (it has {', '.join(columns) or 'none'})")
    rows: dict[str, str | None] = {}
    root = where.rsplit("/", 1)[0]
    for number, row in enumerate(listed, start=1):
        uri = row.pop("uri")
        if not isinstance(uri, str) or not uri.strip():
            raise UsageError(f"sources: row {number} of the manifest '{given}' has an empty uri")
        try:
            rules.check_credentials(uri)
            rules.check_named(uri, where)
        except UsageError as error:
            raise UsageError(f"sources: row {number} of the manifest '{given}' {error}") from error
        absolute = uri if "://" in uri or Path(uri).is_absolute() else store.join(root, uri)
        rows[store.normalise(absolute)] = json.dumps(row, default=str, ensure_ascii=False, sort_keys=True)
    if not rows:
        raise UsageError(f"sources: the manifest '{given}' lists no file")
    return rows


def _parquet(given: str, file: pa.NativeFile) -> pa.Table:
    manifest = pq.ParquetFile(file)
    if manifest.metadata.num_rows > MANIFEST_ROWS:  # a small file can declare more rows than fit into memory
        raise UsageError(
            f"sources: the manifest '{given}' has {manifest.metadata.num_rows} rows, more than {MANIFEST_ROWS}"
        )
    return manifest.read()


def probe_file(uri: str, limits: Limits | None = None) -> dict[str, Any]:
    """The row of one file, from its header. Runs in the sandbox. Raises VideoError or OSError when it is not a readable video."""
    info = video.probe(uri, limits=limits)
    return {
        "duration_s": info.duration_s,
        "fps": info.fps,
        "width_px": info.width_px,
        "height_px": info.height_px,
        "codec": info.codec,
        "container": info.container,
        "rotation_deg": info.rotation_deg,
        "has_audio": info.has_audio,
        "bitrate_bps": info.bitrate_bps,
    }


def identify(uri: str, digest: str) -> dict[str, Any]:
    """Size and content id of a file. Raises OSError when it cannot be read, VideoError when it is a pipe or a device."""
    refuse_special(uri)
    fs, path = store.filesystem(uri)
    size = int(fs.size(path) or 0)
    with store.open_read(uri) as file:
        return {"bytes": size, "source_id": ids.source_id(file, size, "full" if digest == "full" else "sampled")}


def with_duplicates(table: pa.Table) -> pd.DataFrame:
    """The sources with `duplicate_of`: null for the first path (alphabetically) of each readable content, that path for the others."""
    frame: pd.DataFrame = table.to_pandas().sort_values("uri", ignore_index=True)
    good = frame["error"].isna()
    first = frame[good].groupby("source_id")["uri"].transform("first")
    frame["duplicate_of"] = first.where(first != frame.loc[good, "uri"]).reindex(frame.index)
    return frame


def primary(frame: pd.DataFrame) -> Iterable[Mapping[str, Any]]:
    """The readable sources without duplicates."""
    return frame[frame["error"].isna() & frame["duplicate_of"].isna()].to_dict("records")  # type: ignore[return-value]
