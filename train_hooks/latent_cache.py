"""Latents made beforehand (`latent_making.py` writes them), read in the place of frames.

    latents/256x256x16-8fps-3f0c12ab/
        latents.json                     the claim: what the latents were made from; the files, and the clips without latents
        latents-shard-00000.parquet      one row for each (clip, window): mean and log-variance as float16, the true frame rate
        text-00000.parquet               with `--text`: states of the text encoder by sha256 of the caption

One row is one row group, not compressed: a row is then read alone, straight from the mapped file. (Measured: of row groups of 1, 2, 4 and 8 rows
the first gives twice as many random rows in a CPU second as the last: `benchmarks/feed.py`.)
"""

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

from train_hooks.errors import TrainError
from train_hooks.fingerprint import differences
from train_hooks.shard_index import ShardClip, open_file

CLAIM = "latents.json"
SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()), ("first_frame", pa.int32()), ("window", pa.int32()), ("fps", pa.float64()),
        ("shape", pa.list_(pa.int32())), ("mean", pa.large_binary()), ("logvar", pa.large_binary()), ("picture", pa.large_binary()),
    ]
)  # fmt: skip
BLOBS = ("mean", "logvar", "picture")
TEXT_SCHEMA = pa.schema(
    [("caption_sha256", pa.string()), ("shape", pa.list_(pa.int32())), ("states", pa.large_binary())]
)


class Moments(NamedTuple):
    """The VAE's posterior for a window, not scaled: mean and log-variance, (c, T, h, w)."""

    mean_cThw: Tensor  # noqa: N815
    logvar_cThw: Tensor | None  # noqa: N815

    def frames(self, which: slice) -> "Moments":
        """The moments of some frames."""
        return Moments(self.mean_cThw[:, which], None if self.logvar_cThw is None else self.logvar_cThw[:, which])


@dataclass(frozen=True)
class Cached:
    """What the cache holds of one window."""

    moments: Moments
    fps: float
    first_frame_C1HW: Tensor | None  # noqa: N815
    """Bytes; only for recipes that show the first frame."""


class LatentCache:
    """The finished latents of a folder or URL, for reading.

    Raises TrainError when it is not finished, a file is missing, or it was made from something else than `wanted` says (the claim that
    `latents.claim_of` makes; None: whatever it is).
    """

    def __init__(self, folder: str | Path, wanted: Mapping[str, Any] | None = None) -> None:
        self.folder = str(folder)
        claim = read_claim(folder)
        if claim is None or not claim.get("files"):
            raise TrainError(f"{folder} holds no finished latents; `rushes latents` makes them")
        if wanted is not None and (changes := list(differences(claim["made_from"], wanted))):
            raise TrainError(f"the latents in {folder} are of something else: {'; '.join(changes)}")
        self.claim = claim
        self.name = self.folder.rstrip("/").rpartition("/")[2]
        self.windows = int(claim["windows"])
        self.errors: dict[str, str] = claim.get("errors", {})
        self._rows: dict[tuple[str, int], dict[int, tuple[str, int]]] = {}
        for name in claim["files"]:
            for i, row in enumerate(_column_rows(self.folder, name, ["clip_id", "first_frame", "window"])):
                key = row["clip_id"], row["first_frame"]
                self._rows.setdefault(key, {})[row["window"]] = name, i
        self._text: dict[str, tuple[str, int]] = {}
        for name in claim.get("text_files", []):
            for i, row in enumerate(_column_rows(self.folder, name, ["caption_sha256"])):
                self._text[row["caption_sha256"]] = name, i
        self._files: dict[str, pq.ParquetFile] = {}

    def __contains__(self, clip: ShardClip) -> bool:
        return len(self._rows.get(_key(clip), ())) == self.windows

    @property
    def identity(self) -> str:
        """What a training remembers of it: the claim's name, the windows, and whether there is text."""
        return f"{self.name}, {self.windows} windows{', text' if self.has_text else ''}"

    @property
    def has_text(self) -> bool:
        """Whether the text encoder's states are stored with the latents."""
        return bool(self._text)

    def read(self, clip: ShardClip, epoch: int, with_logvar: bool = False) -> Cached:
        """The window of a clip that belongs to an epoch. Raises TrainError when it cannot be read."""
        name, i = self._rows[_key(clip)][epoch % self.windows]
        columns = [c for c in SCHEMA.names if c not in ("clip_id", "first_frame", "window")]
        if not with_logvar:
            columns.remove("logvar")
        row = self._row(name, i, columns)
        shape = row["shape"].as_py()
        mean = _halves(row["mean"], shape)
        logvar = _halves(row["logvar"], shape) if with_logvar else None
        picture = row["picture"].as_py()
        return Cached(Moments(mean, logvar), row["fps"].as_py(), _picture(picture) if picture else None)

    def text(self, caption: str) -> Tensor | None:
        """States of the text encoder, (L, D), or None where this caption was not encoded."""
        found = self._text.get(caption_sha256(caption))
        if found is None:
            return None
        row = self._row(*found, ["shape", "states"])
        return _halves(row["states"], row["shape"].as_py())

    def _row(self, name: str, i: int, columns: list[str]) -> dict[str, Any]:
        try:
            if name not in self._files:
                self._files[name] = _open(self.folder, name)
            table = self._files[name].read_row_group(i, columns=columns, use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise TrainError(f"{self.folder}/{name} cannot be read: {str(error).splitlines()[0]}") from None
        return {column: table[column][0] for column in columns}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}}


def read_claim(folder: str | Path) -> dict[str, Any] | None:
    """The claim of a folder with latents, or None where the folder has no claim."""
    try:
        with open_file(folder, CLAIM) as file:
            claim: dict[str, Any] = json.loads(file.read())
        return claim if isinstance(claim.get("made_from"), dict) else None
    except (FileNotFoundError, ValueError, AttributeError):
        return None


def caption_sha256(caption: str) -> str:
    """The name of a caption in the text files."""
    return hashlib.sha256(caption.encode()).hexdigest()


def _key(clip: ShardClip) -> tuple[str, int]:
    return clip.clip_id, -1 if clip.first_frame is None else clip.first_frame


def _open(folder: str, name: str) -> pq.ParquetFile:
    path = Path(folder.removeprefix("file://")) / name
    if path.is_file():
        return pq.ParquetFile(path, memory_map=True)
    try:
        return pq.ParquetFile(open_file(folder, name))
    except FileNotFoundError:
        raise TrainError(f"{folder}/{CLAIM} names {name}, which is not there; run `rushes latents` again") from None


def _column_rows(folder: str, name: str, columns: list[str]) -> list[dict[str, Any]]:
    try:
        rows: list[dict[str, Any]] = _open(folder, name).read(columns=columns).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise TrainError(f"{folder}/{name} cannot be read: {str(error).splitlines()[0]}") from None
    return rows


def _halves(value: Any, shape: list[int]) -> Tensor:
    return torch.from_numpy(np.frombuffer(value.as_buffer(), np.float16).reshape(shape).copy())


def _picture(png: bytes) -> Tensor:
    return torch.from_numpy(np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).copy()).permute(2, 0, 1)[:, None]
