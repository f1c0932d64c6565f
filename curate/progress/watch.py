"""The progress of a run, read from its files by another process. Nothing is written.

A part never changes, so each is opened once, and only its footer is read (of the clips table, four narrow columns). A part's name is a digest of
its keys: a part that was counted in one table has the same number of rows in every other table, and is opened for its errors only, which may lag
behind. A look lists the tables that are not full; a full table is listed again when a table that it depends on has grown. A look stops at its
time budget, and the next look continues.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pyarrow.parquet as pq

from curate.progress import cost
from curate.progress.model import Board, Line, bottleneck, duration, parts_of
from curate.run.data import PIPELINE, RunData
from curate.run.shard_index import Plan
from curate.scan import scan, sources
from curate.tables import store
from curate.tables.table import READERS, Table

BUDGET_S = 5.0
"""Time budget of one look, in seconds. Ours."""
LISTED_EVERY_S = 30.0
"""A full table is listed again after this many seconds, in case it was dropped. Ours."""
QUIET_S = 300.0
"""A run without changes for this many seconds is reported as quiet. Ours."""


@dataclass(frozen=True)
class PartCount:
    """The counts of one part."""

    rows: int
    errors: int
    windows: int = 0
    clips: int = 0
    """In the clips table: spans that are clips, neither skipped nor failed."""


@dataclass
class TableCounts:
    """The parts of one table that were counted so far. `rows_of`, shared by all tables, holds the rows of parts by name."""

    table: Table
    rows_of: dict[str, int] = field(default_factory=dict)
    parts: dict[str, PartCount] = field(default_factory=dict)
    pending: list[str] = field(default_factory=list)
    listed_s: float = float("-inf")

    def list_parts(self) -> None:
        """Lists the parts that exist."""
        self.listed_s = time.monotonic()
        names = self.table.parts()
        self.parts = {name: self.parts[name] for name in names if name in self.parts}
        self.pending = [name for name in names if name not in self.parts]

    def count(self, deadline_s: float) -> None:
        """Opens new parts until the deadline (of the monotonic clock)."""
        with ThreadPoolExecutor(READERS) as pool:
            while self.pending and time.monotonic() < deadline_s:
                some = self.pending[: 8 * READERS]
                found = zip(some, pool.map(self._count, some), strict=True)
                self.parts.update({name: count for name, count in found if count is not None})
                self.rows_of.update({name: self.parts[name].rows for name in some if name in self.parts})
                self.pending = self.pending[len(some) :]

    def _count(self, name: str) -> PartCount | None:
        try:
            if "window" in self.table.schema.names:  # the clips table is counted in windows
                return self._count_spans(name)
            with store.open_read(store.join(self.table.root, name)) as file:
                footer = pq.read_metadata(file)
        except FileNotFoundError:  # deleted since it was listed
            return None
        at = footer.schema.names.index("error")
        groups = [footer.row_group(i).column(at) for i in range(footer.num_row_groups)]
        nulls = sum(group.statistics.null_count for group in groups if group.statistics is not None)
        return PartCount(footer.num_rows, footer.num_rows - nulls)

    def _count_spans(self, name: str) -> PartCount:
        rows = self.table.read_part(name, ["source_id", "window", "skip", "error"]).to_pylist()
        return PartCount(
            len(rows),
            sum(row["error"] is not None for row in rows),
            len({(row["source_id"], row["window"]) for row in rows}),
            sum(row["error"] is None and row["skip"] is None for row in rows),
        )

    def sum(self, what: str) -> int:
        """The sum over all counted parts; for rows, also over parts whose rows are known from their name."""
        known = sum(self.rows_of.get(name, 0) for name in self.pending) if what == "rows" else 0
        return known + sum(int(getattr(part, what)) for part in self.parts.values())

    @property
    def is_behind(self) -> bool:
        """Whether there are parts whose rows are unknown."""
        return any(name not in self.rows_of for name in self.pending)


class Watch:
    """Follows the run in a directory or at a URL. `look()` brings `board` up to date.

    Attributes:
        is_quiet: Whether nothing has changed for QUIET_S.
        board: The tables of the run; empty while there is no run.
        finished: Whether all tables are full and shards, index and report exist.
        waits_for: Why there is nothing to show yet, in one sentence.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self.board = Board()
        self.finished = False
        self.waits_for: str | None = None
        self.is_quiet = False
        self._run: RunData | None = None
        self._saved: bytes | None = None
        self._listed: int | None = None
        self._counts: dict[str, TableCounts] = {}
        self._selected: dict[tuple[str, ...], tuple[tuple[int, ...], int]] = {}
        self._windows: tuple[int, int] = (-1, 0)
        self._plan: tuple[str, Plan] | None = None
        self._changed_s = time.monotonic()

    def look(self) -> None:
        """Looks once. Raises RushesError when the directory is not a valid run."""
        if not self._opened():
            return
        assert self._run is not None
        deadline_s = time.monotonic() + BUDGET_S
        before = [(line.done, line.errors) for line in self.board.lines]
        try:
            full = self._look_at_all(deadline_s)
        except FileNotFoundError:  # a table was dropped while it was read; the next look lists it again
            full = False
        full = full and not any(counts.pending for counts in self._counts.values())
        self.finished = full and self._run.index() is not None and store.exists(self._run.report_path)
        now = time.monotonic()
        if before != [(line.done, line.errors) for line in self.board.lines]:
            self._changed_s = now
        self.is_quiet = now - self._changed_s > QUIET_S and not self.finished
        self.board.note = self._note(now)

    def _look_at_all(self, deadline_s: float) -> bool:
        """Updates every line. Returns whether all tables are full."""
        assert self._run is not None
        before_is_full = True
        for phase in self._run.phases():
            lines = [self.board.line(name) for name in phase]
            for line in lines:
                if line.name == "shards":
                    self._look_at_shards(line, before_is_full)
                else:
                    self._look_at(line, before_is_full, deadline_s)
                is_full = before_is_full and line.total is not None and line.done >= line.total
                line.state = "done" if is_full else "running" if line.done else "waiting"
            before_is_full = before_is_full and all(line.state == "done" for line in lines)
        return before_is_full

    def _opened(self) -> bool:
        """Whether there is a run; it is opened again when its pipeline.json has changed."""
        try:
            saved = store.get(store.join(store.normalise(self.root), PIPELINE))
        except FileNotFoundError:
            self.waits_for = f"there is no run in {self.root} yet; waiting for one"
            self._run, self._saved, self.board = None, None, Board()
            return False
        if saved != self._saved:
            self._run = RunData.open(self.root)
            self._saved, self._listed = saved, self._run.listed
            self.board = Board([Line(name) for name in self._run.walk()])
            rows_of: dict[str, int] = {}
            self._counts = {name: TableCounts(table, rows_of) for name, table in self._run.tables().items()}
            self._selected, self._windows, self._plan = {}, (-1, 0), None
        self.waits_for = None
        return True

    def _look_at(self, line: Line, upstream_is_full: bool, deadline_s: float) -> None:
        counts = self._counts[line.name]
        total = self._total(line.name, upstream_is_full)
        was_full = line.total is not None and line.done >= line.total and total == line.total and not counts.pending
        if not was_full or time.monotonic() - counts.listed_s > LISTED_EVERY_S:
            counts.list_parts()
            counts.count(deadline_s)
        line.total = self._total(
            line.name, upstream_is_full
        )  # `sources` counts its own rows where `listed` is not recorded
        line.done = counts.sum("windows" if line.name == "clips" else "rows")
        line.errors = counts.sum("errors")
        if counts.is_behind:
            line.throughput.counts.clear()  # rows counted late were not written now
        else:
            line.throughput.add(line.done)

    def _total(self, name: str, upstream_is_full: bool) -> int | None:
        """Rows of the full table; None: not known yet."""
        assert self._run is not None
        if name == "sources":
            return self._counts["sources"].sum("rows") if self._listed is None else self._listed
        if name == "clips":
            return self._n_windows()
        step = next(step for step in self._run.steps if step.spec.name == name)
        if step.kind == "measure":
            return self._counts["clips"].sum("clips") or (0 if upstream_is_full else None)
        return self._n_selected(step.kind) if upstream_is_full else None

    def _n_windows(self) -> int:
        """Windows of the known sources; the sources table is read again when it has grown."""
        assert self._run is not None
        known = self._counts["sources"].sum("rows")
        if known != self._windows[0]:
            length_s = self._run.pipeline.config.scan.window_s
            n = sum(scan.n_windows(row["duration_s"], length_s) for row in sources.primary(self._run.sources()))
            self._windows = (known, n)
        return self._windows[1]

    def _n_selected(self, kind: str) -> int:
        """Clips that the rules keep; computed when all measures exist, and again when there are more rows."""
        assert self._run is not None
        kinds = ("measure",) if kind in ("caption", "review") else ("measure", "caption", "review")
        made = tuple(self._counts[step.spec.name].sum("rows") for step in self._run.steps if step.kind in kinds)
        made += (self._counts["clips"].sum("clips"),)
        if self._selected.get(kinds, ((), 0))[0] != made:
            chosen = self._run.selection(kinds) if kind in ("caption", "review") else self._run.selection()
            self._selected[kinds] = (made, len(chosen.clip_ids))
        return self._selected[kinds][1]

    def _look_at_shards(self, line: Line, upstream_is_full: bool) -> None:
        """Counts shards by their receipts, in clips; unknown until all earlier tables are full."""
        assert self._run is not None
        if not upstream_is_full:
            line.total, line.done = None, 0
            return
        root = self._run.shards_root()
        there = set(store.names(root, ".json")) - {"plan.json", "index.json"}
        line.total = self._n_selected("embed")
        if self._plan is None or self._plan[0] != root or there - {f"{name}.json" for name in self._plan[1].shards}:
            plan = Plan.of(root)
            self._plan = (root, plan) if plan is not None else None
        if self._plan is None:
            line.done = 0
            return
        planned = self._plan[1].shards
        if sum(map(len, planned.values())) != line.total and (plan := Plan.of(root)) is not None:
            self._plan, planned = (root, plan), plan.shards
        line.done = sum(len(ids) for name, ids in planned.items() if f"{name}.json" in there)
        line.errors = len((self._run.index() or {}).get("left_out", []))
        line.throughput.add(line.done)

    def _note(self, now_s: float) -> str:
        if self.finished:
            return ""
        left = sum(len(counts.pending) for counts in self._counts.values())
        if left:
            return f"still counting: {left} parts to open"
        if self.is_quiet:
            return f"no change for {duration(now_s - self._changed_s)}: the run may have been stopped; `rushes run` resumes it"
        running = [line.name for line in self._filling()]
        return bottleneck(running, parts_of(cost.read(self.root), running))

    def _filling(self) -> list[Line]:
        """The lines that grew during the last minute, or else the first line that is not full."""
        open_lines = [line for line in self.board.lines if line.state != "done"]
        return [line for line in open_lines if line.throughput.rate() > 0] or open_lines[:1]
