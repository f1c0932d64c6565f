"""Files of a run, in a local directory or at any fsspec URL (`s3://`, `gs://`, `memory://` ...).

One guarantee: a file that exists is complete. On a disk it is written to a temporary file, flushed and renamed; on object storage one put is
atomic. A put that succeeded without an acknowledgement is repeated: same name, same bytes.
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
"""Attempts of s3fs for a request that a server, after having answered before, rejects or does not answer; each is up to five attempts of
botocore. Ours: about two minutes of 503, ten minutes without an answer."""
_has_answered = False


def is_local(uri: str) -> bool:
    """Whether `uri` is a path on this machine (no scheme, or `file://`)."""
    return "://" not in uri or uri.startswith("file://")


def local_path(uri: str) -> Path:
    """The path of a local uri, absolute."""
    return local_path_of(uri).absolute()


def local_path_of(uri: str) -> Path:
    """The path of a local uri as given, relative or absolute."""
    return Path(uri.removeprefix("file://")).expanduser()


def normalise(uri: str) -> str:
    """An absolute path for a local uri; any other uri unchanged."""
    return str(local_path(uri)) if is_local(uri) else uri


def join(root: str, *names: str) -> str:
    """`root/name/...` for paths and URLs alike."""
    return "/".join([root.rstrip("/"), *names])


def filesystem(uri: str) -> tuple[Any, str]:
    """The fsspec filesystem of `uri` and the path inside it. Raises UsageError for a scheme without an installed client."""
    try:
        fs, path = fsspec.core.url_to_fs(uri)
    except (ImportError, ValueError) as error:
        raise UsageError(f"'{uri}' cannot be reached: {error}") from error
    if "s3" in fs.protocol:
        _set_retries(fs)
    return fs, cast(str, path)


def _set_retries(fs: Any) -> None:
    """Makes s3fs retry while a server is temporarily unavailable. A server that never answered fails at once: its address may be wrong."""
    import s3fs.core

    if s3fs.core.CUSTOM_ERROR_HANDLER is not _is_temporary:
        s3fs.core.set_custom_error_handler(_is_temporary)
    fs.retries = PATIENT_TRIES if _has_answered else type(fs).retries


def _is_temporary(error: Exception) -> bool:
    """Whether a failed request is worth a retry: a server error, too many requests, or no connection."""
    from botocore.exceptions import ClientError, ConnectionError, HTTPClientError

    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return bool(_has_answered and (status >= 500 or status == 429))
    return _has_answered and isinstance(error, ConnectionError | HTTPClientError)


@contextmanager
def _one_error(uri: str, action: str) -> Iterator[None]:
    """Turns every exception of a storage client into a RunError of one sentence. A missing or forbidden file keeps its own exception."""
    failures: type[Exception] = OSError if is_local(uri) else Exception
    try:
        yield
    except (RushesError, FileNotFoundError, IsADirectoryError, PermissionError):
        raise
    except failures as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise RunError(
            f"{uri} could not be {action}: {reason}; mend that and run the same command to resume"
        ) from error


def put(uri: str, data: bytes) -> None:
    """Writes a whole file atomically and replaces an existing one.

    Raises RunError when it cannot be written: a full or read-only disk, unavailable storage.
    """
    global _has_answered
    with _one_error(uri, "written"):
        _put(uri, data)
    _has_answered = _has_answered or not is_local(uri)


def _put(uri: str, data: bytes) -> None:
    fs, path = filesystem(uri)
    if isinstance(fs, LocalFileSystem):
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        except BaseException:
            with suppress(OSError):  # the disk has become read-only
                temporary.unlink(missing_ok=True)
            raise
    else:
        fs.pipe_file(path, data)


def put_json(uri: str, value: Any) -> None:
    """Writes `value` as indented JSON. Keys keep their order, since the order of the rules under `keep:` matters."""
    put(uri, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


def get(uri: str) -> bytes:
    """The bytes of a file. Raises FileNotFoundError when it does not exist, RunError when storage does not answer."""
    fs, path = filesystem(uri)
    with _one_error(uri, "read"):
        return cast(bytes, fs.cat_file(path))


def get_json(uri: str) -> Any:
    """The parsed JSON of a file, or None when it does not exist. Raises RunError for malformed JSON."""
    try:
        return json.loads(get(uri))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise RunError(f"{uri} is not valid JSON ({error}); restore the file from a copy") from error


def open_read(uri: str) -> BinaryIO:
    """A seekable binary file object."""
    fs, path = filesystem(uri)
    with _one_error(uri, "read"):
        return cast(BinaryIO, fs.open(path, "rb"))


def open_arrow(uri: str) -> pa.NativeFile:
    """A file for Arrow's readers.

    Arrow reads ahead on its own threads. A thread that still holds a Python object when the interpreter exits aborts the process with SIGABRT
    (`terminate called without an active exception`, Arrow 26: 8 of 100 processes that exit right after `read_table` of a Python file). So Arrow
    opens a local file itself; object storage needs a Python file.
    """
    with _one_error(uri, "read"):
        return pa.OSFile(str(local_path(uri))) if is_local(uri) else pa.PythonFile(open_read(uri), mode="r")


def link(source: str, target: str) -> None:
    """Gives a file a second name by a hard link; on object storage, a copy. An existing target is replaced."""
    fs, path = filesystem(source)
    if not isinstance(fs, LocalFileSystem):
        with _one_error(target, "written"):
            fs.cp_file(path, filesystem(target)[1])
        return
    place = local_path(target)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    try:
        os.link(path, place)
    except OSError:  # a file system without links
        put(target, get(source))


def sha256(uri: str) -> str | None:
    """The sha256 of a file, or None when it does not exist."""
    found = hashlib.sha256()
    try:
        with open_read(uri) as file:
            while block := file.read(2**22):
                found.update(block)
    except FileNotFoundError:
        return None
    return found.hexdigest()


def state(uri: str) -> str:
    """A text that changes when the file is written: size, time and version, as far as the file system has them. Raises FileNotFoundError."""
    fs, path = filesystem(uri)
    fs.invalidate_cache(path)
    found = fs.info(path)
    return repr(
        [found.get(name) for name in ("size", "mtime", "ino", "ETag", "etag", "LastModified", "updated", "generation")]
    )


def exists(uri: str) -> bool:
    """Whether a file or directory exists."""
    fs, path = filesystem(uri)
    with _one_error(uri, "checked"):
        return bool(fs.exists(path))


def names(uri: str, suffix: str) -> list[str]:
    """Sorted names of the complete files in a directory that end in `suffix`; empty when the directory does not exist."""
    fs, path = filesystem(uri)
    fs.invalidate_cache(path)
    try:
        with _one_error(uri, "listed"):
            found = fs.ls(path, detail=False)
    except FileNotFoundError:
        return []
    base = [str(name).rstrip("/").rsplit("/", 1)[-1] for name in found]
    return sorted(name for name in base if name.endswith(suffix) and not name.startswith("."))


def sizes(uri: str, suffix: str) -> dict[str, int]:
    """As `names`, with the bytes of each file."""
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
    """Deletes a file or a whole directory, if it exists."""
    fs, path = filesystem(uri)
    with _one_error(uri, "removed"):
        if fs.exists(path):
            fs.rm(path, recursive=True)


def sweep(uri: str, deep: bool = False) -> None:
    """Deletes temporary files of killed writers (`.*.tmp`) in a local directory; with `deep`, also below it."""
    if is_local(uri) and local_path(uri).is_dir():
        for temporary in local_path(uri).glob("**/.*.tmp" if deep else ".*.tmp"):
            with suppress(OSError):
                temporary.unlink()
