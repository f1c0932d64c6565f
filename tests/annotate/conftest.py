"""Clips from arrays or without thumbnails, and stages with local weights."""

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from curate.clip import Clip
from tests.annotate import tiny_models


@pytest.fixture(scope="session")
def make_clip() -> Callable[..., Clip]:
    def make(
        frames: Sequence[NDArray[np.uint8]] = (), clip_id: str = "c", columns: Mapping[str, Any] | None = None
    ) -> Clip:
        jpegs = tuple(cv2.imencode(".jpg", cv2.cvtColor(f, cv2.COLOR_RGB2BGR))[1].tobytes() for f in frames)
        times_s = tuple(0.5 * i for i in range(len(frames)))
        return Clip(clip_id, "s", 0.0, 1.0, 24.0, 24, 640, 360, jpegs, times_s, columns or {})

    return make


@pytest.fixture(scope="session")
def ready() -> Callable[[Any], Any]:
    """Sets the local path of the weights and calls `setup`, as the engine does."""

    def make(stage: Any) -> Any:
        package, inside = stage.weights.removeprefix("pip:").split(":", 1)
        stage.weights = str(distribution(package.split("==")[0]).locate_file(inside))
        stage.setup()
        return stage

    return make


@pytest.fixture(scope="session")
def tiny_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.build_text(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="session")
def tiny_vlm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.build_vlm(tmp_path_factory.mktemp("vlm"))


@pytest.fixture(scope="session")
def tiny_llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.build_llava(tmp_path_factory.mktemp("llava"))
