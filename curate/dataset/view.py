"""What a person looks at in a notebook: frames, contact sheets, a clip that plays, the funnel as a table. `Run` has a method for each."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from curate.config.config import Rule
from curate.dataset import contact
from curate.errors import ConfigError, UsageError, plain_name
from curate.run.data import RunData
from curate.run.select import select
from curate.tables import store
from curate.tables.table import groups_with

JPEG_QUALITY = 78


@dataclass(frozen=True)
class Sheet:
    """A picture that notebooks show, as JPEG, which is a tenth of the size; `png` are its bytes."""

    png: bytes = field(repr=False)

    def _repr_jpeg_(self) -> bytes:
        picture = cv2.imdecode(np.frombuffer(self.png, np.uint8), cv2.IMREAD_COLOR)
        return bytes(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes())

    def save(self, path: str | Path) -> None:
        """Writes it to a file, as PNG."""
        Path(path).write_bytes(self.png)


@dataclass(frozen=True)
class Player:
    """A clip that notebooks play; `mp4` are its bytes."""

    mp4: bytes = field(repr=False)
    width_px: int = 480

    def _repr_html_(self) -> str:
        data = base64.b64encode(self.mp4).decode()
        return f'<video controls loop muted width="{self.width_px}" src="data:video/mp4;base64,{data}"></video>'

    def save(self, path: str | Path) -> None:
        """Writes it to a file."""
        Path(path).write_bytes(self.mp4)


def frames(run: RunData, clip_id: str) -> NDArray[np.uint8]:
    """See `Run.frames`."""
    for _, jpegs in run.thumbnails({clip_id}):
        pictures = [cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR) for jpeg in jpegs]
        return np.stack([cv2.cvtColor(picture, cv2.COLOR_BGR2RGB) for picture in pictures])
    raise UsageError(f"there is no clip '{clip_id}' in {run.root}")


def show(
    run: RunData, clip_ids: Sequence[str], columns: Sequence[str] = ("caption",), notes: Sequence[str] = ()
) -> Sheet:
    """See `Run.show`."""
    wanted = [clip_ids] if isinstance(clip_ids, str) else list(clip_ids)
    found = dict(run.thumbnails(set(wanted)))
    if lacking := [clip_id for clip_id in wanted if clip_id not in found]:
        raise UsageError(f"there is no clip '{lacking[0]}' in {run.root}")
    wide = run.wide(columns=columns).set_index("clip_id")
    rows = []
    for clip_id, note in zip(wanted, [*notes, *[""] * len(wanted)], strict=False):
        told = [(name, _short(wide.at[clip_id, name])) for name in columns if name in wide.columns]
        head = [note, clip_id, *(f"{name} {value}" for name, value in told if " " not in value)]
        lines = ["   ".join(filter(None, head)), *(f"{name}: {value}" for name, value in told if " " in value)]
        rows.append(("\n".join(lines), found[clip_id]))
    return Sheet(contact.clip_sheet(rows))


def play(run: RunData, clip_id: str) -> Player:
    """See `Run.play`."""
    index = run.index()
    for shard in (index or {"shards": []})["shards"]:
        with store.open_arrow(store.join(run.shards_root(), plain_name(shard["file"]))) as handle:
            file = pq.ParquetFile(handle)
            for group, places in groups_with(file, [clip_id]).items():
                return Player(file.read_row_group(group, columns=["mp4"]).column("mp4")[int(places[0])].as_py())
    raise UsageError(
        f"clip '{clip_id}' is not in the shards of {run.root}; `run.frames` shows the thumbnails of any clip"
    )


def funnel(run: RunData, keep: Mapping[str, Mapping[str, Any]] | None = None) -> pd.DataFrame:
    """See `Run.funnel`."""
    rules = dict(run.pipeline.config.keep)
    if keep is not None:
        try:
            rules = TypeAdapter(dict[str, Rule]).validate_python({name: dict(rule) for name, rule in keep.items()})
        except ValidationError as error:
            first = error.errors()[0]
            raise ConfigError(f"keep: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    found = select(run.scored(rules), rules)
    left, left_s = found.total_clips - found.failed_clips, found.total_s - found.failed_s
    rows = [("all clips", np.nan, np.nan, found.total_clips, found.total_s)]
    rows.append(("failed", found.failed_clips, found.failed_s, left, left_s))
    for drop in found.drops:
        left, left_s = left - drop.in_order_clips, left_s - drop.in_order_s
        rows.append((drop.rule, drop.alone_clips, drop.alone_s, left, left_s))
    columns = ["rule", "drops_alone_clips", "drops_alone_s", "left_clips", "left_s"]
    frame = pd.DataFrame(rows, columns=columns).set_index("rule")
    frame.attrs["thresholds"] = dict(found.thresholds)
    return frame


def _short(value: Any) -> str:
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return "-"
    return f"{value:.3g}" if isinstance(value, float | np.floating) else str(value)
