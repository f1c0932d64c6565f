"""`python -m tests.faults --scenarios 100 --seed 0 --out FILE`: many seeded scenarios and a table of the results.

Three lanes run beside each other, each with its own project: one machine, object storage, Ray. The share of each kind is in `SHARES`.
"""

import argparse
import json
import multiprocessing
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.faults import kinds as faults
from tests.faults.object_store import Bucket, reach
from tests.faults.scene import World, play

FOOTAGE = Path(__file__).resolve().parents[3] / "shared" / "footage"
SHARES = {
    "one machine": {
        "driver killed": 14, "driver killed twice": 3, "power loss": 14, "driver stopped for seconds": 3, "driver stopped for a minute": 0,
        "decoder crashes": 4, "decoder hangs": 2, "decoder eats memory": 3, "disk full": 7, "run directory read-only": 3,
        "slow disk and a kill": 3, "source deleted": 4, "source replaced": 4, "clock jumps and a kill": 3, "two runs at once": 4,
    },
    "object storage": {
        "storage answers 503": 3, "storage is down (503)": 1, "storage does not answer": 2, "put done, answer lost": 3,
        "driver killed (object storage)": 3, "two runs at once (object storage)": 2,
    },
    "Ray": {
        "worker killed": 4, "worker stopped for seconds": 1, "worker stopped for a minute": 0, "driver killed (Ray)": 3,
        "node lost, another comes": 4, "node joins late": 1, "raylet stopped for seconds": 1,
        "power loss (Ray)": 1, "Ray dies, the driver lives": 1,
    },
}  # fmt: skip
"""Scenarios of each kind in about a hundred."""
KINDS = {"one machine": faults.LOCAL, "object storage": faults.STORED, "Ray": faults.RAY}


def plan(scenarios: int, seed: int) -> dict[str, list[tuple[str, int]]]:
    """Maps a lane to its (kind, seed) pairs; `scenarios` pairs in total."""
    total = sum(sum(kinds.values()) for kinds in SHARES.values())
    order = [(lane, name, n) for lane, kinds in SHARES.items() for name, count in kinds.items() for n in range(count)]
    chosen = [order[i * total // scenarios % total] for i in range(scenarios)]
    found: dict[str, list[tuple[str, int]]] = {lane: [] for lane in SHARES}
    for i, (lane, name, _) in enumerate(chosen):
        found[lane].append((name, seed * 10_000 + i))
    for lane, some in found.items():
        random.Random(f"{lane} {seed}").shuffle(some)  # a run that is cut short has seen every kind
    return found


def run_lane(lane: str, scenarios: Sequence[tuple[str, int]], folder: Path, answers: Any, until: float) -> None:
    """Plays the scenarios of one lane, one after the other; begins none after `until` (time.monotonic())."""
    world = None
    try:
        world = World(folder, FOOTAGE, workers=2 if lane == "Ray" else 1)
        if lane == "object storage":
            world.bucket = Bucket(folder)
            reach(world.bucket)
        for name, seed in scenarios:
            if time.monotonic() > until:
                break
            if lane == "Ray":
                world.ready_nodes()
            answers.put(asdict(play(world, name, KINDS[lane][name], seed)))
    finally:
        answers.put(None)
        if world:
            world.close()


def table(verdicts: Sequence[dict[str, Any]]) -> str:
    """Markdown: one line per kind, and the sum."""
    head = (
        "| fault | scenarios | survived | lost | duplicated | other values | extra units after a kill, median (most) |"
    )
    lines = [head, "|---|---|---|---|---|---|---|"]

    def line(name: str, some: Sequence[dict[str, Any]]) -> str:
        extra = [v["extra_units"] for v in some if v["extra_units"] is not None]
        units = f"{statistics.median(extra):g} ({max(extra)})" if extra else "-"
        sums = [sum(len((v["difference"] or {}).get(key, [])) for v in some) for key in ("lost", "twice", "other")]
        return f"| {name} | {len(some)} | {sum(map(survived, some))} | {' | '.join(map(str, sums))} | {units} |"

    for kinds in SHARES.values():
        by_kind = {name: [v for v in verdicts if v["kind"] == name] for name in kinds}
        lines += [line(name, some) for name, some in by_kind.items() if some]
    lines.append(line("**all**", verdicts))
    return "\n".join(lines) + "\n"


def survived(verdict: dict[str, Any]) -> bool:
    difference = verdict["difference"] or {}
    return not verdict["wrong"] and not any(difference.values()) and verdict["difference"] is not None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenarios", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out", type=Path, help="file for the table; every scenario's full result goes beside it (.jsonl)"
    )
    parser.add_argument("--limit-s", type=float, default=1e9, help="no scenario is begun after this time")
    parser.add_argument("--only", help="kinds of faults, separated by semicolons; --scenarios of each")
    parser.add_argument("--lanes", default=",".join(SHARES), help="which lanes run")
    arguments = parser.parse_args()
    planned = plan(arguments.scenarios, arguments.seed)
    if arguments.only:
        planned = {
            lane: [(n, arguments.seed * 10_000 + i) for i in range(arguments.scenarios)]
            for lane, kinds in SHARES.items()
            for n in kinds
            if n in arguments.only.split(";")
        }
    began = time.monotonic()
    verdicts: list[dict[str, Any]] = []
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True) as name:
        answers = spawn.Queue()
        chosen = [(lane, some) for lane, some in planned.items() if lane in arguments.lanes.split(",")]
        # One machine's scenarios are the most: two lanes.
        chosen = [(lane, some[i::n]) for lane, some in chosen for n in [1 + (lane == "one machine")] for i in range(n)]
        until = began + arguments.limit_s
        processes = [
            spawn.Process(target=run_lane, args=(lane, some, Path(name) / f"lane-{i}", answers, until), daemon=True)
            for i, (lane, some) in enumerate(chosen)
            if some
        ]
        for process in processes:
            process.start()
        at_work = len(processes)
        while at_work:
            verdict = answers.get()
            if verdict is None:
                at_work -= 1
                continue
            verdicts.append(verdict)
            word = (
                "survived"
                if survived(verdict)
                else f"FAILED {verdict['wrong']} {verdict['difference']} {verdict['sessions']}"
            )
            print(
                f"{len(verdicts):4d} {verdict['seconds']:6.1f} s  {verdict['kind']} ({verdict['seed']}; {verdict['moment']}): {word}",
                flush=True,
            )
            if arguments.out:
                with arguments.out.with_suffix(".jsonl").open("a") as file:
                    file.write(json.dumps(verdict) + "\n")
        for process in processes:
            process.join()
    text = table(verdicts)
    print(text)
    print(f"{len(verdicts)} scenarios in {time.monotonic() - began:.0f} s")
    if arguments.out:
        arguments.out.write_text(text)
    sys.exit(0 if all(map(survived, verdicts)) else 1)
