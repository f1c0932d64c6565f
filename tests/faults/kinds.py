"""Kinds of faults. Each starts a run in a scene and injects a fault; resuming and comparing are the same for all.

`LOCAL`: one machine, no Ray. `STORED`: a run directory on object storage. `RAY`: several nodes.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from tests.faults.drivers import Driver, family, kill_family, signal_family
from tests.faults.scene import Scene

Fault = Callable[[Scene], None]
LOCAL: dict[str, Fault] = {}
STORED: dict[str, Fault] = {}
RAY: dict[str, Fault] = {}


def kind(name: str, where: dict[str, Fault]) -> Callable[[Fault], Fault]:
    """Registers a kind of fault."""

    def register(fault: Fault) -> Fault:
        where[name] = fault
        return fault

    return register


def kill(scene: Scene, driver: Driver) -> None:
    with suppress(ProcessLookupError):
        os.kill(driver.pid, signal.SIGKILL)
    scene.killed = True
    scene.ended(driver, was_killed=True)


# --- one machine ----------------------------------------------------------------------------------------------------


@kind("driver killed", LOCAL)
def driver_killed(scene: Scene) -> None:
    driver = scene.begin()
    scene.wait_for_moment(driver)
    kill(scene, driver)


@kind("driver killed twice", LOCAL)
def driver_killed_twice(scene: Scene) -> None:
    for share in ((0.0, 0.4), (0.5, 1.0)):
        driver = scene.begin()
        scene.wait_for_moment(driver, share)
        kill(scene, driver)


@kind("power loss", LOCAL)
def power_loss(scene: Scene) -> None:
    driver = scene.begin()
    scene.wait_for_moment(driver, what=("put", "put", "begin"))
    members = family(driver.pid)
    kill_family(driver.pid)
    scene.killed = True
    scene.ended(driver, was_killed=True)
    psutil.wait_procs(members, 10)


def _driver_stopped(least_s: float, most_s: float) -> Fault:
    def inject(scene: Scene) -> None:
        driver = scene.begin()
        scene.wait_for_moment(driver)
        signal_family(driver.pid, signal.SIGSTOP)
        time.sleep(scene.chance.uniform(least_s, most_s))
        signal_family(driver.pid, signal.SIGCONT)
        scene.ended(driver)

    return inject


LOCAL["driver stopped for seconds"] = _driver_stopped(1.0, 4.0)
LOCAL["driver stopped for a minute"] = _driver_stopped(60.0, 70.0)


def _decoder(how: str) -> Fault:
    def inject(scene: Scene) -> None:
        folder = scene.world.folder / f"bad-{scene.world.began}"
        folder.mkdir()
        source = scene.chance.choice(["walk.mkv", "hiker.mp4", "carphone_pristine.mp4"])
        times = scene.chance.choice([1, 2]) if how != "hang" else 1
        scene.verdict.moment = f"{source}, {times} time(s)"
        driver = scene.begin(decoder={"how": how, "source": source, "times": times, "folder": str(folder)})
        scene.ended(driver)
        if times == 2:  # both attempts fail: the source becomes a failed row, which is retried
            scene.continued_with = ("--retry-errors",)
            scene.regrouped = True

    return inject


for how, name in (("segfault", "decoder crashes"), ("hang", "decoder hangs"), ("memory", "decoder eats memory")):
    LOCAL[name] = _decoder(how)


@kind("disk full", LOCAL)
def disk_full(scene: Scene) -> None:
    """A file system of a few hundred KiB, which is enlarged before the run resumes."""
    size_k = scene.chance.randrange(40, 900, 20)
    scene.verdict.moment = f"at {size_k} KiB"
    scene.path.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_k}k", "tmpfs", scene.root], check=True)
    scene.cleanups.append(lambda: subprocess.run(["umount", "-l", scene.root], check=True))
    driver = scene.begin()
    scene.ended(driver)
    scene.check_files()
    subprocess.run(["mount", "-o", "remount,size=64m", scene.root], check=True)


@kind("run directory read-only", LOCAL)
def read_only(scene: Scene) -> None:
    """Nothing in it can be written, created or renamed from some moment on.

    The attribute `immutable`: modes do not bind root, and a file system with an open lock cannot be remounted read-only.
    """
    driver = scene.begin()
    scene.wait_for_moment(driver, (0.0, 0.9), ("put", "begin"))
    scene.cleanups.append(lambda: subprocess.run(["chattr", "-R", "-i", scene.root], check=False, capture_output=True))
    # chattr complains about temporary files that were renamed meanwhile; only the directories matter.
    subprocess.run(["chattr", "-R", "-f", "+i", scene.root], check=False, capture_output=True)
    attributes = subprocess.run(
        ["lsattr", "-d", scene.root], capture_output=True, text=True, check=True
    ).stdout.split()[0]
    assert "i" in attributes, "could not be made read-only"
    if scene.ended(driver) == 0:
        scene.verdict.wrong.append("ended well in a directory that cannot be written")
    scene.ended(scene.world.begin(scene.root))
    subprocess.run(["chattr", "-R", "-i", scene.root], check=True, capture_output=True)


@kind("slow disk and a kill", LOCAL)
def slow_disk(scene: Scene) -> None:
    driver = scene.begin(put_s=scene.chance.uniform(0.2, 0.5))
    scene.wait_for_moment(driver, (0.0, 0.6), ("put", "begin"))
    kill(scene, driver)


@kind("source deleted", LOCAL)
def source_deleted(scene: Scene) -> None:
    """A source file is missing for the rest of the session and restored for the next."""
    _source_changes(scene, lambda path: path.unlink())


@kind("source replaced", LOCAL)
def source_replaced(scene: Scene) -> None:
    """A source file is replaced by another for the rest of the session."""
    other = scene.world.project / "footage" / "hiker.mp4"
    _source_changes(scene, lambda path: shutil.copyfile(other, path))


def _source_changes(scene: Scene, change: Callable[[Path], object]) -> None:
    name = scene.chance.choice(["walk.mkv", "carphone_pristine.mp4"])
    path = scene.world.project / "footage" / name
    aside = scene.world.folder / name
    shutil.copyfile(path, aside)
    driver = scene.begin()
    # Only after all headers were read: a file replaced earlier is simply another source.
    n = len(scene.world.wanted.rows["sources"])
    deadline = time.monotonic() + 60
    while driver.code is None and time.monotonic() < deadline:
        if sum(len(e["items"]) for e in scene.world.events() if (e["what"], e.get("kind")) == ("end", "probe")) >= n:
            break
        time.sleep(0.01)
    scene.wait_for_moment(driver, (0.2, 0.9), ("put", "begin", "receipt"))
    scene.verdict.moment += f", {name}"
    change(path)
    try:
        scene.ended(driver)
    finally:
        shutil.copyfile(aside, path)
    scene.continued_with = ("--retry-errors",)
    scene.regrouped = True


@kind("clock jumps and a kill", LOCAL)
def clock_jumps(scene: Scene) -> None:
    """time.time() of the driver jumps an hour forward and back."""
    driver = scene.begin(clock=3600.0)
    scene.wait_for_moment(driver)
    kill(scene, driver)
    driver = scene.begin(clock=3600.0)
    scene.ended(driver)


@kind("two runs at once", LOCAL)
def two_at_once(scene: Scene) -> None:
    first = scene.begin()
    scene.wait_for_moment(first, (0.1, 0.8))
    second = scene.world.begin(scene.root)
    code = scene.ended(second)
    if first.code is None and code != 2:
        scene.verdict.wrong.append(f"the second run was not refused: {code}")
    scene.ended(first)


# --- object storage -------------------------------------------------------------------------------------------------


def _outage(how: str, requests: tuple[int, int], only: tuple[str, ...]) -> Fault:
    def inject(scene: Scene) -> None:
        bucket = scene.world.bucket
        assert bucket
        driver = scene.begin()
        scene.wait_for_moment(driver, (0.0, 0.9), ("put", "begin", "receipt"))
        n = scene.chance.randint(*requests)
        scene.verdict.moment += f", {n} requests"
        bucket.outage(how, n, only)
        scene.ended(driver)
        bucket.outage("", 0)

    return inject


ALL = ("PUT", "GET", "HEAD", "POST", "DELETE")
STORED["storage answers 503"] = _outage("503", (1, 6), ALL)
STORED["storage is down (503)"] = _outage("503", (10_000, 10_001), ALL)
STORED["storage does not answer"] = _outage("late", (1, 2), ALL)
STORED["put done, answer lost"] = _outage("lost", (1, 4), ("PUT",))


@kind("driver killed (object storage)", STORED)
def driver_killed_there(scene: Scene) -> None:
    driver_killed(scene)


@kind("two runs at once (object storage)", STORED)
def two_at_once_there(scene: Scene) -> None:
    two_at_once(scene)


# --- Ray ------------------------------------------------------------------------------------------------------------


def _wait_for_actor(scene: Scene, driver: Driver) -> Iterator[psutil.Process]:
    """The live workers of the pools; waits up to 30 s for one."""
    assert scene.world.nodes
    deadline = time.monotonic() + 30
    while driver.code is None and time.monotonic() < deadline:
        if actors := scene.world.nodes.actors():
            yield from actors
            return
        time.sleep(0.05)


def _busy_actor(scene: Scene, driver: Driver) -> psutil.Process | None:
    """A worker with an unfinished unit, otherwise any worker."""
    actors = {process.pid: process for process in _wait_for_actor(scene, driver)}
    open_units: dict[int, int] = {}
    for event in scene.world.events():
        if event["what"] in ("begin", "end"):
            open_units[event["pid"]] = open_units.get(event["pid"], 0) + (1 if event["what"] == "begin" else -1)
    busy = sorted(pid for pid, n in open_units.items() if n > 0 and pid in actors)
    if not actors:
        return None
    return actors[scene.chance.choice(busy or sorted(actors))]


@kind("worker killed", RAY)
def worker_killed(scene: Scene) -> None:
    driver = scene.begin()
    scene.wait_for_moment(driver, (0.0, 0.9), ("begin",))
    scene.killed = True
    if victim := _busy_actor(scene, driver):
        scene.verdict.moment += " (a worker)"
        with suppress(psutil.NoSuchProcess):
            victim.kill()
    scene.ended(driver)


def _worker_stopped(least_s: float, most_s: float) -> Fault:
    def inject(scene: Scene) -> None:
        driver = scene.begin()
        scene.wait_for_moment(driver, (0.0, 0.9), ("begin",))
        if victim := _busy_actor(scene, driver):
            with suppress(psutil.NoSuchProcess):
                victim.suspend()
                time.sleep(scene.chance.uniform(least_s, most_s))
                victim.resume()
        scene.ended(driver)

    return inject


RAY["worker stopped for seconds"] = _worker_stopped(2.0, 6.0)
RAY["worker stopped for a minute"] = _worker_stopped(60.0, 70.0)


@kind("driver killed (Ray)", RAY)
def driver_killed_on_ray(scene: Scene) -> None:
    driver = scene.begin()
    scene.wait_for_moment(driver, (0.0, 0.95), ("put", "begin", "receipt"))
    kill(scene, driver)


@kind("node lost, another comes", RAY)
def node_lost(scene: Scene) -> None:
    nodes = scene.world.nodes
    assert nodes
    driver = scene.begin()
    scene.wait_for_moment(driver, (0.0, 0.9), ("begin",))
    scene.killed = True
    nodes.lose(scene.chance.choice(nodes.workers))
    time.sleep(scene.chance.uniform(0.0, 2.0))
    nodes.joins()
    scene.ended(driver)


@kind("node joins late", RAY)
def node_joins(scene: Scene) -> None:
    nodes = scene.world.nodes
    assert nodes
    nodes.lose(nodes.workers[-1])
    driver = scene.begin()
    scene.wait_for_moment(driver, (0.0, 0.6), ("begin",))
    nodes.joins()
    scene.ended(driver)


@kind("raylet stopped for seconds", RAY)
def raylet_stopped(scene: Scene) -> None:
    nodes = scene.world.nodes
    assert nodes
    driver = scene.begin()
    scene.wait_for_moment(driver, (0.0, 0.9), ("begin",))
    victim = psutil.Process(nodes.raylet(scene.chance.choice(nodes.workers)))
    victim.suspend()
    time.sleep(scene.chance.uniform(3.0, 8.0))
    victim.resume()
    scene.ended(driver)


@kind("power loss (Ray)", RAY)
def power_loss_on_ray(scene: Scene) -> None:
    """Kills the driver and every process of the cluster at once; the next session gets a new cluster."""
    nodes = scene.world.nodes
    assert nodes
    driver = scene.begin()
    scene.wait_for_moment(driver, (0.1, 0.9), ("put", "begin"))
    scene.killed = True
    with suppress(ProcessLookupError):
        os.kill(driver.pid, signal.SIGKILL)
    nodes.close()
    scene.ended(driver, was_killed=True)
    scene.check_files()
    scene.world.begin_nodes()


@kind("Ray dies, the driver lives", RAY)
def ray_dies(scene: Scene) -> None:
    """Kills all processes of the cluster: the driver must end with a one-line error."""
    nodes = scene.world.nodes
    assert nodes
    driver = scene.begin()
    scene.wait_for_moment(driver, (0.1, 0.9), ("begin",))
    scene.killed = True
    nodes.close()
    scene.ended(driver)
    scene.world.begin_nodes()
