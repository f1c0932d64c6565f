"""Small contests with real videos, as `rushes ablate` writes them, and a voting server in a thread of the test."""

import asyncio
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from curate.voting import contest, server
from curate.voting.booth import Booth
from tests.videos import write_video

CONTESTANTS = ("everything", "motion-12.5", "motion-25")
PROMPTS = ("a red ball", "a bird on a branch", "waves at night", "a hand that writes")


def make_contest(
    run: Path,
    name: str = "first",
    contestants: Sequence[str] = CONTESTANTS,
    prompts: Sequence[str] = PROMPTS,
    seeds: int = 1,
    missing: Sequence[str] = (),
) -> Path:
    """Writes RUN/ablate/NAME with a video for each contestant, seed and prompt except the `missing` ones; returns its folder."""
    folder = run / "ablate" / name
    videos = {}
    for k, contestant in enumerate(contestants):
        videos[contestant] = [
            [f"samples/{contestant}-s{seed}/{i:02}.mp4" for i in range(len(prompts))] for seed in range(seeds)
        ]
        for path in (path for paths in videos[contestant] for path in paths if path not in missing):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            write_video(folder / path, picture(k), fps=8)
    content = {
        "version": 1,
        "name": name,
        "prompts": list(prompts),
        "groups": [{"name": "motion", "contestants": list(contestants)}],
        "videos": videos,
    }
    (folder / "contest.json").write_text(json.dumps(content))
    return folder


def picture(k: int, n: int = 6) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """(n, 48, 64, 3): a square that moves over the colour of contestant k."""
    frames = np.full((n, 48, 64, 3), ((60 + 60 * k) % 256, 90, (200 - 50 * k) % 256), np.uint8)
    for i in range(n):
        frames[i, 16:32, 6 * i : 6 * i + 16] = 235
    return frames


@contextmanager
def served(folder: Path, port: int = 0) -> Iterator[str]:
    """The address of a server of this process."""
    booth = Booth(contest.read(folder))
    listening = server.listen(port)
    loop, stop = asyncio.new_event_loop(), asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(server.serve(booth, listening, stop)))
    thread.start()
    try:
        yield server.address(booth, listening)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
        loop.close()
