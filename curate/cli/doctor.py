"""`rushes doctor`: what this machine has, and what is missing for which feature."""

import ctypes
import importlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from curate.cli.common import console

BASE = {
    "ray": "ray", "av": "av", "cv2": "opencv-python-headless", "scenedetect": "scenedetect-headless", "rapidocr": "rapidocr",
    "onnxruntime": "onnxruntime", "pyarrow": "pyarrow", "pandas": "pandas", "lancedb": "lancedb",
}  # fmt: skip
"""Modules of the base install with their distributions."""
IMPORTED = ("av", "cv2", "onnxruntime", "pyarrow")
"""Compiled modules that fail when a system library is missing, and import in a fraction of a second: they are imported, not looked up."""
EXTRAS = {
    "models": {
        "torch": "torch",
        "torchvision": "torchvision",
        "open_clip": "open_clip_torch",
        "transformers": "transformers",
    },
    "train": {"torch": "torch", "diffusers": "diffusers", "accelerate": "accelerate", "decord": "decord"},
}
WIDTH = 32
"""Of the column with the names, so that every line can be printed before the next check."""


def command(
    imports: Annotated[
        bool, typer.Option("--imports", help="Import every package, too. Slow; finds a broken install that versions do not show.")
    ] = False,
) -> None:  # fmt: skip
    """Check the installation. Exit code 1 when something that the base install needs is broken."""
    out = console()
    broken = 0

    def row(what: str, check: Callable[[], str], needed: bool = True) -> None:
        nonlocal broken
        try:
            verdict, found = Text("ok    ", "green"), check()
        except Exception as error:
            broken += needed
            verdict = Text("broken", "red") if needed else Text("absent", "yellow")
            found = str(error).splitlines()[0] if str(error) else ""
            if not isinstance(error, Absent):
                found = f"{type(error).__name__}: {found}"
        out.print(verdict, f" {what:<{WIDTH}} {found}", sep="", highlight=False, soft_wrap=True)
        sys.stdout.flush()

    row("Python", lambda: f"{platform.python_version()} at {sys.executable}")
    for name, distribution in BASE.items():
        row(name, _check(name, distribution, imports or name in IMPORTED))
    for extra, names in EXTRAS.items():
        for name, distribution in names.items():
            row(f"{name} (rushes[{extra}])", _check(name, distribution, imports), needed=False)
    row("H.264 encoder", _encoder)
    row("GPU", _gpu, needed=False)
    row("cores, memory", _machine)
    row("free disk here", lambda: f"{shutil.disk_usage('.').free / 2**30:.0f} GiB")
    row("sandbox of decoders", _sandbox, needed=False)
    row("Ray token authentication", _token)
    raise typer.Exit(1 if broken else 0)


class Absent(Exception):  # noqa: N818 - a finding
    """Something is missing; the message says what, without the name of an exception in front."""


def _check(name: str, distribution: str, imports: bool) -> Callable[[], str]:
    return lambda: _version(name, distribution, imports)


def _version(name: str, distribution: str, imports: bool) -> str:
    """The version of a package. Raises when it is not installed, or cannot be imported where it is imported."""
    if imports:
        module = importlib.import_module(name)
        return str(getattr(module, "__version__", None) or importlib.metadata.version(distribution))
    if importlib.util.find_spec(name) is None:
        raise Absent(f"not installed:  pip install {distribution}")
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:  # another distribution of the same module, such as opencv-python
        return str(importlib.import_module(name).__version__)


def _encoder() -> str:
    import av

    return f"{av.codec.Codec('libx264', 'w').name} (PyAV {av.__version__})"


def _gpu() -> str:
    """The name of the GPU. torch takes seconds to import, so it is imported only where a driver finds a GPU."""
    if not _driver_gpus() and not Path("/dev/kfd").exists():  # AMD
        raise Absent("no NVIDIA or AMD GPU; everything runs on the CPU")
    if importlib.util.find_spec("torch") is None:
        raise Absent("there is a GPU, but torch is not installed:  pip install 'rushes[models]'")
    import torch

    if not torch.cuda.is_available():
        raise Absent(f"there is a GPU, but torch {torch.__version__} cannot use it; everything runs on the CPU")
    return str(torch.cuda.get_device_name())


def _driver_gpus() -> int:
    """The number of GPUs by NVIDIA's driver."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int()
    return count.value if driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 else 0


def _machine() -> str:
    import psutil

    return f"{os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB"


PROTECTIONS = {
    "files": "no writes outside a scratch directory (Landlock)",
    "tcp": "no TCP (Landlock)",
    "sockets": "no network (seccomp)",
    "attributes": "no changes of modes and owners (seccomp)",
    "signals": "no signals to other processes (Landlock)",
    "privileges": "few privileges of root",
}


def _sandbox() -> str:
    """The protections of a decoder's process. Raises when the kernel cannot keep it from writing files or from the network."""
    from curate.sandbox import confine
    from curate.sandbox.sandbox import Sandbox

    with Sandbox() as sandbox:
        found = sandbox.call(confine.protections, wall_s=60)
    active = "; ".join(PROTECTIONS[name] for name in PROTECTIONS if name in found)
    missing = [PROTECTIONS[name] for name in ("files", "sockets") if name not in found]
    if missing:
        raise Absent(f"this kernel lacks: {', '.join(missing)}; active: {active or 'nothing'}")
    return active


def _token() -> str:
    exists = os.environ.get("RAY_AUTH_TOKEN") or (Path.home() / ".ray" / "auth_token").exists()
    return (
        "a token exists: clients need RAY_AUTH_MODE=token (`rushes submit` sets it)"
        if exists
        else "off: no token on this machine"
    )
