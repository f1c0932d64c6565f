"""Files of a run, wherever they lie: a local directory or any fsspec URL (`s3://`, `gs://`, `memory://` ...).

One promise: a file that is present is whole. On a disk it is written aside, flushed and renamed; on object storage one put does the same.
A put that was carried out but not acknowledged is simply done again: the same name, the same bytes.
"""

import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from curate.errors import RunError, RushesError, UsageError

PATIENT_TRIES = 10
"""How often s3fs tries a request that a server which answered before refuses or leaves unanswered; each is up to five tries of botocore's.
Ours: about two minutes of 503, ten of silence."""
_has_answered = False


def is_local(uri: str) -> bool:
    """Whether `uri` names a path of this machine (no scheme, or `file://`)."""
    return "://" not in uri or uri.startswith("file://")


def local_path(uri: str) -> Path:
    """The path of a local uri, absolute."""
    return local_path_of(uri).absolute()


def local_path_of(uri: str) -> Path:
    """The path of a local uri as it was given, relative or absolute."""
    return Path(uri.removeprefix("file://")).expanduser()


def normalise(uri: str) -> str:
    """An absolute path for a local uri; any other uri as it is."""
    return str(local_path(uri)) if is_local(uri) else uri


def join(root: str, *names: str) -> str:
    """`root/name/...` for paths and URLs alike."""
    return "/".join([root.rstrip("/"), *names])


def filesystem(uri: str) -> tuple[Any, str]:
    """The fsspec filesystem of `uri` and the path inside it. Raises UsageError for a scheme that this installation cannot reach."""
    try:
        fs, path = fsspec.core.url_to_fs(uri)
    except (ImportError, ValueError) as error:
        raise UsageError(f"'{uri}' cannot be reached: {error}") from error
    if "s3" in fs.protocol:
        _be_patient(fs)
    return fs, cast(str, path)


def _be_patient(fs: Any) -> None:
    """Lets s3fs wait for a server that is away for a while. One that never answered is told at once: its address may be wrong."""
    import s3fs.core

    if s3fs.core.CUSTOM_ERROR_HANDLER is not _may_pass:
        s3fs.core.set_custom_error_handler(_may_pass)
    fs.retries = PATIENT_TRIES if _has_answered else type(fs).retries


def _may_pass(error: Exception) -> bool:
    """Whether a request that ended so may end otherwise a little later: the server is at fault, or could not be reached."""
    from botocore.exceptions import ClientError, ConnectionError, HTTPClientError

    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return bool(_has_answered and (status >= 500 or status == 429))
    return _has_answered and isinstance(error, ConnectionError | HTTPClientError)


@contextmanager
def _told(uri: str, what: str) -> Iterator[None]:
    """Storage that fails is told in one sentence, whatever its client raises. A file that is not there, or not for us, stays what it is."""
    failures: type[Exception] = OSError if is_local(uri) else Exception
    try:
        yield
    except (RushesError, FileNotFoundError, IsADirectoryError, PermissionError):
        raise
    except failures as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise RunError(
            f"{uri} could not be {what}: {reason}; when it can be, the same command goes on from here"
        ) from error


def put(uri: str, data: bytes) -> None:
    """Writes a whole file in one step; what was there before is replaced.

    Raises RunError, in one sentence, when it cannot be written: a disk that is full or read-only, storage that stays away.
    """
    global _has_answered
    with _told(uri, "written"):
        _put(uri, data)
    _has_answered = _has_answered or not is_local(uri)


def _put(uri: str, data: bytes) -> None:
    fs, path = filesystem(uri)
    if isinstance(fs, LocalFileSystem):
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
        try:
            with aside.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(target)
        except BaseException:
            with suppress(OSError):  # a disk that has become read-only
                aside.unlink(missing_ok=True)
            raise
    else:
        fs.pipe_file(path, data)


def put_json(uri: str, value: Any) -> None:
    """Writes `value` as indented JSON, keys in their order: that of the rules under `keep:` says which drops a clip first."""
    put(uri, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


def get(uri: str) -> bytes:
    """The bytes of a file. Raises FileNotFoundError when there is none, RunError when storage does not answer."""
    fs, path = filesystem(uri)
    with _told(uri, "read"):
        return cast(bytes, fs.cat_file(path))


def get_json(uri: str) -> Any:
    """The parsed JSON of a file, or None when there is no such file. Raises RunError for a file that is no JSON: it was damaged."""
    try:
        return json.loads(get(uri))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise RunError(f"{uri} was damaged and is no JSON any more ({error}); bring back a whole one") from error


def open_read(uri: str) -> BinaryIO:
    """A seekable binary file object."""
    fs, path = filesystem(uri)
    with _told(uri, "read"):
        return cast(BinaryIO, fs.open(path, "rb"))


def open_arrow(uri: str) -> pa.NativeFile:
    """A file for Arrow's readers.

    They read ahead on threads of their own. One that still holds a Python object when the interpreter goes down ends the process by SIGABRT
    (`terminate called without an active exception`, Arrow 26: 8 of 100 processes that end behind `read_table` of a Python file), so a file on
    a disk is Arrow's own. On object storage there is none but Python's.
    """
    with _told(uri, "read"):
        return pa.OSFile(str(local_path(uri))) if is_local(uri) else pa.PythonFile(open_read(uri), mode="r")


def link(source: str, target: str) -> None:
    """Gives a whole file a second name, on object storage a copy; what bears that name already is replaced."""
    fs, path = filesystem(source)
    if not isinstance(fs, LocalFileSystem):
        with _told(target, "written"):
            fs.cp_file(path, filesystem(target)[1])
        return
    there = local_path(target)
    there.parent.mkdir(parents=True, exist_ok=True)
    there.unlink(missing_ok=True)
    try:
        os.link(path, there)
    except OSError:  # a file system without links
        put(target, get(source))


def sha256(uri: str) -> str | None:
    """The sha256 of a file, or None when there is none."""
    found = hashlib.sha256()
    try:
        with open_read(uri) as file:
            while piece := file.read(2**22):
                found.update(piece)
    except FileNotFoundError:
        return None
    return found.hexdigest()


def state(uri: str) -> str:
    """Changes when the file is written: its size, time and version, as far as its file system tells them. Raises FileNotFoundError."""
    fs, path = filesystem(uri)
    fs.invalidate_cache(path)
    found = fs.info(path)
    return repr(
        [found.get(name) for name in ("size", "mtime", "ino", "ETag", "etag", "LastModified", "updated", "generation")]
    )


def exists(uri: str) -> bool:
    """Whether a file or directory is there."""
    fs, path = filesystem(uri)
    with _told(uri, "looked for"):
        return bool(fs.exists(path))


def names(uri: str, suffix: str) -> list[str]:
    """Sorted names of the finished files in a directory that end in `suffix`; none when it does not exist."""
    fs, path = filesystem(uri)
    fs.invalidate_cache(path)
    try:
        with _told(uri, "listed"):
            found = fs.ls(path, detail=False)
    except FileNotFoundError:
        return []
    base = [str(name).rstrip("/").rsplit("/", 1)[-1] for name in found]
    return sorted(name for name in base if name.endswith(suffix) and not name.startswith("."))


def sizes(uri: str, suffix: str) -> dict[str, int]:
    """The same as `names`, with the bytes of each file."""
    fs, path = filesystem(uri)
    fs.invalidate_cache(path)
    try:
        found = {
            str(entry["name"]).rstrip("/").rsplit("/", 1)[-1]: int(entry["size"] or 0)
            for entry in fs.ls(path, detail=True)
        }
    except FileNotFoundError:
        return {}
    return {name: size for name, size in sorted(found.items()) if name.endswith(suffix) and not name.startswith(".")}


def remove(uri: str) -> None:
    """Deletes a file or a whole directory; nothing happens when it is not there."""
    fs, path = filesystem(uri)
    with _told(uri, "removed"):
        if fs.exists(path):
            fs.rm(path, recursive=True)


def sweep(uri: str, deep: bool = False) -> None:
    """Deletes what a killed writer left aside in a local directory (`.*.tmp`), or in all below it as well."""
    if is_local(uri) and local_path(uri).is_dir():
        for aside in local_path(uri).glob("**/.*.tmp" if deep else ".*.tmp"):
            with suppress(OSError):
                aside.unlink()
