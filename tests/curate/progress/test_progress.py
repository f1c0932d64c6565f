"""The progress of a run as printed, and its costs as stored."""

import contextlib
import io
import os
import pty
import re
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console

from curate.cli import summary
from curate.cli.common import Stopped, console
from curate.cluster.work import Finished, Receipt, StageReceipt
from curate.dataset.run import Run
from curate.progress import cost
from curate.progress.cost import Prices, Spent
from curate.progress.live import Drawn, folded
from curate.progress.model import Board, Line, Throughput, bottleneck
from curate.progress.progress import Progress
from curate.progress.status import counts

SHARED = Finished(
    Receipt(10, 1, stages={"motion": StageReceipt(10, 0, 0.5), "text_area": StageReceipt(10, 1, 3.0, 100, 7)}),
    setup_s=2.0,
    busy_s=4.0,
)


def screen(width: int, height: int = 30, **how: object) -> Console:
    """A terminal whose text can be read afterwards."""
    return Console(file=io.StringIO(), force_terminal=True, width=width, height=height, color_system=None, **how)  # type: ignore[arg-type]


def text_of(out: Console) -> str:
    assert isinstance(out.file, io.StringIO)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.file.getvalue())


@pytest.mark.parametrize("width", [80, 120])
def test_the_board_lists_every_table_from_the_start_and_names_the_bottleneck(width: int) -> None:
    out = screen(width)
    progress = Progress(out)
    with progress.over(["sources", "clips", "motion", "text_area", "shards"]):
        out.print(Drawn(progress.board))
        first = text_of(out)
        progress.seen("sources", 4, 4)
        with progress.step("motion, text_area", 40, 0, n_units=4) as step:
            step.advance(SHARED)
            out.print(Drawn(progress.board))
            drawn = text_of(out)[len(first) :]
    assert [line for line in first.splitlines() if "waiting" in line and "shards" in line]
    lines = {line.split()[1]: line for line in drawn.splitlines() if len(line.split()) > 2}
    assert "4 of 4 files" in lines["sources"]
    assert "10 of 40 clips" in lines["motion"]
    assert re.search(r"10 of 40 clips +[\d.]+/s +1 +[\d.]+ (s|min)", lines["text_area"]), lines["text_area"]
    assert "bottleneck: text_area, 75% of busy time (2 tables in one pass)" in drawn
    assert all(len(line) <= width for line in drawn.splitlines())
    assert ("━" in drawn) == (width >= 100)


def test_a_board_that_is_higher_than_the_terminal_keeps_what_runs() -> None:
    lines = [Line(f"a{i}", state="done") for i in range(8)]
    lines += [Line("now", state="running"), *(Line(f"b{i}") for i in range(8))]
    shown = [line if isinstance(line, str) else line.name for line in folded(lines, 6)]
    assert shown == ["8 tables are done", "now", "b0", "b1", "b2", "5 tables wait"]
    assert [line for line in folded(lines, 17) if isinstance(line, str)] == []
    out = screen(80, height=10)
    out.print(Drawn(Board(lines, "bottleneck: now")))
    assert len(text_of(out).splitlines()) <= 9
    assert " now " in text_of(out)


def test_rate_is_of_the_last_minute() -> None:
    throughput = Throughput()
    for second in range(0, 200, 10):
        throughput.add(second * (1 if second < 100 else 3), float(second))
    assert throughput.rate(190.0) == pytest.approx(3.0)
    assert throughput.rate(250.0) < 2.0, "it slows down when nothing comes"
    throughput.add(5, 260.0)
    assert throughput.rate(260.0) == 0.0, "rows that went away are no negative rate"


def test_the_bottleneck_of_one_table_is_that_table() -> None:
    assert bottleneck(["clips"], Spent(busy_s=3.0)) == "bottleneck: clips"
    assert bottleneck([], None) == ""
    reading = Spent(busy_s=10.0, stages={"a": 1.0, "b": 2.0})
    assert bottleneck(["a", "b"], reading).startswith("bottleneck: reading and writing, 70%")


def test_a_log_has_a_line_at_the_start_while_running_and_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curate.progress.lines.EVERY_S", -1.0)
    out = Console(file=io.StringIO(), width=200)
    progress = Progress(out, Prices(prompt_million=1e4))
    with progress.over(["motion", "text_area"]), progress.step("motion, text_area", 20, 0) as step:
        step.advance(SHARED)
        step.advance(SHARED)
    first, running, last = text_of(out).splitlines()
    assert first == "2 tables in one pass: starting workers (20 of 20 clips are pending)"
    assert re.fullmatch(
        r"motion, text_area: 10 of 20 clips \([\d.]+/s, \d+ \+ \d+ tokens/s, 1.00 spent, [\d.]+ \w+ left\), 1 failed",
        running,
    )
    assert re.fullmatch(
        r"motion, text_area: done, 20 of 20 clips \([\d.]+/s, .* 2.00 spent, text_area 75% of busy time\), 2 failed",
        last,
    ), last


def test_a_log_has_a_line_although_no_unit_finishes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curate.progress.lines.EVERY_S", 0.1)
    out = Console(file=io.StringIO(), width=200)
    with Progress(out).step("motion", 20, 5) as step:
        step.start_heartbeat()
        deadline = time.monotonic() + 20
        while "so far" not in text_of(out) and time.monotonic() < deadline:
            time.sleep(0.05)
    assert re.search(r"^motion: 5 of 20 clips \([\d.]+ s so far\)$", text_of(out), re.M), text_of(out)


def test_a_resumed_step_counts_all_sessions_and_a_stopped_one_is_not_done() -> None:
    out = Console(file=io.StringIO(), width=200)
    unit = Finished(Receipt(9, 0, counted=2), busy_s=5.0)

    def stopped() -> None:
        with Progress(out).step("clips", 40, 30) as step:
            step.advance(unit)
            raise Stopped(2)

    with pytest.raises(Stopped):
        stopped()
    first, last = text_of(out).splitlines()
    assert first == "clips: starting workers (10 of 40 windows are pending)"
    assert last.startswith("clips: stopped at 32 of 40 windows")


def test_what_was_spent_adds_up_over_sessions_and_survives_errors(tmp_path: Path) -> None:
    root = str(tmp_path / "run")
    for ends in (None, OSError("disk full"), Stopped(2)):
        progress = Progress(Console(file=io.StringIO()))
        with contextlib.nullcontext() if ends is None else pytest.raises(type(ends)):
            with progress.over(["clips", "motion", "text_area"], root), progress.step("clips", 0, 0):
                pass
            with (
                progress.over(["clips", "motion", "text_area"], root),
                progress.step("motion, text_area", 40, 0, gpus=0.5) as step,
            ):
                step.staffed(3)
                step.advance(SHARED)
                if ends:
                    raise ends
    spent = cost.read(root)
    assert list(spent) == ["motion, text_area"], "a step without work costs nothing"
    found = spent["motion, text_area"]
    assert (found.units, found.rows, found.errors, found.workers, found.gpus) == (3, 30, 3, 3, 0.5)
    assert (found.busy_s, found.setup_s) == pytest.approx((12.0, 6.0))
    assert found.stages == pytest.approx({"motion": 1.5, "text_area": 9.0})
    assert (found.prompt_tokens, found.output_tokens) == (300, 21)
    assert found.wall_s > 0
    name, busy_s, share = cost.slowest(spent) or ("", 0.0, 0.0)
    assert (name, busy_s, share) == ("text_area", pytest.approx(9.0), pytest.approx(0.75))


def test_what_was_spent_is_kept_while_a_step_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill leaves no time to write."""
    monkeypatch.setattr("curate.progress.progress.SAVED_EVERY_S", -1.0)
    progress = Progress(Console(file=io.StringIO()))
    with progress.over(["clips"], str(tmp_path)), progress.step("clips", 4, 0) as step:
        step.advance(Finished(Receipt(9, 0, counted=2), busy_s=5.0))
        assert cost.read(str(tmp_path))["clips"].rows == 2


def test_a_run_keeps_what_each_step_cost(finished: Path) -> None:
    spent = cost.read(str(finished))
    assert set(spent) == {"sources", "clips", "brightness, motion", "says", "shards"}
    assert (spent["sources"].rows, spent["sources"].errors) == (7, 4)
    assert set(spent["brightness, motion"].stages) == {"brightness", "motion"}
    assert all(step.workers >= 1 and step.busy_s > 0 and step.wall_s > 0 for step in spent.values())
    assert cost.read(str(finished / "nowhere")) == {}


@pytest.mark.parametrize(
    ("env", "colour", "drawn"),
    [({}, True, True), ({"NO_COLOR": "1"}, False, True), ({"TERM": "dumb"}, False, False)],
    ids=["terminal", "NO_COLOR", "dumb"],
)
def test_colours_and_drawing_follow_the_terminal(
    env: dict[str, str], colour: bool, drawn: bool, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"TERM": "xterm-256color", **env}.items():
        monkeypatch.setenv(name, value)
    ours, theirs = pty.openpty()
    received: list[bytes] = []

    def listen() -> None:
        with contextlib.suppress(OSError):  # the other end was closed
            while piece := os.read(ours, 2**16):
                received.append(piece)

    listener = threading.Thread(target=listen)
    listener.start()
    try:
        with os.fdopen(theirs, "w") as terminal:
            monkeypatch.setattr("sys.stdout", terminal)
            out = console()
            progress = Progress(out)
            run = Run.open(finished)
            with progress.over(["sources"]), progress.step("sources", 7, 0) as step:
                step.advance(Finished(Receipt(7, 4), busy_s=1.0))
            summary.show(run, counts(run), progress, out)
    finally:
        listener.join()
        os.close(ours)
    raw = b"".join(received).decode()
    assert bool(re.search(r"\x1b\[(\d+;)*(3[0-7]|38|9[0-7])(;\d+)*m", raw)) == colour
    assert ("\x1b" in raw) == drawn
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", raw).replace("\r\n", "\n")
    assert ("────" in text) == drawn
    assert "4 sources" in text
    assert "rushes errors" in text
    assert "rushes train --recipe tiny --shards" in text.replace("\n", "")
    assert "slowest" in text


def test_the_box_says_what_to_do_when_nothing_was_kept(finished: Path) -> None:
    run = Run.open(finished)
    status = counts(run)
    status["clips"] |= {"kept": 0}
    assert summary.following(run, status, "runs/a b") == "rushes funnel 'runs/a b'"
