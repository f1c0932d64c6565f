"""One of several processes that train together over gloo: `python ranks.py FILE RANK WORLD SHARDS` prints what it did as JSON."""

import json
import sys
import warnings
from pathlib import Path

import torch

warnings.simplefilter("ignore")
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))


def main() -> None:
    """Joins, trains a few steps of ModelScope's recipe, and tells how many frames each of its steps had."""
    store, rank, world, shards = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    from train_hooks import loop
    from train_hooks.conditioning import MotionBuckets
    from train_hooks.net import Net, make
    from train_hooks.objectives import schedule
    from train_hooks.recipe_files import load_recipe
    from train_hooks.tiny_base import build_base
    from train_hooks.train import feed_of

    small = {
        "frames": "4",
        "width_px": "16",
        "height_px": "16",
        "batch": "1",
        "heldout_share": "0",
        "unet_channels": "16,16",
    }
    recipe = load_recipe(
        "tiny_modelscope", {**small, "steps": str(8 if world < 8 else 2), "head_dim": "16", "text_width": "16"}
    )
    base = build_base(recipe)
    net = Net(make(base.unet, recipe)[0])
    frames, plain = [], loop.make_batch

    def watched(*args, **kwargs):
        batch = plain(*args, **kwargs)
        frames.append(batch.latents_BCFhw.shape[2])
        return batch

    loop.make_batch = watched
    feeds = [feed_of(recipe, shards)]
    loop.run_loop(recipe, base, net, schedule(recipe), feeds, MotionBuckets(()), lambda line: None)
    total = float(sum(p.detach().double().abs().sum() for p in net.unet.parameters()))
    print(json.dumps({"frames": frames[1:], "weights": total}))  # the first is the loss grid's


if __name__ == "__main__":
    main()
