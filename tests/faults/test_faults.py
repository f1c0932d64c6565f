"""Fault injection on real footage: one short kind on one machine and one on object storage; `make test-all` runs every kind."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import kinds as faults
from tests.faults.object_store import Bucket
from tests.faults.scene import Verdict, World, extra_units, play

SAMPLE = {
    "one machine": ["disk full"],
    "object storage": ["put done, answer lost"],
    "Ray": [],
}
KINDS = {"one machine": faults.LOCAL, "object storage": faults.STORED, "Ray": faults.RAY}
EVERY = [
    pytest.param(lane, name, id=name, marks=() if name in SAMPLE[lane] else pytest.mark.slow)
    for lane, kinds in KINDS.items()
    for name in kinds
]

pytestmark = pytest.mark.ray_cluster


@pytest.fixture(scope="module")
def world(shared_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("faults"), shared_dir / "footage", workers=2)
    yield made
    made.close()


@pytest.fixture(scope="module")
def bucket(world: World) -> Iterator[Bucket]:
    pytest.importorskip("moto")
    pytest.importorskip("s3fs")
    made = Bucket(world.folder)
    yield made
    made.close()


def can_mount(folder: Path) -> bool:
    """Whether this user may mount a small file system."""
    (folder / "mount").mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder / "mount")]
    try:
        done = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False
    if done:
        subprocess.run(["umount", str(folder / "mount")], check=True)
    return done


@pytest.mark.parametrize(("lane", "name"), EVERY)
def test_a_run_with_a_fault_resumes_and_equals_an_undisturbed_run(
    lane: str, name: str, world: World, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name in ("disk full", "run directory read-only") and not can_mount(world.folder):
        pytest.skip("needs the right to mount a small file system")
    world.staff(2 if lane == "Ray" else 1)
    world.bucket = request.getfixturevalue("bucket") if lane == "object storage" else None
    for key, value in (world.bucket.env if world.bucket else {}).items():
        monkeypatch.setenv(key, value)
    nodes = world.nodes
    if lane == "Ray":
        world.ready_nodes()
        nodes = world.nodes
    else:
        world.nodes = None
    try:
        verdict: Verdict = play(world, name, KINDS[lane][name], seed=0)
    finally:
        world.nodes = world.nodes or nodes
    assert verdict.survived, verdict
    assert verdict.difference is not None
    assert (verdict.extra_units or 0) <= world.workers, "more than one unit per worker was repeated"


def test_repeated_units_are_counted_by_their_items() -> None:
    def begin(*items: str) -> dict[str, object]:
        return {"what": "begin", "items": items}

    assert extra_units([begin("a", "b"), {"what": "put"}, begin("c")]) == 0
    assert extra_units([begin("a", "b"), begin("b", "d"), begin("d"), begin("e")]) == 2


def test_the_comparison_reports_lost_duplicate_and_changed_rows(world: World) -> None:
    """Otherwise every fault would seem to be survived."""
    from tests.faults import project

    root = world.folder / "undisturbed"
    found = project.look(str(root), world.project)
    assert not project.compare(world.wanted, found)
    gone = next(iter(found.rows["motion"]))
    del found.rows["motion"][gone]
    found.rows["says"]["another"] = {}
    found.rows["clips"][next(iter(found.rows["clips"]))]["fps"] = 1.0
    found.twice.append("clips: x")
    difference = project.compare(world.wanted, found)
    assert difference.lost == [f"motion: {gone}"]
    assert difference.twice == ["clips: x", "says: another (was not there)"]
    assert len(difference.other) == 1
    part = next((root / "measures" / "motion").glob("part-*.parquet"))
    whole = part.read_bytes()
    part.write_bytes(whole[:-10])
    assert project.broken_files(root)
    part.write_bytes(whole)
    assert os.environ.get("RUSHES_FAULTS") is None, "only the scenarios may see faults"
