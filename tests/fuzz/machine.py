"""A state machine over a run: sessions killed between two writes, changed thresholds, more footage, recomputed tables, compacted parts.

In any order, a session that finishes leaves what a single session over the same footage leaves. Everything is the real pipeline in this process,
except the sandbox that opens videos.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from curate.config import pipeline_file
from curate.dataset.run import Run
from curate.pipeline import execute as pipeline
from curate.progress.progress import Progress
from curate.sandbox import job as sandbox_job
from curate.tables import store
from tests.project import moving
from tests.videos import write_video

PIPELINE = """\
run: run
sources: footage
scan: {min_clip_s: 1.0, max_clip_s: 2.0, workers: 1}
measure:
  - {use: tests.stages.Brightness, workers: 1}
  - {use: tests.stages.Fussy, workers: 1, on: "02468ace"}
keep:
  brightness: {above: LEVEL}
shards: {workers: 1}
"""
LEVELS = (0, 60, 100, 255)
FILMS = 3


class Killed(BaseException):
    """Stands for the end of the process."""


class Here:
    """Replaces the sandbox: calls the function in this process."""

    def __init__(self, *_: object) -> None: ...

    def call(self, function: Callable[..., Any], *arguments: Any, wall_s: float, online: bool = False) -> Any:
        return function(*arguments)

    def close(self) -> None: ...


@contextmanager
def killed_after(writes: int | None) -> Iterator[None]:
    """Raises Killed before the given write or removal from now on; None: never."""
    left = 10**9 if writes is None else writes

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return function(*arguments, **more)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in ("put", "remove", "link"):
            patch.setattr(store, name, counted(getattr(store, name)))
        patch.setattr(sandbox_job, "Sandbox", Here)
        yield


def films() -> Path:
    """The footage, made once."""
    folder = Path(tempfile.gettempdir()) / "rushes-fuzz-films"
    if not (folder / "done").exists():
        folder.mkdir(exist_ok=True)
        for i in range(FILMS):
            write_video(folder / f"{i}.mp4", moving(60 + 20 * i, i + 1, 40 + 50 * i), 25, gop=25)
        (folder / "done").touch()
    return folder


class Resume(RuleBasedStateMachine):
    """One run directory, and what may befall it."""

    truth: dict[str, pd.DataFrame] | None = None

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="rushes-fuzz-"))
        (self.folder / "footage").mkdir()
        self.n, self.level, self.ended_well = 0, 0, False
        if Resume.truth is None:
            for _ in range(FILMS):
                self.more_footage()
            self.session(None, False)
            Resume.truth = rows(self.run())
            assert len(Resume.truth["clips"]) >= FILMS
            shutil.rmtree(self.folder)
            self.begin()
            return
        self.more_footage()

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder, ignore_errors=True)

    def run(self) -> Run:
        (self.folder / "pipeline.yaml").write_text(PIPELINE.replace("LEVEL", str(self.level)))
        loaded = pipeline_file.load(self.folder / "pipeline.yaml")
        return Run(str(self.folder / "run"), loaded)

    def session(self, killed: int | None, retry: bool, recompute: tuple[str, ...] = ()) -> None:
        progress = Progress()
        progress.console.quiet = True
        self.ended_well = False
        try:
            with killed_after(killed):
                pipeline.execute(self.run(), progress, recompute, retry)
        except Killed:
            return
        self.ended_well = True

    @precondition(lambda self: self.n < FILMS)
    @rule()
    def more_footage(self) -> None:
        shutil.copyfile(films() / f"{self.n}.mp4", self.folder / "footage" / f"{self.n}.mp4")
        self.n += 1
        self.ended_well = False

    @rule(level=st.sampled_from(LEVELS))
    def other_threshold(self, level: int) -> None:
        self.level = level
        self.ended_well = False

    @rule(killed=st.integers(0, 45), retry=st.booleans())
    def killed_session(self, killed: int, retry: bool) -> None:
        self.session(killed, retry)

    @rule(retry=st.booleans())
    def whole_session(self, retry: bool) -> None:
        self.session(None, retry)
        assert self.ended_well

    @rule(killed=st.none() | st.integers(0, 45), name=st.sampled_from(["brightness", "fussy", "clips", "sources"]))
    def recomputed(self, killed: int | None, name: str) -> None:
        self.session(killed, False, (name,))

    @precondition(lambda self: (self.folder / "run" / "pipeline.json").exists())
    @rule(killed=st.none() | st.integers(0, 12))
    def compacted(self, killed: int | None) -> None:
        progress = Progress()
        progress.console.quiet = True
        with killed_after(killed), suppress(Killed):
            pipeline.compact(Run.open(self.folder / "run"), progress, lambda _: None)

    @invariant()
    def every_file_is_whole(self) -> None:
        for file in (self.folder / "run").rglob("*.parquet"):
            if not file.name.startswith("."):
                pq.read_metadata(file)
        for file in (self.folder / "run").glob("**/*.json"):
            store.get_json(str(file))

    @invariant()
    def nothing_is_lost_and_nothing_is_twice(self) -> None:
        if not self.ended_well or Resume.truth is None:
            return
        run = self.run()
        found = rows(run)
        uris = {f"{i}.mp4" for i in range(self.n)}
        for name, wanted in Resume.truth.items():
            wanted = wanted[wanted["film"].isin(uris)].reset_index(drop=True)
            pd.testing.assert_frame_equal(found[name], wanted, check_dtype=False)
        run.ledger().check()
        selected = set(run.selection().clip_ids)
        assert selected == set(run.wide().query("brightness > @self.level and error.isna()")["clip_id"])
        shards = run.index()["shards"] if selected else []
        inside = [row for shard in shards for row in clip_ids(run, shard["file"])]
        assert sorted(inside) == sorted(selected)
        progress = Progress()
        progress.console.quiet = True
        with killed_after(None):
            pipeline.execute(run, progress)
        assert not progress.did_something


def clip_ids(run: Run, file: str) -> list[str]:
    with store.open_read(store.join(run.shards_root(), file)) as handle:
        ids: list[str] = pq.read_table(handle, columns=["clip_id"]).column("clip_id").to_pylist()
    return ids


def rows(run: Run) -> dict[str, pd.DataFrame]:
    """The tables of a run as they should be whatever befell it, each row with the name of its film."""
    wide = run.wide()
    film = dict(zip(wide["clip_id"], wide["uri"].map(lambda uri: Path(uri).name), strict=True))
    clips = wide[["clip_id", "start_s", "end_s", "n_frames"]].assign(film=wide["clip_id"].map(film))
    found = {"clips": clips}
    for name in ("brightness", "fussy"):
        table = run.tables()[name].read_unordered().to_pandas()
        assert not table["clip_id"].duplicated().any(), f"duplicate clip in {name}"
        found[name] = table.assign(film=table["clip_id"].map(film))
    return {name: frame.sort_values("clip_id", ignore_index=True) for name, frame in found.items()}
