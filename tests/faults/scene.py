"""One scenario: a run starts, a fault is injected at a seeded moment, plain `rushes run` resumes it, and the outcome is compared."""

import json
import random
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults import project
from tests.faults.cluster import Nodes
from tests.faults.drivers import Driver, Drivers
from tests.faults.object_store import BUCKET, Bucket
from tests.faults.project import Difference, Outcome

SESSION_S = 420.0
"""A longer session counts as hung. (Ours: a hundred times an undisturbed one on a quiet machine.)"""
CONTINUATIONS = 3
PACE = {"unit_s": 0.15, "seconds_per_unit": 4, "files_per_probe": 2}


class World:
    """What scenarios share: a project, the process drivers come from, the undisturbed run, and a cluster or a bucket where they need one."""

    def __init__(self, folder: Path, footage: Path, workers: int = 1) -> None:
        self.folder, self.workers = folder, workers
        folder.mkdir(parents=True, exist_ok=True)
        self.project = project.make(folder / "project", footage)
        self.faults = folder / "faults.json"
        self.log = folder / "log"
        self.faults.write_text("{}")
        self.drivers = Drivers(self.faults)
        self.nodes: Nodes | None = None
        self.bucket: Bucket | None = None
        self.began = 0
        self.sessions = 0
        project.staff(self.project, 1)  # the reference run is without Ray for every kind of fault
        self.wanted, self.moments, self.wall_s = self._undisturbed()
        self.staff(workers)

    def _undisturbed(self) -> tuple[Outcome, list[str], float]:
        root = str(self.folder / "undisturbed")
        self.ask(root)
        driver = self.begin(root)
        code = driver.wait(SESSION_S)
        assert code == 0, (code, driver.err)
        events = [event["what"] for event in self.events()]
        return project.look(root, self.project), events, time.monotonic() - driver.began

    def staff(self, workers: int) -> None:
        """Sets the number of workers of every pool."""
        project.staff(self.project, workers)

    def ask(self, root: str, **more: Any) -> None:
        """Sets the faults injected from now on into the run in `root`."""
        aside = self.faults.with_name("faults.aside")
        aside.write_text(json.dumps({"run": root, "log": str(self.log), **PACE, **more}))
        aside.rename(self.faults)

    def begin(self, root: str, *arguments: str) -> Driver:
        """Begins `rushes run` on it."""
        self.sessions += 1
        env = (self.nodes.env if self.nodes else {}) | (self.bucket.env if self.bucket else {})
        arguments_ = ["run", "--run", root, *arguments]
        return self.drivers.begin(arguments_, self.project, self.folder / "sessions" / str(self.sessions), env)

    def begin_nodes(self) -> None:
        """A new cluster."""
        self.nodes = Nodes(self.faults)

    def ready_nodes(self) -> None:
        """A cluster of two workers that is well, with nobody at work on it."""
        if self.nodes and not self.nodes.is_well():
            self.nodes.close()
            self.nodes = None
        for _ in range(3):
            if self.nodes is None:
                with suppress(Exception):  # Ray gives up after half a minute on a machine that has much else to do
                    self.begin_nodes()
        assert self.nodes, "no Ray came up"
        self.nodes.settle()

    def events(self) -> list[dict[str, Any]]:
        try:
            lines = self.log.read_text().split("\n")[:-1]
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        self.drivers.close()
        if self.nodes:
            self.nodes.close()
        if self.bucket:
            self.bucket.close()


@dataclass
class Verdict:
    """Result of a scenario."""

    kind: str
    seed: int
    moment: str = ""
    sessions: list[str] = field(default_factory=list)
    """Exit code and error message of each session."""
    wrong: list[str] = field(default_factory=list)
    """Failures: a traceback, a hang, a broken file, a run that did not finish."""
    difference: Difference | None = None
    extra_units: int | None = None
    """Units repeated after a kill; None where nothing was killed."""
    seconds: float = 0.0

    @property
    def survived(self) -> bool:
        return not self.wrong and not self.difference


class Scene:
    """A scenario in progress, as a kind of fault sees it."""

    def __init__(self, world: World, kind: str, seed: int) -> None:
        self.world, self.chance = world, random.Random(f"{kind} {seed}")
        self.verdict = Verdict(kind, seed)
        world.began += 1
        name = f"{world.began}-{kind.replace(' ', '-')}"
        self.root = f"s3://{BUCKET}/{name}" if world.bucket else str(world.folder / "runs" / name)
        self.killed = False
        self.regrouped = False
        """Retried clips are stored in shards of their own: the same rows in other files."""
        self.continued_with: tuple[str, ...] = ()
        self.cleanups: list[Callable[[], None]] = []
        self.log_from = 0
        world.log.unlink(missing_ok=True)

    @property
    def path(self) -> Path:
        return Path(self.root)

    def begin(self, *arguments: str, **faults: Any) -> Driver:
        """Begins the run, with faults injected from inside."""
        self.world.ask(self.root, **faults)
        return self.world.begin(self.root, *arguments)

    def wait_for_moment(
        self, driver: Driver, share: tuple[float, float] = (0.0, 1.0), what: Sequence[str] = ()
    ) -> None:
        """Waits for a seeded moment: a number of parts written, units begun or receipts received, or (seldom) a time.

        Args:
            driver: The session that is watched.
            share: The fraction of the run in which the moment is chosen.
            what: Kinds of events to choose from.
        """
        kind = self.chance.choice(what or ("put", "put", "receipt", "receipt", "begin", "begin", "time"))
        at = self.chance.uniform(*share)
        if kind == "time":
            wait_s = max(0.3, at * self.world.wall_s * 0.8)
            self.verdict.moment = f"after {wait_s:.1f} s"
            deadline = time.monotonic() + wait_s
            while time.monotonic() < deadline and driver.code is None:
                time.sleep(0.02)
            return
        total = self.world.moments.count(kind)
        n = max(1, round(at * (total - 1)))
        self.verdict.moment = f"after {kind} {n} of {total}"
        deadline = time.monotonic() + SESSION_S
        while driver.code is None and time.monotonic() < deadline:
            if sum(event["what"] == kind for event in self.world.events()) >= n:
                return
            time.sleep(0.02)

    def ended(self, driver: Driver, limit_s: float = SESSION_S, was_killed: bool = False) -> int | None:
        """Waits for a session and checks how it ended."""
        code = driver.wait(limit_s)
        err = driver.err.strip()
        lines = [line for line in err.splitlines() if not line.startswith("rushes: warning:")]
        self.verdict.sessions.append(f"{code}: {err[-300:]}" if err else f"{code}")
        if code is None:
            self.verdict.wrong.append(f"hung for {limit_s:.0f} s: {driver.out.strip()[-200:]}")
        elif "Traceback" in err:
            self.verdict.wrong.append(f"a traceback: {err[-400:]}")
        elif code == 0 and lines:
            self.verdict.wrong.append(f"exit code 0 but printed: {err[-400:]}")
        elif code not in (0, None) and not was_killed and (len(lines) != 1 or not lines[0].startswith("rushes: ")):
            self.verdict.wrong.append(f"ended with {code} and not a one-line error: {err[-400:]}")
        return code

    def resume(self) -> None:
        """Continues with plain `rushes run` until it ends well, and compares."""
        self.world.ask(self.root)
        for _ in range(CONTINUATIONS):
            if self.ended(self.world.begin(self.root, *self.continued_with)) == 0:
                break
        else:
            self.verdict.wrong.append(f"did not end well in {CONTINUATIONS} continuations")
            return
        found = project.look(self.root, self.world.project)
        self.verdict.difference = project.compare(self.world.wanted, found, same_files=not self.regrouped)
        if self.killed:
            self.verdict.extra_units = extra_units(self.world.events())

    def check_files(self) -> None:
        """Every file of the run directory is whole."""
        if not self.world.bucket and self.path.is_dir():
            self.verdict.wrong += [f"not whole: {problem}" for problem in project.broken_files(self.path)]


def extra_units(events: Sequence[dict[str, Any]]) -> int:
    """How many units were begun that hold something that was begun before."""
    seen: set[str] = set()
    extra = 0
    for event in events:
        if event["what"] == "begin":
            extra += not seen.isdisjoint(event["items"])
            seen.update(event["items"])
    return extra


def play(world: World, kind: str, inject: Callable[[Scene], None], seed: int) -> Verdict:
    """Plays one scenario."""
    scene = Scene(world, kind, seed)
    began = time.monotonic()
    try:
        inject(scene)
        scene.check_files()
        scene.resume()
        scene.check_files()
        if not world.bucket and (left := list(scene.path.rglob(".*.tmp"))):
            scene.verdict.wrong.append(f"left aside after a whole run: {left[0].name}")
    except Exception as error:
        scene.verdict.wrong.append(f"{type(error).__name__}: {error}")
    finally:
        for undo in reversed(scene.cleanups):
            undo()
    scene.verdict.seconds = time.monotonic() - began
    if not world.bucket and scene.verdict.survived:
        shutil.rmtree(scene.path, ignore_errors=True)
    return scene.verdict
