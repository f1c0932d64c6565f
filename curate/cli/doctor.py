"""`rushes doctor`: what this machine has, and what is missing for what."""

import importlib
import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import typer
from rich.text import Text

from curate.cli.common import console, grid
from curate.sandbox import confine
from curate.sandbox.sandbox import Sandbox

BASE = ["ray", "av", "cv2", "scenedetect", "rapidocr", "onnxruntime", "pyarrow", "pandas", "lancedb"]
EXTRAS = {
    "models": ["torch", "torchvision", "open_clip", "transformers"],
    "train": ["torch", "diffusers", "accelerate", "decord"],
}


def command() -> None:
    """Checks the installation; exit code 1 when something that the base install needs is broken."""
    out = console()
    table = grid("", "what", "found")
    broken = 0

    def row(what: str, check: Callable[[], str], needed: bool = True) -> None:
        nonlocal broken
        try:
            table.add_row(Text("ok", "green"), what, check())
        except Exception as error:
            broken += needed
            table.add_row(
                Text("broken", "red") if needed else Text("absent", "yellow"),
                what,
                f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            )

    row("Python", lambda: f"{platform.python_version()} at {sys.executable}")
    for name in BASE:
        row(name, lambda name=name: _version(name))  # type: ignore[misc]
    for extra, names in EXTRAS.items():
        for name in names:
            row(f"{name} (rushes[{extra}])", lambda name=name: _version(name), needed=False)  # type: ignore[misc]
    row("H.264 encoder", _encoder)
    row("GPU", _gpu, needed=False)
    row("cores, memory", _machine)
    row("free disk here", lambda: f"{shutil.disk_usage('.').free / 2**30:.0f} GiB")
    row("decoders are confined", _confined, needed=False)
    row("Ray token authentication", _token)
    out.print(table)
    raise typer.Exit(1 if broken else 0)


def _version(name: str) -> str:
    module = importlib.import_module(name)
    found = getattr(module, "__version__", None)
    return str(found or importlib.metadata.version(name))


def _encoder() -> str:
    import av

    return f"{av.codec.Codec('libx264', 'w').name} (PyAV {av.__version__})"


def _gpu() -> str:
    import torch

    if not torch.cuda.is_available():
        raise RuntimeError("no GPU that torch can use; the CPU does everything")
    return str(torch.cuda.get_device_name())


def _machine() -> str:
    import psutil

    return f"{os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB"


FENCES = {
    "files": "write nothing outside a scratch directory (Landlock)",
    "tcp": "no TCP (Landlock)",
    "sockets": "no network (seccomp)",
    "attributes": "change no modes and owners (seccomp)",
    "signals": "stop no other process (Landlock)",
    "privileges": "few privileges of root",
}


def _confined() -> str:
    """What holds in a decoder's process. Raises when the kernel has nothing that keeps it from writing or from the network."""
    with Sandbox() as sandbox:
        found = sandbox.call(confine.protections, wall_s=60)
    told = "; ".join(FENCES[name] for name in FENCES if name in found)
    lacks = [name for name in ("files", "sockets") if name not in found]
    if lacks:
        raise RuntimeError(
            f"not on this kernel: {', '.join(FENCES[name] for name in lacks)}; there is: {told or 'nothing'}"
        )
    return told


def _token() -> str:
    there = os.environ.get("RAY_AUTH_TOKEN") or (Path.home() / ".ray" / "auth_token").exists()
    return (
        "a token exists: clients need RAY_AUTH_MODE=token (`rushes submit` sets it)"
        if there
        else "off: no token on this machine"
    )
