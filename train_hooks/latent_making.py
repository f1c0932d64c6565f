"""Making latents: a job whose units are shards. A visible file is complete; an interrupted job resumes with the missing files."""

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from fsspec.implementations.local import LocalFileSystem
from PIL import Image
from torch import Tensor

from train_hooks.base import check_size, folder_of, hush, load_base
from train_hooks.conditioning import encode_moments, encode_text
from train_hooks.errors import TrainError
from train_hooks.feed import Feed, as_float
from train_hooks.latent_cache import BLOBS, CLAIM, SCHEMA, TEXT_SCHEMA, caption_sha256
from train_hooks.latents import LAYOUT, claim_of, name_of, root_of, tiny_base, weights_sha256
from train_hooks.recipe import Recipe
from train_hooks.recipe_files import load_recipe
from train_hooks.shard_index import ShardClip, read_index
from train_hooks.size import Size
from train_hooks.stage_feed import build_tiny, feed_of

CAPTIONS_AT_ONCE = 32  # ours
TEXT = "text-00000.parquet"


@dataclass
class Making:
    """The latents of one stage: what they are made from, and where they go. Picklable; `setup` reads the base on the machine that works.

    `base_folder` must be a folder that every worker can read.
    """

    base_folder: Path
    stage: Recipe
    feed: Feed
    folder: str
    claim: dict[str, Any]
    windows: int

    def setup(self) -> None:
        """Reads the base, onto the GPU where there is one."""
        torch.set_num_threads(self.stage.threads)
        self.base = load_base(self.base_folder, self.stage)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        for part in (self.base.vae, self.base.text_encoder):
            if part is not None:
                part.to(self.device)

    def done(self, shard: str) -> dict[str, Any] | None:
        """What `make` returned for a shard, where it has been made already."""
        metadata = _metadata(self.folder, _file_of(shard))
        if metadata is None or metadata.get("made") != self._made(shard):
            return None
        return {"file": _file_of(shard), "rows": int(metadata["rows"]), "errors": json.loads(metadata["errors"])}

    def make(self, shard: str) -> dict[str, Any]:
        """Writes the latents of a shard's clips. Returns file, rows, and the reason of each clip that has none."""
        errors: dict[str, str] = {}
        rows = _write(self.folder, _file_of(shard), SCHEMA, self._rows(shard, errors), self._made(shard), errors)
        return {"file": _file_of(shard), "rows": rows, "errors": errors}

    def _made(self, shard: str) -> str:
        """What a file was made from; it is made again when this is something else."""
        return json.dumps({"claim": name_of(self.claim), "shard": shard, "windows": self.windows})

    def _rows(self, name: str, errors: dict[str, str]) -> Iterator[dict[str, Any]]:
        for clip, size in clips_of(self.feed, name):
            try:
                yield from [self._row(clip, size, window) for window in range(self.windows)]
            except TrainError as error:
                errors[clip.clip_id] = str(error)

    def _row(self, clip: ShardClip, size: Size, window: int) -> dict[str, Any]:
        frames_TCHW, fps = self.feed.window(clip, window, size)
        video_BCTHW = as_float(frames_TCHW.transpose(0, 1)[None].to(self.device))
        mean, logvar = (moment[0].half().cpu() for moment in encode_moments(self.base.vae, video_BCTHW))
        return {
            "clip_id": clip.clip_id,
            "first_frame": -1 if clip.first_frame is None else clip.first_frame,
            "window": window,
            "fps": fps,
            "shape": list(mean.shape),
            "mean": _bytes(mean),
            "logvar": _bytes(logvar),
            "picture": _png(frames_TCHW[0]) if self.stage.image_condition != "none" else None,
        }

    def text(self) -> dict[str, Any]:
        """Writes the states of every caption that a clip may be trained with, and of the empty one."""
        encoder = weights_sha256(self.base.text_encoder)
        _write(self.folder, TEXT, TEXT_SCHEMA, self._text_rows(self._captions()), self._text_made(encoder), {})
        return {"text_files": [TEXT], "text_encoder_sha256": encoder, "errors": {}}

    def text_done(self, text_encoder: Any) -> dict[str, Any] | None:
        """What `text` returned, where it has been made already."""
        encoder = weights_sha256(text_encoder)
        metadata = _metadata(self.folder, TEXT)
        if metadata is None or metadata.get("made") != self._text_made(encoder):
            return None
        return {"text_files": [TEXT], "text_encoder_sha256": encoder, "errors": {}}

    def _captions(self) -> list[str]:
        return sorted({"", *(text for clip in (*self.feed.train, *self.feed.heldout) for text, _ in clip.captions)})

    def _text_made(self, encoder: str) -> str:
        digest = hashlib.sha256("\0".join(self._captions()).encode()).hexdigest()
        return json.dumps({"captions": digest, "encoder": encoder, "layout": LAYOUT})

    def _text_rows(self, captions: Sequence[str]) -> Iterator[dict[str, Any]]:
        for first in range(0, len(captions), CAPTIONS_AT_ONCE):
            part = captions[first : first + CAPTIONS_AT_ONCE]
            states = encode_text(self.base, part).half().cpu()
            for caption, state in zip(part, states, strict=True):
                yield {"caption_sha256": caption_sha256(caption), "shape": list(state.shape), "states": _bytes(state)}


@dataclass
class LatentJob:
    """What a worker does: units are `{"stage": 0, "shard": "shard-00000.parquet"}`, or `{"stage": 0, "text": true}`."""

    makings: list[Making]

    def setup(self) -> None:
        """Nothing yet: a stage's base is read when its first unit comes."""
        self._ready: set[int] = set()

    def work(self, unit: dict[str, Any]) -> dict[str, Any]:
        """Makes the latents of one shard, or the text states."""
        making = self.makings[unit["stage"]]
        if unit["stage"] not in self._ready:
            making.setup()
            self._ready.add(unit["stage"])
        return {**unit, "made": making.text() if unit.get("text") else making.make(unit["shard"])}


@dataclass
class LatentPlan:
    """What there is to do: a job, its units, and what is done already."""

    job: LatentJob
    units: list[dict[str, Any]]
    done: dict[int, list[dict[str, Any]]]
    texts: dict[int, dict[str, Any] | None]

    def finish(self, receipts: Sequence[Mapping[str, Any]]) -> list[tuple[str, int, int, dict[str, str]]]:
        """Writes the claims: from here on the latents can be used. Returns folder, samples, windows and errors of each stage."""
        finished = []
        for i, making in enumerate(self.job.makings):
            parts = [*self.done[i], *(r["made"] for r in receipts if r["stage"] == i and "shard" in r)]
            text: dict[str, Any] = next(
                (r["made"] for r in receipts if r["stage"] == i and r.get("text")), self.texts.get(i) or {}
            )
            errors = {clip_id: reason for part in parts for clip_id, reason in part["errors"].items()}
            whole = {
                "made_from": making.claim, "windows": making.windows, "files": sorted(p["file"] for p in parts), **text, "errors": errors,
            }  # fmt: skip
            filesystem, path = fsspec.url_to_fs(making.folder)
            filesystem.pipe_file(f"{path}/{CLAIM}", json.dumps(whole, indent=1).encode())
            finished.append((making.folder, sum(p["rows"] for p in parts) // making.windows, making.windows, errors))
        return finished


def plan_latents(
    recipe: str,
    shards: str | Path,
    overrides: Mapping[str, str],
    windows: int,
    root: str | None,
    with_text: bool,
    say: Callable[[str], None],
) -> LatentPlan:
    """What `rushes latents` has to do for every stage of a recipe.

    Raises RecipeError for a wrong recipe and TrainError for shards or a base that cannot be used.
    """
    whole = load_recipe(recipe, overrides)
    hush()
    torch.set_num_threads(whole.threads)
    index = read_index(shards)
    feeds = {i: feed_of(stage, shards, index) for i, stage in enumerate(whole.plan())}
    folder = folder_of(whole.base) if whole.base else tiny_base(root, shards, whole.shown())
    if not whole.base and not (folder / "model_index.json").is_file():
        build_tiny(whole.shown(), feeds[whole.plan().index(whole.shown())], folder, say)
    base = load_base(folder, whole.shown())
    makings: dict[str, Making] = {}
    for i, stage in enumerate(whole.plan()):
        check_size(base.vae, stage)
        claim = claim_of(feeds[i], stage, base)
        name = name_of(claim)
        makings.setdefault(name, Making(folder, stage, feeds[i], f"{root_of(root, shards)}/{name}", claim, windows))
    names = sorted({clip.file for clip in index.clips})
    units: list[dict[str, Any]] = []
    done: dict[int, list[dict[str, Any]]] = {}
    texts: dict[int, dict[str, Any] | None] = {}
    for i, making in enumerate(makings.values()):
        found = {name: making.done(name) for name in names if clips_of(making.feed, name)}
        done[i] = [part for part in found.values() if part is not None]
        units += [{"stage": i, "shard": name} for name, part in found.items() if part is None]
        if with_text and base.text_encoder is not None:
            texts[i] = making.text_done(base.text_encoder)
            units += [{"stage": i, "text": True}] if texts[i] is None else []
    return LatentPlan(LatentJob(list(makings.values())), units, done, texts)


def clips_of(feed: Feed, name: str) -> list[tuple[ShardClip, Size]]:
    """The clips of one shard, and the size that each is trained at."""
    trained = [(clip, feed.sizes[bucket]) for clip, bucket in zip(feed.train, feed.buckets, strict=True)]
    return [(clip, size) for clip, size in (*trained, *((c, feed.sizes[0]) for c in feed.heldout)) if clip.file == name]


def _file_of(shard: str) -> str:
    return f"latents-{Path(shard).stem}.parquet"


def _write(
    folder: str, name: str, schema: pa.Schema, rows: Iterator[dict[str, Any]], made: str, errors: Mapping[str, str]
) -> int:
    """Writes a file with one row in each row group, aside first. Returns the number of rows; `errors` is read after the last one."""
    filesystem, path = fsspec.url_to_fs(folder)
    on_disk = isinstance(filesystem, LocalFileSystem)
    try:
        filesystem.makedirs(path, exist_ok=True)
        with TemporaryDirectory(dir=path if on_disk else None, prefix=".part-") as aside:
            whole, n = Path(aside) / name, 0
            light = [column for column in schema.names if column not in (*BLOBS, "states")]
            with pq.ParquetWriter(
                whole, schema, compression="none", use_dictionary=light, write_statistics=False
            ) as writer:
                for row in rows:
                    writer.write_table(pa.Table.from_pylist([row], schema=schema))
                    n += 1
                writer.add_key_value_metadata({"made": made, "rows": str(n), "errors": json.dumps(errors)})
            if on_disk:
                whole.replace(Path(path) / name)
            else:
                filesystem.put_file(str(whole), f"{path}/{name}")
    except OSError as error:
        raise TrainError(f"the latents cannot be written to {folder}: {error.strerror or error}") from None
    return n


def _metadata(folder: str, name: str) -> dict[str, str] | None:
    """The key-value metadata of a finished file, or None where the file is missing."""
    try:
        with fsspec.open(f"{folder}/{name}", "rb") as file:
            found = pq.ParquetFile(file).metadata.metadata or {}
    except (OSError, pa.ArrowException):
        return None
    return {key.decode(): value.decode() for key, value in found.items()}


def _bytes(tensor: Tensor) -> bytes:
    return tensor.contiguous().numpy().tobytes()


def _png(frame_CHW: Tensor) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(frame_CHW.permute(1, 2, 0).contiguous().numpy()).save(buffer, format="png")
    return buffer.getvalue()
