"""Storage failures: error messages, retries, and deletion of temporary files."""

import uuid
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from curate.errors import RunError
from curate.tables import store


class NoServerError(Exception):
    """An exception of an object storage client; not an OSError."""


@pytest.mark.parametrize(
    ("method", "act", "message"),
    [
        ("pipe_file", lambda uri: store.put(uri, b"x"), "written"),
        ("cat_file", store.get, "read"),
        ("ls", lambda uri: store.names(uri, ".parquet"), "listed"),
        ("exists", store.exists, "checked"),
        ("exists", store.remove, "removed"),
        ("open", store.open_read, "read"),
    ],
)
def test_client_exception_becomes_a_run_error(
    method: str, act: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise NoServerError("Could not connect to the endpoint")

    monkeypatch.setattr(MemoryFileSystem, method, refuse)
    with pytest.raises(
        RunError, match=f"^memory://run/x could not be {message}: Could not connect to the endpoint; mend that"
    ):
        act("memory://run/x")


def test_missing_file_is_not_a_storage_failure() -> None:
    where = f"memory://{uuid.uuid4().hex}/x"
    with pytest.raises(FileNotFoundError):
        store.get(where)
    assert store.get_json(where) is None
    assert store.names(where, ".json") == []


def test_temporary_error_is_retried_only_after_a_first_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    exceptions = pytest.importorskip("botocore.exceptions")
    busy = exceptions.ClientError(
        {"Error": {"Code": "ServiceUnavailable"}, "ResponseMetadata": {"HTTPStatusCode": 503}}, "PutObject"
    )
    forbidden = exceptions.ClientError(
        {"Error": {"Code": "403"}, "ResponseMetadata": {"HTTPStatusCode": 403}}, "PutObject"
    )
    gone = exceptions.EndpointConnectionError(endpoint_url="http://x")
    monkeypatch.setattr(store, "_has_answered", False)
    assert not any(map(store._is_temporary, (busy, forbidden, gone)))
    monkeypatch.setattr(store, "_has_answered", True)
    assert store._is_temporary(busy)
    assert store._is_temporary(gone)
    assert not store._is_temporary(forbidden)


def test_sweep_deletes_temporary_files(tmp_path: Path) -> None:
    left = [tmp_path / ".a.0.tmp", tmp_path / "report" / "page" / ".wall.js.0.tmp"]
    left[1].parent.mkdir(parents=True)
    for path in (*left, tmp_path / "report" / "x.tmp"):
        path.write_bytes(b"half")
    store.sweep(str(tmp_path))
    assert [path.exists() for path in left] == [False, True]
    store.sweep(str(tmp_path), deep=True)
    assert not left[1].exists()
    assert (tmp_path / "report" / "x.tmp").exists()
