"""Checkpoints: the state from which a training resumes exactly.

    OUT/checkpoints/step-00000500/
        weights.safetensors      every weight that is or was trained
        optimizer.safetensors    AdamW's moments, by the name of the weight
        ema.safetensors          the average, where there is one
        metrics.parquet  clips.parquet
        checkpoint.json          step, counters, what the training is (the fingerprint), the sha256 of every file above

There are no states of random generators: every number is a function of (seed, step, place in the batch), see `rng.py`.

A thread writes a checkpoint under a temporary name and renames it, so that every visible checkpoint is complete; its digests are compared before
it is used. Older checkpoints are removed after the newer one is visible.
"""

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from train_hooks.errors import TrainError
from train_hooks.out_folder import FOLDER

MANIFEST = "checkpoint.json"
MOMENTS = ("exp_avg", "exp_avg_sq", "step")

Files = Mapping[str, Mapping[str, Tensor] | bytes]
"""What a checkpoint consists of: tensors by name, or bytes, for each file."""


@dataclass(frozen=True)
class Checkpoint:
    """An intact checkpoint on the disk."""

    path: Path
    step: int
    progress: dict[str, Any]

    def tensors(self, name: str) -> dict[str, Tensor]:
        """The tensors of a file, on the CPU; none where there is no such file."""
        file = self.path / f"{name}.safetensors"
        return load_file(file) if file.is_file() else {}


class Checkpoints:
    """The checkpoints of one training. `fingerprint`: the values that must be equal to resume from them."""

    def __init__(self, out: Path, keep: int, fingerprint: Mapping[str, Any], say: Callable[[str], None]) -> None:
        self.folder, self.keep, self.fingerprint, self.say = out / FOLDER, keep, dict(fingerprint), say
        self._thread: threading.Thread | None = None
        self._failure: OSError | None = None

    def newest(self) -> Checkpoint | None:
        """The newest intact checkpoint, or None where the folder has no checkpoints.

        Raises TrainError where there are checkpoints and none is intact.
        """
        found = saved(self.folder)
        for path in reversed(found):
            try:
                return self._read(path)
            except TrainError as error:
                self.say(f"{error}; the one before it is used")
        if found:
            raise TrainError(f"none of the checkpoints in {self.folder} is intact; --restart starts from step 0")
        return None

    def _read(self, path: Path) -> Checkpoint:
        manifest = manifest_of(path)
        for name, digest in manifest["files"].items():
            if not (path / name).is_file() or _sha256(path / name) != digest:
                raise TrainError(f"{path / name} is not the file that was saved")
        return Checkpoint(path, int(manifest["step"]), manifest["progress"])

    def save(self, step: int, files: Files, progress: Mapping[str, Any], beside: Mapping[str, bytes]) -> None:
        """Copies the tensors and writes them in the background; `beside`: files of the training's folder that come along, replaced whole.

        A full disk loses this checkpoint; that is reported, and the training continues.
        """
        self.finish()
        copied = {
            name: content
            if isinstance(content, bytes)
            else {k: v.detach().to("cpu", copy=True) for k, v in content.items()}
            for name, content in files.items()
            if content
        }
        self._thread = threading.Thread(target=self._write, args=(step, copied, dict(progress), beside), daemon=False)
        self._thread.start()

    def finish(self, strict: bool = False) -> None:
        """Waits for the checkpoint that is being written. Raises TrainError with `strict` when it could not be."""
        if self._thread is None:
            return
        self._thread.join()
        self._thread = None
        failure, self._failure = self._failure, None
        if failure is not None:
            message = f"the checkpoint could not be written to {self.folder}: {failure.strerror or failure}"
            if strict:
                raise TrainError(message)
            self.say(f"{message}; training continues, and the last one is kept")

    def _write(self, step: int, files: Files, progress: dict[str, Any], beside: Mapping[str, bytes]) -> None:
        place = self.folder / f"step-{step:08d}"
        aside = self.folder / f".{place.name}.{os.getpid()}.part"
        try:
            for left in self.folder.glob(".step-*.part"):
                shutil.rmtree(left, ignore_errors=True)
            aside.mkdir(parents=True)
            digests = {}
            for name, content in files.items():
                path = aside / (name if isinstance(content, bytes) else f"{name}.safetensors")
                if isinstance(content, bytes):
                    path.write_bytes(content)
                else:
                    save_file({k: v.contiguous() for k, v in content.items()}, path)
                _to_disk(path)
                digests[path.name] = _sha256(path)
            manifest = {"step": step, "progress": progress, "fingerprint": self.fingerprint, "files": digests}
            (aside / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
            _to_disk(aside / MANIFEST)
            if place.exists():
                shutil.rmtree(place)
            aside.rename(place)
            _to_disk(self.folder)
            for old in saved(self.folder)[: -self.keep]:
                shutil.rmtree(old)
            for name, content in beside.items():
                part = self.folder.parent / f".{name}.part"
                part.write_bytes(content)
                part.replace(self.folder.parent / name)
        except OSError as error:
            self._failure = error
            shutil.rmtree(aside, ignore_errors=True)
        except Exception as error:  # safetensors has an error of its own for a full disk
            self._failure = OSError(str(error))
            shutil.rmtree(aside, ignore_errors=True)


def saved(folder: Path) -> list[Path]:
    """The checkpoints of a folder, the oldest first."""
    return sorted(path for path in folder.glob("step-*") if path.is_dir())


def manifest_of(path: Path) -> dict[str, Any]:
    """The manifest of a checkpoint. Raises TrainError when it cannot be read."""
    try:
        manifest: dict[str, Any] = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        manifest["files"], manifest["step"], manifest["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError):
        raise TrainError(f"{path} has no {MANIFEST} that can be read") from None
    return manifest


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """AdamW's state as `what/name of the weight`."""
    found = {}
    for name, weight in names.items():
        for what in MOMENTS:
            if weight in optimizer.state and what in optimizer.state[weight]:
                found[f"{what}/{name}"] = torch.as_tensor(optimizer.state[weight][what])
    return found


def restore_optimizer(
    optimizer: torch.optim.Optimizer, names: Mapping[str, Tensor], tensors: Mapping[str, Tensor]
) -> None:
    """The way back. A step's count stays on the CPU, but for fused optimizers."""
    for key, value in tensors.items():
        what, _, name = key.partition("/")
        if name not in names:
            continue
        weight = names[name]
        on_cpu = what == "step" and not optimizer.defaults.get("fused")
        optimizer.state[weight][what] = value if on_cpu else value.to(weight.device)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
