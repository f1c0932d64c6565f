"""A small project with footage and a pipeline, and the fixture that runs commands on it."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.in_process import in_process
from tests.videos import write_video
from tests.zygote import COMMON, TRAINING, Zygote

ROOT = Path(__file__).resolve().parents[1]
PIPELINE = """\
#!/usr/bin/env -S rushes run
run: runs/small
sources: footage
scan: {min_clip_s: 1.0, max_clip_s: 4.0}
measure:
  - use: tests.stages.Brightness
  - use: filters.Motion
caption:
  - use: tests.stages.Says
keep:
  brightness: {above: p10}
shards: {short_side_px: 64}
"""


SMALLEST_RECIPE = """\
extends: tiny
frames: 3
width_px: 16
height_px: 16
unet_channels: [16, 16]
vae_channels: [16, 16]
text_width: 16
vae_fit_steps: 0
sample_steps: 1
threads: 1
"""
"""A training of a few seconds."""


def moving(n: int, seed: int, level: int = 40, width: int = 128, height: int = 96) -> NDArray[np.uint8]:
    """Frames of drifting smooth noise with texture for optical flow, (n, H, W, 3)."""
    import cv2

    rng = np.random.default_rng(seed)
    picture = cv2.GaussianBlur(rng.integers(0, 255, (height, width, 3)).astype(np.uint8), (0, 0), 2)
    picture = np.clip(picture.astype(int) - 100 + level, 0, 255).astype(np.uint8)
    return np.stack([np.roll(picture, (i * (seed % 3 + 1)) // 2, axis=1) for i in range(n)])


def make_footage(folder: Path) -> Path:
    """Three valid videos (one with two cuts), and four files that are not valid videos."""
    folder.mkdir(parents=True, exist_ok=True)
    write_video(
        folder / "one.mp4", np.concatenate([moving(60, 1, 20), moving(50, 2, 120), moving(75, 3, 60)]), 25, gop=25
    )
    write_video(folder / "two.mp4", moving(150, 4, 90), 25, gop=25)
    write_video(folder / "with space é.mp4", moving(80, 5, 140), 25, gop=25)
    (folder / "text.mp4").write_text("this is not a video\n")
    (folder / "zero.mp4").write_bytes(b"")
    whole = (folder / "one.mp4").read_bytes()
    (folder / "torn.mp4").write_bytes(whole[: len(whole) // 2])  # the moov box is at the end: nothing can be read
    write_video(folder / "sound.mp4", moving(2, 6), 25, audio_s=1.0)
    _drop_picture(folder / "sound.mp4")
    return folder


def _drop_picture(path: Path) -> None:
    import av

    aside = path.with_name("aside.mp4")
    with av.open(str(path)) as source, av.open(str(aside), "w") as target:
        stream = target.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(source.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    aside.replace(path)


@dataclass
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


Rushes = Callable[..., Done]


def environment() -> dict[str, str]:
    """Environment of a child process: this checkout is importable, and the installed commands are on the path."""
    bin_dir = str(Path(sys.executable).parent)
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PATH": os.pathsep.join([bin_dir, os.environ.get("PATH", "")]),
        "NO_COLOR": "1",
    }


@pytest.fixture(scope="session")
def rushes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rushes]:
    """Runs the command line: `rushes("status", run)`.

    A command runs in the process of the test, which has imported everything already. `process=True` gives it a process of its own, for tests
    of signals, of memory and of Ray; commands that train always get one, since torch keeps settings for the life of a process.
    """
    folder = tmp_path_factory.mktemp("output")
    zygotes: dict[tuple[str, ...], Zygote] = {}

    def call(*arguments: object, cwd: Path | None = None, timeout_s: int = 300, process: bool = False) -> Done:
        words = [str(argument) for argument in arguments]
        out, err = folder / "out", folder / "err"
        trains = words[0] in ("train", "latents", "sample", "ablate", "doctor")
        if not (process or trains):
            code = in_process(words, cwd or Path.cwd(), environment(), out, err, timeout_s)
        else:
            imported = TRAINING if trains else COMMON
            if imported not in zygotes:
                zygotes[imported] = Zygote(imported, ROOT, environment())
            code = zygotes[imported].run(words, cwd, environment(), out, err, timeout_s)
        return Done(code, out.read_text(), err.read_text())

    yield call
    for zygote in zygotes.values():
        zygote.close()


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with pipeline.yaml and footage, not yet run."""
    directory = tmp_path_factory.mktemp("a project é")
    make_footage(directory / "footage")
    (directory / "pipeline.yaml").write_text(PIPELINE)
    (directory / "pipeline.yaml").chmod(0o755)
    return directory


@pytest.fixture(scope="session")
def finished(project: Path, rushes: Rushes) -> Path:
    """The run directory of the project after a finished run. Tests that change a run copy it."""
    done = rushes("run", cwd=project)
    assert done.code == 0, done.err
    assert "4 sources and 0 clips failed; list them with  rushes errors" in done.out
    return project / "runs" / "small"
