"""How many workers a step gets, on nodes of every kind; no Ray is started."""

import pytest

from curate.cluster.pool import NoRoomError, Pool, Resources, plan, room
from curate.config.pipeline_file import load
from curate.errors import ConfigError

CPU4 = {"CPU": 4.0, "memory": 16.0 * 2**30}
GPU2 = {"CPU": 8.0, "GPU": 2.0, "memory": 64.0 * 2**30}


@pytest.mark.parametrize(
    ("resources", "fits"),
    [
        (Resources(), 8),
        (Resources(cpus=3), 2),
        (Resources(cpus=0.1), 80),
        (Resources(cpus=0), 8),
        (Resources(gpus=1), 2),
        (Resources(gpus=0.25), 8),
        (Resources(cpus=0.5, gpus=0.3), 6),  # three on each of two GPUs: no worker has two parts
        (Resources(cpus=0, gpus=0.1), 20),
        (Resources(gpus=2, cpus=4), 1),
        (Resources(memory_gb=40), 1),
        (Resources(gpus=1, memory_gb=20), 2),
        (Resources(cpus=9), 0),
    ],
)
def test_workers_on_one_node(resources: Resources, fits: int) -> None:
    assert room(GPU2, resources) == fits


def test_a_local_ray_has_a_pool_of_fixed_size() -> None:
    assert plan(Resources(), 100, [CPU4], is_own=True) == Pool(4, 4, 4, 4)
    assert plan(Resources(2), 100, [CPU4], is_own=True) == Pool(2, 2, 2, 2)
    assert plan(Resources(9), 100, [CPU4], is_own=True) == Pool(4, 4, 4, 4)
    assert plan(Resources((1, 3)), 100, [CPU4], is_own=True) == Pool(3, 3, 3, 3)
    assert plan(Resources(), 2, [CPU4], is_own=True) == Pool(2, 2, 2, 2)


def test_on_a_cluster_the_pool_grows_onto_later_nodes_and_releases_idle_workers() -> None:
    nodes = [{"CPU": 0.0}, CPU4, GPU2]
    assert plan(Resources(), 1000, nodes, is_own=False) == Pool(1, 12, 1000, 12)
    assert plan(Resources(20), 1000, nodes, is_own=False) == Pool(1, 12, 20, 12)
    assert plan(Resources(3), 1000, nodes, is_own=False) == Pool(1, 3, 3, 3)
    assert plan(Resources(cpus=0), 1000, nodes, is_own=False).most == 13  # it would fit without end
    assert plan(Resources(gpus=0.5), 3, nodes, is_own=False) == Pool(1, 3, 3, 3)


def test_a_range_is_used_as_given() -> None:
    assert plan(Resources((1, 64)), 1000, [CPU4], is_own=False) == Pool(1, 1, 64, 64)
    assert plan(Resources((8, 64)), 1000, [CPU4], is_own=False) == Pool(8, 8, 64, 64)
    assert plan(Resources((8, 64)), 5, [CPU4], is_own=False) == Pool(5, 5, 5, 5)


def test_one_worker_must_fit_on_one_node() -> None:
    with pytest.raises(NoRoomError, match=r"a stage asks for 6 CPU, and the largest node of this Ray cluster has 4$"):
        plan(Resources(cpus=6), 10, [CPU4, CPU4], is_own=False)
    with pytest.raises(NoRoomError, match=r"a stage asks for 1 GPU, and the largest node of this Ray cluster has 0$"):
        plan(Resources(gpus=1), 10, [CPU4], is_own=True)
    with pytest.raises(NoRoomError, match=r"a stage asks for 32 GB of memory, and the largest .* has 16$"):
        plan(Resources(memory_gb=32), 10, [CPU4], is_own=True)
    with pytest.raises(NoRoomError, match=r"a stage asks for 2 GPU, 6 CPU at once, and no node .* has all of that$"):
        plan(Resources(cpus=6, gpus=2), 10, [{"CPU": 4.0, "GPU": 2.0}, {"CPU": 8.0}], is_own=True)


@pytest.mark.parametrize("given", ["[8, 1]", "[1, 2, 3]", "[2]", "0", "many", "true", "[1, 0]", "1.5"])
def test_an_invalid_number_of_workers_is_a_one_line_error(given: str, tmp_path) -> None:
    message = r"workers: must be a number of workers such as 4, or a minimum and a maximum such as \[1, 8\] \(got"
    for text in (f"scan: {{workers: {given}}}", f"measure:\n  - {{use: filters.Motion, workers: {given}}}"):
        (tmp_path / "pipeline.yaml").write_text(f"run: r\nsources: x\n{text}\n")
        with pytest.raises(ConfigError, match=message):
            load(tmp_path / "pipeline.yaml")


def test_a_range_and_a_part_of_a_gpu_are_read(tmp_path) -> None:
    stage = "{use: filters.Motion, workers: [1, 8], gpus: 0.25}"
    (tmp_path / "pipeline.yaml").write_text(
        f"run: r\nsources: x\nscan: {{workers: [2, 4]}}\nshards: {{workers: 3}}\nmeasure:\n  - {stage}\n"
    )
    pipeline = load(tmp_path / "pipeline.yaml")
    assert pipeline.config.scan.workers == (2, 4)
    assert pipeline.config.shards.workers == 3
    assert (pipeline.measure[0].workers, pipeline.measure[0].gpus) == ((1, 8), 0.25)
    (tmp_path / "pipeline.yaml").write_text("run: r\nsources: x\nmeasure:\n  - {use: filters.Motion, gpus: 1.5}\n")
    with pytest.raises(
        ConfigError, match=r"gpus: must be a fraction of one GPU such as 0.25, or a whole number of GPUs"
    ):
        load(tmp_path / "pipeline.yaml")
