"""Each awkward file gives a correct result or one clear sentence, and none stops, blocks or slows the files after it."""

import os
import re
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from curate.config.config import ScanConfig
from curate.sandbox.sandbox import Sandbox, SandboxError
from curate.scan import scan, sources
from tests import naughty
from tests.awkward import AWKWARD, FAST, FPS, MISBEHAVIOUR, Awkward, pictures, video
from tests.curate.scan.test_scan import CUTS

SLOW_S = 20.0
"""Limit of each call, which takes less than a second on an idle machine."""
REFUSED = [one for one in AWKWARD if one.refused]
READ = [one for one in AWKWARD if not one.refused]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """One child for all files, as in a run."""
    with Sandbox(memory_mb=1500) as box:
        yield box


def scanned(
    sandbox: Sandbox, path: Path, function: Any = scan.scan_window, wall_s: float = SLOW_S
) -> list[dict[str, Any]]:
    return sandbox.call(function, str(path), "source", 0, 0, ScanConfig(), CUTS, wall_s=wall_s)  # type: ignore[no-any-return]


def spans_and_errors(rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    rows = sorted(rows, key=lambda row: (row["start_s"], row["end_s"]))
    return [row for row in rows if not row["error"]], [row for row in rows if row["error"]]


def assert_tiled(spans: list[dict[str, Any]]) -> None:
    assert spans[0]["start_s"] == 0.0
    for before, after in pairwise(spans):
        assert before["end_s"] == pytest.approx(after["start_s"], abs=1e-9)


def test_the_awkward_files_are_many_and_unique() -> None:
    assert len({one.name for one in AWKWARD}) == len(AWKWARD) >= 36
    assert len({one.what for one in AWKWARD}) == len(AWKWARD)


def open_it(one: Awkward, path: str, sandbox: Sandbox) -> None:
    if one.name == "unreadable.mp4" and os.geteuid() == 0:  # root may read everything
        sandbox.call(naughty.as_nobody, "curate.scan.sources", "probe_file", path, wall_s=SLOW_S)
    else:
        sandbox.call(sources.probe_file, path, wall_s=SLOW_S)
        scanned(sandbox, Path(path))


@pytest.mark.parametrize("one", REFUSED, ids=lambda one: one.name)
def test_a_file_that_is_not_a_video_raises_one_sentence(
    one: Awkward, awkward_files: dict[str, Path], sandbox: Sandbox
) -> None:
    assert one.refused
    path = awkward_files[one.name]
    before = sandbox.call(naughty.process_id, wall_s=30)
    began = time.monotonic()
    with pytest.raises(SandboxError) as error:
        open_it(one, str(path), sandbox)
    assert error.value.raised
    assert re.search(one.refused, str(error.value))
    assert "\n" not in str(error.value)
    assert time.monotonic() - began < SLOW_S
    assert sandbox.call(naughty.process_id, wall_s=30) == before, "the same child continues after the file"


def test_hashing_a_named_pipe_raises_and_does_not_block(awkward_files: dict[str, Path], sandbox: Sandbox) -> None:
    with pytest.raises(SandboxError, match=r"^not a regular file: a named pipe$"):
        sandbox.call(sources.identify, str(awkward_files["pipe.mp4"]), "sampled", wall_s=SLOW_S)


@pytest.mark.parametrize("one", READ, ids=lambda one: one.name)
def test_readable_frames_are_returned_and_missing_ones_reported(
    one: Awkward, awkward_files: dict[str, Path], sandbox: Sandbox
) -> None:
    path = awkward_files[one.name]
    before = sandbox.call(naughty.process_id, wall_s=30)
    began = time.monotonic()
    source = sandbox.call(sources.probe_file, str(path), wall_s=SLOW_S)
    rows = scanned(sandbox, path)
    read = sandbox.call(naughty.read, str(path), wall_s=SLOW_S)
    assert time.monotonic() - began < SLOW_S
    assert sandbox.call(naughty.process_id, wall_s=30) == before, "the same child continues after the file"

    spans, failed = spans_and_errors(rows)
    assert (source["width_px"], source["height_px"]) == one.size_px == (spans[0]["width_px"], spans[0]["height_px"])
    assert_tiled(spans)
    end_s = spans[-1]["end_s"]
    n_frames = sum(span["n_frames"] for span in spans)
    assert end_s == pytest.approx(read["decoded_s"], abs=1e-6)
    assert n_frames == len(read["numbers"])
    numbers = list(one.numbers)
    if one.error is None:
        assert failed == []
        assert read["trouble"] is None
        assert read["numbers"] == numbers
        assert end_s == pytest.approx(one.expected_s, abs=0.002)
        if source["duration_s"] is not None:
            assert source["duration_s"] == pytest.approx(one.expected_s, abs=max(0.25, 0.01 * one.expected_s))
        return
    (row,) = failed
    assert re.search(one.error, row["error"])
    assert re.search(one.error, read["trouble"])
    assert "\n" not in row["error"]
    assert row["start_s"] == pytest.approx(end_s, abs=1e-6), "the error row begins where the pictures end"
    assert row["end_s"] == pytest.approx(max(one.expected_s, end_s), abs=0.05)
    assert one.first <= n_frames <= one.most
    assert read["numbers"][: one.first] == numbers[: one.first]
    assert read["numbers"][len(read["numbers"]) - one.last :] == numbers[len(numbers) - one.last :]


@pytest.mark.parametrize("how", MISBEHAVIOUR.values())
def test_a_failing_decoder_affects_only_its_file(how: str, awkward_files: dict[str, Path]) -> None:
    names = {"segfault": "segfaults.mp4", "hang": "hangs.mp4", "eat_memory": "eats_memory.mp4"}
    sentence = {
        "segfault": r"^the decoder process was killed by signal 11.*\(attempt 2 of 2\)$",
        "hang": r"^the decoder took longer than 2 s and was stopped.*\(attempt 2 of 2\)$",
        "eat_memory": r"^the decoder used more than 600 MB of memory and was stopped.*\(attempt 2 of 2\)$",
    }
    with Sandbox(memory_mb=600) as box:
        sound = scanned(box, awkward_files["cover.mp4"], naughty.scan_badly)
        with pytest.raises(SandboxError, match=sentence[how]) as error:
            scanned(box, awkward_files[names[how]], naughty.scan_badly, wall_s=2.0 if how == "hang" else SLOW_S)
        assert not error.value.raised
        assert scanned(box, awkward_files["cover.mp4"], naughty.scan_badly) == sound


@pytest.mark.parametrize("name", ["grows.mp4", "grows.ts", "grows.mkv"])
def test_a_growing_file_gives_the_frames_written_so_far(name: str, tmp_path: Path, sandbox: Sandbox) -> None:
    options = {"grows.mp4": FAST, "grows.mkv": {"live": "1"}}.get(name)
    whole = bytes(video(tmp_path / name, pictures(), container_options=options))
    path = tmp_path / name
    path.write_bytes(whole[: len(whole) // 3])
    done = threading.Event()

    def grow() -> None:
        with path.open("ab") as file:
            for at in range(len(whole) // 3, len(whole), 400):
                file.write(whole[at : at + 400])
                file.flush()
                if done.wait(0.001):
                    return

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        spans, failed = spans_and_errors(scanned(sandbox, path))
    finally:
        done.set()
        writer.join()
    assert_tiled(spans)
    n_frames = sum(span["n_frames"] for span in spans)
    assert 10 <= n_frames <= 50, "a third of the pictures was written, perhaps without the end of the last one"
    if not failed:  # data that came too late may be missing in the middle, which is reported
        assert spans[-1]["end_s"] == pytest.approx(n_frames / FPS, abs=0.002)
    if name == "grows.mp4" and n_frames < 50:
        assert re.search(r"ends early|damaged", failed[0]["error"])
