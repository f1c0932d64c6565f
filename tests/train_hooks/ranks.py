"""One of several processes that train together over gloo: `python ranks.py PORT RANK WORLD SHARDS OUT SETTINGS` prints what it did as JSON.

SETTINGS may hold `stop`, the step behind which to stop. They find each other as torchrun's do. With `-` as the PORT there is no process group.
"""

import json
import os
import sys
import warnings
from pathlib import Path

import torch

warnings.simplefilter("ignore")
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))


def main() -> None:
    """Joins, trains, and tells of it."""
    port, rank, world, shards, out, settings = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:7]
    torch.set_num_threads(1)
    if port != "-":
        os.environ |= {
            "RANK": str(rank),
            "WORLD_SIZE": str(world),
            "LOCAL_RANK": str(rank),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
        }
    from tests.train_hooks.trainings import run, stop_after
    from train_hooks.recipe_files import load_recipe

    values = json.loads(settings)
    stop = int(values.pop("stop", 0))
    quit_after = stop_after(stop) if stop and rank == 0 else None

    def say(line: str) -> None:
        print(line, flush=True)
        if quit_after is not None:
            quit_after(line)

    done = run(load_recipe("tiny_modelscope", values), Path(shards), Path(out), say)
    result = {"losses": done.losses, "weights": done.weights, "clips": done.clips, "step": done.training.state.step}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
