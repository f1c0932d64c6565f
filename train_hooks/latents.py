"""`rushes latents`: the VAE's latents of every clip, and the text encoder's states, made once and kept beside the shards.

A training spends a quarter of its arithmetic on the VAE (4.4 of 19 TFLOP for a clip of 256 x 256 x 16) and a good part of its time on decoding;
latents that are there already cost neither. They are of use as long as the same windows of the same clips are wanted at the same size from the
same VAE: that is their claim, and latents with another one are refused.

One file for each shard, finished or not there: what was begun is gone on with. What it looks like stands in `latent_cache.py`.
"""

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
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

from train_hooks.base import Base, check_size, folder_of, hush, load_base
from train_hooks.conditioning import encode_moments, encode_text
from train_hooks.errors import TrainError
from train_hooks.feed import Feed, as_float
from train_hooks.fingerprint import FREE
from train_hooks.latent_cache import (
    BLOBS,
    CLAIM,
    SCHEMA,
    TEXT_SCHEMA,
    LatentCache,
    caption_sha256,
    differences,
    read_claim,
)
from train_hooks.recipe import Recipe
from train_hooks.recipe_files import load_recipe
from train_hooks.shard_index import ShardClip, read_index
from train_hooks.size import Size
from train_hooks.stage_feed import build_tiny, feed_of

LAYOUT = 1  # of the files; another number makes all of them again
CAPTIONS_AT_ONCE = 32  # ours
TEXT = "text-00000.parquet"


def root_of(latents: str | None, shards: str | Path) -> str:
    """Where the latents of a shards folder lie: `latents/` beside it, unless another place is given."""
    return latents or f"{str(shards).rstrip('/').rpartition('/')[0] or '.'}/latents"


def tiny_base(latents: str | None, shards: str | Path, whole: Recipe) -> Path:
    """Where the small random base of a recipe lies, when latents were made with it."""
    values = {key: value for key, value in asdict(whole).items() if key not in FREE}
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]
    return Path(root_of(latents, shards).removeprefix("file://")) / f"base-{digest}"


def claim_of(feed: Feed, stage: Recipe, base: Base) -> dict[str, Any]:
    """What latents are made from, as JSON knows it."""
    return {
        "layout": LAYOUT,
        "shards_sha256": feed.index.content_sha256,
        "sizes": [str(size) for size in feed.sizes],
        "fps": feed.fps,
        "seed": feed.seed,
        "tagged_frames": stage.tagged_frames,
        "heldout_share": stage.heldout_share,
        "first_frame": stage.image_condition != "none",
        "vae_sha256": weights_sha256(base.vae),
    }


def name_of(claim: Mapping[str, Any]) -> str:
    """The folder of latents with this claim."""
    digest = hashlib.sha256(json.dumps(claim, sort_keys=True).encode()).hexdigest()[:8]
    return f"{'+'.join(claim['sizes'][:2])}-{claim['fps']:g}fps-{digest}"


def weights_sha256(module: Any) -> str:
    """A digest of the weights of a part of a model."""
    digest = hashlib.sha256()
    for key, value in sorted(module.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def find(
    latents: str | None, shards: str | Path, feed: Feed, stage: Recipe, base: Base, say: Callable[[str], None]
) -> LatentCache | None:
    """The latents that fit, or None where there are none and none were asked for by name.

    Raises TrainError when those that were asked for are of something else.
    """
    root = root_of(latents, shards)
    others = _claims(root)
    if not others:
        if latents is not None:
            raise TrainError(f"{root} holds no finished latents; `rushes latents` makes them")
        return None
    wanted = claim_of(feed, stage, base)
    name = name_of(wanted)
    if name in others:
        cache = LatentCache(f"{root}/{name}", wanted)
        if cache.has_text and base.text_encoder is not None:
            theirs, ours = cache.claim["text_encoder_sha256"], weights_sha256(base.text_encoder)
            if theirs != ours:
                raise TrainError(
                    f"the text states in {root}/{name} are of another text encoder; run `rushes latents` again"
                )
        say(f"latents: {root}/{name}, {cache.windows} windows of each clip{', with text' if cache.has_text else ''}")
        return cache
    told = min((differences(claim["made_from"], wanted) for claim in others.values()), key=len)
    if latents is not None:
        raise TrainError(f"the latents in {root} are of something else: {'; '.join(told)}")
    say(f"latents: those in {root} are not used, they are of something else ({'; '.join(told)})")
    return None


def _claims(root: str) -> dict[str, dict[str, Any]]:
    """The claims of all finished latents under a root, by name."""
    filesystem, path = fsspec.url_to_fs(root)
    try:
        names = [entry.rstrip("/").rpartition("/")[2] for entry in filesystem.ls(path, detail=False)]
    except (FileNotFoundError, NotADirectoryError):
        return {}
    found = {name: read_claim(f"{root}/{name}") for name in names if not name.startswith("base-")}
    return {name: claim for name, claim in found.items() if claim and claim.get("files")}


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
        told = []
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
            told.append((making.folder, sum(p["rows"] for p in parts) // making.windows, making.windows, errors))
        return told


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
    folder = folder_of(whole.base) if whole.base else tiny_base(root, shards, whole)
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
    """The key-value metadata of a finished file, or None where there is none."""
    try:
        with fsspec.open(f"{folder}/{name}", "rb") as file:
            found = pq.ParquetFile(file).metadata.metadata or {}
    except (OSError, pa.ArrowException):
        return None
    return {key.decode(): value.decode() for key, value in found.items()}


def _bytes(tensor: Tensor) -> bytes:
    return tensor.contiguous().numpy().tobytes()


def _png(frame_CHW: Tensor) -> bytes:  # noqa: N803
    buffer = io.BytesIO()
    Image.fromarray(frame_CHW.permute(1, 2, 0).contiguous().numpy()).save(buffer, format="png")
    return buffer.getvalue()
