"""Stills from other pictures than the clips' own: Parquet files with columns `image` and `caption` (or `text`).

Hugging Face's image datasets have them. `image` is the bytes of a picture, or a struct with such `bytes`.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from train_hooks.errors import TrainError
from train_hooks.frames import fit
from train_hooks.size import Size

CAPTIONS = ("caption", "text")
TRIES = 8  # pictures tried in the place of one that cannot be read; ours


class ImageFolder:
    """The pictures of a folder. Raises TrainError when it has none."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._rows: list[tuple[Path, int, int]] = []
        self._caption: dict[Path, str] = {}
        for path in sorted(Path(folder).rglob("*.parquet")):
            try:
                file = pq.ParquetFile(path)
            except (pa.ArrowException, OSError) as error:
                raise TrainError(f"image_folder: {path} cannot be read: {str(error).splitlines()[0]}") from None
            names = file.schema_arrow.names
            if "image" not in names or not any(name in names for name in CAPTIONS):
                raise TrainError(f"image_folder: {path} has no columns 'image' and 'caption'")
            self._caption[path] = next(name for name in CAPTIONS if name in names)
            for group in range(file.num_row_groups):
                self._rows += [(path, group, row) for row in range(file.metadata.row_group(group).num_rows)]
        if not self._rows:
            raise TrainError(f"image_folder: {folder} holds no Parquet files with pictures")

    def __len__(self) -> int:
        return len(self._rows)

    def picture(self, draw: int, size: Size) -> tuple[str, str, Tensor]:
        """Name, caption and bytes (3, 1, H, W) of the picture that a whole number falls on; of the next one where it cannot be read.

        Raises TrainError after a few that cannot.
        """
        reason = ""
        for i in range(TRIES):
            path, group, row = self._rows[(draw + i) % len(self._rows)]
            table = pq.ParquetFile(path).read_row_group(group, columns=["image", self._caption[path]])
            image: Any = table["image"][row].as_py()
            caption = table[self._caption[path]][row].as_py() or ""
            try:
                with Image.open(io.BytesIO(image["bytes"] if isinstance(image, dict) else image)) as opened:
                    frame_HWC = np.array(opened.convert("RGB"), np.uint8)
            except (OSError, UnidentifiedImageError, Image.DecompressionBombError, TypeError, KeyError) as error:
                reason = f"row {row} of row group {group} of {path} is no picture: {error}"
                continue
            return f"{path.name}:{group}:{row}", caption, fit(frame_HWC, size.width_px, size.height_px)[:, None]
        raise TrainError(f"image_folder: {reason}")
