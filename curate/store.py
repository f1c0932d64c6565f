"""Files of a run, wherever they lie: a local directory or any fsspec URL (`s3://`, `gs://`, `memory://` ...).

One promise: a file that is present is whole. On a disk it is written aside, flushed and renamed; on object storage one put does the same.
"""

import hashlib
import json
import os
import uuid
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from curate.errors import RunError, UsageError


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
    return fs, cast(str, path)


def put(uri: str, data: bytes) -> None:
    """Writes a whole file in one step; what was there before is replaced."""
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
            aside.unlink(missing_ok=True)
            raise
    else:
        fs.pipe_file(path, data)


def put_json(uri: str, value: Any) -> None:
    """Writes `value` as indented JSON, keys in their order: that of the rules under `keep:` says which drops a clip first."""
    put(uri, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


def get(uri: str) -> bytes:
    """The bytes of a file; FileNotFoundError when there is none."""
    fs, path = filesystem(uri)
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
    return cast(BinaryIO, fs.open(path, "rb"))


def link(source: str, target: str) -> None:
    """Gives a whole file a second name, on object storage a copy; what bears that name already is replaced."""
    fs, path = filesystem(source)
    if not isinstance(fs, LocalFileSystem):
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


def exists(uri: str) -> bool:
    """Whether a file or directory is there."""
    fs, path = filesystem(uri)
    return bool(fs.exists(path))


def names(uri: str, suffix: str) -> list[str]:
    """Sorted names of the finished files in a directory that end in `suffix`; none when it does not exist."""
    fs, path = filesystem(uri)
    fs.invalidate_cache(path)
    try:
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
    if fs.exists(path):
        fs.rm(path, recursive=True)


def sweep(uri: str) -> None:
    """Deletes what a killed writer left aside in a local directory (`.*.tmp`)."""
    if is_local(uri) and local_path(uri).is_dir():
        for aside in local_path(uri).glob(".*.tmp"):
            aside.unlink(missing_ok=True)
