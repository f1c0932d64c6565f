"""Fixtures on top of `worlds`: eight clips of moving squares, and a writer of shards folders."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train_hooks.worlds import COLOURS, clip_row, encode, square_frames, write_shards


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)  # two are slower than one on a machine that is busy


@pytest.fixture(scope="session")
def square_rows() -> list[dict[str, Any]]:
    """Eight clips of 24 frames at 12 fps, two of each colour."""
    rows = []
    for i in range(8):
        name = list(COLOURS)[i % 4]
        mp4 = encode(square_frames(COLOURS[name], 24))
        rows.append(clip_row(f"clip{i}", mp4, 24, f"a {name} square moves to the right, number {i}"))
    return rows


@pytest.fixture
def make_shards(tmp_path: Path) -> Callable[..., Path]:
    """Writes rows as a shards folder under tmp_path."""
    return lambda rows, **kwargs: write_shards(tmp_path / "shards", rows, **kwargs)
