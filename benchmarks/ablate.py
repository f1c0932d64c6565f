"""Measures whether an ablation finds a known fault and nothing else, on synthetic datasets in which a third of the clips is bad.

    python -m benchmarks.ablate [--kinds noise,watermark,frozen] [--worlds 10] [--steps 40] [--seeds 3] [--processes 2] [--json FILE]

In each dataset (`--worlds`) the same small model is trained on 48 clips of moving squares, on the clips left after dropping the third that a
measure marks (`mark`: exactly the bad clips; `idle`: a random third), and on random subsets of that size; each with `--seeds` seeds. The loss is
measured on 16 clean held-out clips. Prints losses as ratios to that of all clips (below 1: better), how often dropping the marked third has a
lower loss than both keeping all and the random subset, and the answers of the ablation.

With `--votes` (no training) it recovers known rankings from simulated votes: how often the truth is inside the intervals.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def world(kind: str, number: int, steps: int, seeds: int) -> dict[str, Any]:
    """The ablation of one synthetic dataset; plain values."""
    from tests.curate.ablation.planted import ablate

    with tempfile.TemporaryDirectory() as folder:
        _, judged, answers = ablate(Path(folder), kind, number, steps, seeds)
    loss = {("random" if one.arm.name.startswith("random") else one.arm.axis or "all"): one.loss for one in judged}
    drops = {one.axis: one.level > 0 for one in answers}
    row = {"kind": kind, "world": number, **{key: value / loss["all"] for key, value in loss.items() if key != "all"}}
    return row | {
        "first": loss["mark"] < min(loss["all"], loss["random"]),
        "drops_mark": drops["mark"],
        "drops_idle": drops["idle"],
    }


def table(rows: list[dict[str, Any]], kinds: list[str]) -> None:
    """A line for each kind."""
    head = ["a third is", "worlds", "marked dropped / all", "random dropped / all", "idle dropped / all"]
    print("| " + " | ".join([*head, "best of the three", "answer: drop the marked", "answer: drop the idle"]) + " |")
    print("|---|---|---|---|---|---|---|---|")
    for kind in kinds:
        own = [row for row in rows if row["kind"] == kind]
        if own:
            middle = [f"{statistics.median(row[key] for row in own):.3f}" for key in ("mark", "random", "idle")]
            counts = [str(sum(row[key] for row in own)) for key in ("first", "drops_mark", "drops_idle")]
            print("| " + " | ".join([kind, str(len(own)), *middle, *counts]) + " |")


def votes(n: int = 100) -> None:
    """Prints how often the truth is inside the intervals of Elo and Bradley-Terry."""
    from curate.voting.elo import elo_of
    from curate.voting.games import Table
    from curate.voting.replays import Replays
    from tests.curate.voting.simulated import DESIGNS, LADDER, covered, simulate

    print("| votes | contestants | in Elo's interval, of 100 seeds | in Bradley-Terry's | ranking recovered |")
    print("|---|---|---|---|---|")
    for name in DESIGNS:
        elo, strength, ranked = covered(name, n)
        print(f"| {name} | {len(elo)} | {' '.join(map(str, elo))} | {' '.join(map(str, strength))} | {ranked} |")
    games = simulate(LADDER, 0, items=834)
    began = time.process_time()
    for _ in range(20):
        elo_of(games)
    plain_s, began = (time.process_time() - began) * 50, time.process_time()
    Replays.of(Table.of(games), 1000, 0)
    speedup = plain_s * 2 / (time.process_time() - began)
    print(
        f"{len(games)} games in 1,000 orders, as answered and resampled: {speedup:.0f} times the plain formula's speed"
    )


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", default="noise,watermark,frozen")
    parser.add_argument("--worlds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--votes", action="store_true")
    asked = parser.parse_args()
    if asked.votes:
        votes()
        return
    kinds = asked.kinds.split(",")
    rows = []
    with ProcessPoolExecutor(asked.processes, max_tasks_per_child=1) as pool:
        todo = [pool.submit(world, kind, n, asked.steps, asked.seeds) for kind in kinds for n in range(asked.worlds)]
        for future in todo:
            rows.append(future.result())
            print(rows[-1], file=sys.stderr, flush=True)
            if asked.json is not None:
                asked.json.write_text(json.dumps(rows, indent=1))
    table(rows, kinds)


if __name__ == "__main__":
    main()
