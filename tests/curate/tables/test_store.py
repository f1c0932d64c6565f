"""Storage that fails: what is told in one sentence, what is waited for, what is swept away."""

import uuid
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from curate.errors import RunError
from curate.tables import store


class NoServerError(Exception):
    """As a client of object storage raises it: no OSError."""


@pytest.mark.parametrize(
    ("method", "act", "told"),
    [
        ("pipe_file", lambda uri: store.put(uri, b"x"), "written"),
        ("cat_file", store.get, "read"),
        ("ls", lambda uri: store.names(uri, ".parquet"), "listed"),
        ("exists", store.exists, "looked for"),
        ("exists", store.remove, "removed"),
        ("open", store.open_read, "read"),
    ],
)
def test_what_a_client_raises_is_one_sentence(
    method: str, act: Any, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise NoServerError("Could not connect to the endpoint")

    monkeypatch.setattr(MemoryFileSystem, method, refuse)
    with pytest.raises(
        RunError, match=f"^memory://run/x could not be {told}: Could not connect to the endpoint; when it can"
    ):
        act("memory://run/x")


def test_a_file_that_is_not_there_is_no_failure_of_storage() -> None:
    where = f"memory://{uuid.uuid4().hex}/x"
    with pytest.raises(FileNotFoundError):
        store.get(where)
    assert store.get_json(where) is None
    assert store.names(where, ".json") == []


def test_a_server_is_waited_for_when_it_has_answered_before(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_what_was_left_aside_goes_from_all_folders(tmp_path: Path) -> None:
    left = [tmp_path / ".a.0.tmp", tmp_path / "report" / "page" / ".wall.js.0.tmp"]
    left[1].parent.mkdir(parents=True)
    for path in (*left, tmp_path / "report" / "x.tmp"):
        path.write_bytes(b"half")
    store.sweep(str(tmp_path))
    assert [path.exists() for path in left] == [False, True]
    store.sweep(str(tmp_path), deep=True)
    assert not left[1].exists()
    assert (tmp_path / "report" / "x.tmp").exists()
