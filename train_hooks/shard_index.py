"""What a shards folder holds, read once before training: one record for each clip, without its pictures.

A shards folder, on a disk or at any fsspec URL, is `index.json` and Parquet files with at least the columns of COLUMNS; the mp4 bytes of a
clip are read when they are needed, by (file, row group, row).
"""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from train_hooks.captions import CaptionPolicy, Choices
from train_hooks.errors import NotFoundError, TrainError

PLAIN = re.compile(r"(?!/)(?!(.*/)?\.\.(/|$))[^\\:\x00-\x1f]+")
"""Names of files inside the folder."""
COLUMNS = ("clip_id", "fps", "n_frames", "mp4")
SIZE = ("width_px", "height_px")
MOTION = "motion"
"""The column with a clip's motion score, where the shards have one."""
TAGGED = "tagged_frames"
"""How the columns with tagged frames begin: lists of (frame_index, prompt)."""
DIGEST_BYTES = 8 * 2**30  # up to so much on a disk every shard is compared with its digest before training. Ours


@dataclass(frozen=True)
class ShardClip:
    """One clip of the shards: the place of its bytes, and its properties.

    `fps`, `n_frames`, `width_px` and `height_px` are those of the stored mp4; a size of 0 is not known.
    """

    clip_id: str
    file: str
    row_group: int
    row: int
    fps: float
    n_frames: int
    captions: Choices = ()
    motion: float | None = None
    tagged: tuple[tuple[int, str], ...] = ()
    first_frame: int | None = None
    """Where the sample begins, as near as the clip's end allows; None: a window drawn by seed and epoch."""
    width_px: int = 0
    height_px: int = 0

    @property
    def caption(self) -> str:
        """The caption with the largest share, the first of equals; empty when it has none."""
        return max(self.captions, key=lambda choice: choice[1])[0] if self.captions else ""


class ShardIndex(NamedTuple):
    """The clips of a shards folder in file order, the sha256 of its index.json and of its list of files, and how captions are mixed."""

    clips: list[ShardClip]
    sha256: str
    content_sha256: str
    """Of the names and digests of the shards alone: the same when only the mix of captions was changed."""
    captions: CaptionPolicy
    chosen_sha256: str = ""
    """Of the ids of the clips that were chosen among all; empty: all."""

    def only(self, clip_ids: Iterable[str], named_by: str = "the list of clips") -> "ShardIndex":
        """These clips only, in file order.

        Raises TrainError where one is not in the shards, or the list is empty; `named_by` names the list in messages.
        """
        wanted = dict.fromkeys(clip_ids)
        chosen = [clip for clip in self.clips if clip.clip_id in wanted]
        if lacking := wanted.keys() - {clip.clip_id for clip in chosen}:
            raise TrainError(
                f"{named_by} names {len(lacking)} clips that are not in these shards, such as {min(lacking)!r}"
            )
        if not chosen:
            raise TrainError(f"there is nothing to train on: {named_by} names no clip")
        digest = hashlib.sha256("\n".join(sorted(wanted)).encode()).hexdigest()
        return self._replace(clips=chosen, chosen_sha256=digest)


def read_clip_list(path: Path) -> list[str]:
    """The ids in a text file, one on each line; empty lines do not count. Raises TrainError where it cannot be read."""
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise TrainError(
            f"the list of clips {path} cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from None


def read_index(shards: str | Path) -> ShardIndex:
    """Reads a shards folder.

    Raises TrainError when the folder is not a finished shards folder, a file is missing, unreadable or not the one that was written, or it
    holds no clip.
    """
    try:
        with open_file(shards, "index.json") as file:
            raw = file.read()
    except FileNotFoundError:
        raise NotFoundError(
            f"{shards} is not a shards folder: it has no index.json; `rushes run` writes one as its last step"
        ) from None
    try:
        index = json.loads(raw)
        names = [str(shard["file"]) for shard in index["shards"]]
    except (ValueError, KeyError, TypeError):
        raise TrainError(f"{shards}/index.json cannot be read as a shards index; write the shards again") from None
    if strange := [name for name in names if not PLAIN.fullmatch(name)]:
        raise TrainError(
            f"{shards}/index.json names a file {strange[0]!r}, which is outside the folder; it was not written by rushes"
        )
    try:
        policy = CaptionPolicy.of(index)
        clips = [clip for name in names for clip in _clips_of(shards, name, policy)]
        if clips:
            _check_digests(shards, index["shards"])
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        named_by = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise TrainError(
            f"{shards}/index.json was not written by rushes ({named_by}); write the shards again"
        ) from error
    if not clips:
        raise TrainError(
            f"there is nothing to train on: {shards} holds no clips; `rushes funnel` shows which rule drops them"
        )
    files = json.dumps([[name, shard.get("sha256", "")] for name, shard in zip(names, index["shards"], strict=True)])
    return ShardIndex(clips, hashlib.sha256(raw).hexdigest(), hashlib.sha256(files.encode()).hexdigest(), policy)


def open_file(shards: str | Path, name: str) -> Any:
    """A file of the shards, for reading. Raises FileNotFoundError, or TrainError where the storage cannot be reached."""
    try:
        return fsspec.open(f"{shards}/{name}", "rb").open()
    except FileNotFoundError:
        raise
    except (OSError, ImportError, ValueError) as error:
        raise TrainError(f"{shards}/{name} cannot be opened: {' '.join(str(error).split())}") from None


def by_tag(clip: ShardClip) -> list[ShardClip]:
    """The clip once for each of its tagged frames, from there on and with that prompt; as it is where none is tagged."""
    return [replace(clip, first_frame=at, captions=((prompt, 1.0),)) for at, prompt in clip.tagged] or [clip]


def _clips_of(shards: str | Path, name: str, policy: CaptionPolicy) -> list[ShardClip]:
    clips: list[ShardClip] = []
    try:
        with open_file(shards, name) as opened:
            file = pq.ParquetFile(opened)
            there = file.schema_arrow.names
            columns = list(dict.fromkeys([*COLUMNS, *policy.columns]))
            lacking = [column for column in columns if column not in there]
            if lacking:
                raise TrainError(f"{shards}/{name} has no column {', '.join(lacking)}; write the shards again")
            tagged = [column for column in there if column.startswith(TAGGED)]
            columns = [c for c in dict.fromkeys([*columns, *tagged, MOTION, *SIZE]) if c in there and c != "mp4"]
            for group in range(file.num_row_groups):
                for i, row in enumerate(file.read_row_group(group, columns=columns).to_pylist()):
                    tags = [tag for column in tagged for tag in row[column] or ()]
                    clips.append(
                        ShardClip(
                            row["clip_id"],
                            name,
                            group,
                            i,
                            row["fps"],
                            row["n_frames"],
                            policy.choices(row),
                            row.get(MOTION),
                            tuple((tag["frame_index"], tag["prompt"]) for tag in tags),
                            None,
                            *(row.get(side) or 0 for side in SIZE),
                        )
                    )
    except FileNotFoundError:
        raise TrainError(f"{shards}/index.json names {name}, which is not there; write the shards again") from None
    except (pa.ArrowException, OSError) as error:
        raise TrainError(f"{shards}/{name} cannot be read: {str(error).splitlines()[0]}") from None
    return clips


def _check_digests(shards: str | Path, listed: list[dict[str, Any]]) -> None:
    """Compares the files on a disk with their digests in the index. What is larger than DIGEST_BYTES or elsewhere is taken as it is."""
    folder = Path(str(shards).removeprefix("file://"))
    known = [(folder / str(shard["file"]), shard) for shard in listed if "sha256" in shard]
    if not all(path.is_file() for path, _ in known):
        return
    for path, shard in known:
        if path.stat().st_size != shard.get("bytes", path.stat().st_size):
            raise TrainError(f"{path} has another size than index.json says; `rushes shards verify` tells more")
    if sum(path.stat().st_size for path, _ in known) > DIGEST_BYTES:
        return
    for path, shard in known:
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != shard["sha256"]:
                raise TrainError(f"{path} has another sha256 than index.json says; `rushes shards verify` tells more")
