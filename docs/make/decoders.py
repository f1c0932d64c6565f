"""Generates docs/decoders.md: how each decoder handles the awkward files. Run `python -m docs.make.decoders`."""

import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from curate.sandbox.sandbox import Sandbox
from curate.video.open import Reader, VideoError, open_video
from tests import naughty
from tests.awkward import AWKWARD, Awkward, make_all
from tests.videos import read_number

PAGE = Path(__file__).resolve().parents[2] / "docs" / "decoders.md"
HEAD = """\
# Which decoder handles what

*Written by `python -m docs.make.decoders` from the files of `tests/awkward.py`; a test fails when it is out of date.*

PyAV decodes the pictures in order (the scan, the clip writer) and the pictures at given times (`curate.video.open.frames_at`). The
table shows how it handles files that are damaged, unusual, or not videos.

decord is the decoder of the training feed (`train_hooks/decode.py`): it reads a window from the middle of a short clip in 0.88 times
the CPU of PyAV (`python benchmarks/feed.py`). For pictures of a whole file it costs 1.3 to 1.6 times as much as PyAV
(`python benchmarks/random_access.py`), so `frames_at(..., decoder="decord")` is an option, not the default. It is part of
`rushes[train]` and has no wheels for ARM and macOS. It reads local files up to 512 MiB. For the files whose last column says "the same
pictures" they equal PyAV's, bit for bit; for the others decord is refused, for the reason in that column. Without these checks decord
returns wrong pictures without an error: `python benchmarks/random_access.py` prints for how many of these files.

"""


def look(uri: str) -> dict[str, Any]:
    """The results of both decoders for one file. Runs in the sandbox: decord may crash or hang."""
    with Reader(uri) as reader:
        frames: list[tuple[float, int]] = []
        trouble = None
        try:
            frames.extend((frame.t_s, read_number(frame.rgb())) for frame in reader)
        except VideoError as error:
            trouble = str(error)
        trouble = trouble or reader.trouble
    times_s = [t_s for t_s, _ in frames][::-7]  # backwards, and far enough apart for seeks
    with open_video(uri, "pyav") as video:
        by_pyav = video.frames_at(times_s)
    numbers = [read_number(frame) for frame in by_pyav.frames_THWC]
    result = {
        "n": len(frames),
        "trouble": trouble,
        "same_after_seeks": (by_pyav.times_s, numbers) == (times_s, [number for _, number in frames][::-7]),
        "decord": None,
    }
    try:
        with open_video(uri, "decord") as video:
            by_decord = video.frames_at(times_s)
    except VideoError as error:
        return result | {"decord": str(error)}
    apart = int(np.abs(by_decord.frames_THWC.astype(np.int16) - by_pyav.frames_THWC).max())
    return result | {
        "apart": apart,
        "same_times": by_decord.times_s == by_pyav.times_s,
    }


def rows(folder: dict[str, Path], sandbox: Sandbox) -> list[tuple[Awkward, str, str]]:
    """(file, result of PyAV, result of decord), as the page words them."""
    return [(one, *_verdict(one, str(folder[one.name]), sandbox)) for one in AWKWARD]


def _verdict(one: Awkward, path: str, sandbox: Sandbox) -> tuple[str, str]:
    if one.refused:
        arguments = ("tests.naughty", "refusal", path)
        as_nobody = one.name == "unreadable.mp4" and os.geteuid() == 0  # root may read everything
        refusal = (
            sandbox.call(naughty.as_nobody, *arguments, wall_s=30)
            if as_nobody
            else sandbox.call(naughty.refusal, path, wall_s=30)
        )
        return f"refused: {re.sub(r' [(][^()]*[)]$', '', refusal).replace(path, 'the path')}", "-"
    seen = sandbox.call(look, path, wall_s=60)
    if one.error:
        return "what can be decoded, and an error", "no" if seen["decord"] else "the same pictures"
    ways = (
        f"{seen['n']} picture"
        + ("" if seen["n"] == 1 else "s")
        + ("" if seen["same_after_seeks"] else "; at a given time, a neighbour")
    )
    if seen["decord"] is not None:
        reason = seen["decord"].removeprefix("decord is not used: ").removeprefix("decord fails: ")
        return ways, f"no: {reason.split(' (')[0]}"
    same = seen["apart"] == 0 and seen["same_times"]
    return ways, "the same pictures" if same else f"other pictures: {seen}"


def page(folder: dict[str, Path], sandbox: Sandbox) -> str:
    lines = ["| file | what it is | PyAV | decord |", "|---|---|---|---|"]
    lines += [f"| `{one.name}` | {one.what} | {pyav} | {decord} |" for one, pyav, decord in rows(folder, sandbox)]
    return HEAD + "\n".join(lines) + "\n"


def main() -> None:
    with tempfile.TemporaryDirectory() as name, Sandbox(memory_mb=1500) as sandbox:
        Path(name).chmod(0o755)
        PAGE.write_text(page(make_all(Path(name)), sandbox))
    print(f"wrote {PAGE.name}", file=sys.stderr)


if __name__ == "__main__":
    from docs.make import decoders  # the sandbox imports `look` by the name of its module

    decoders.main()
