"""The finetuning stage: recipes, inflation, feeding, objectives, loop, export, sampling.

It reads shards by path and imports no other package of ours. Importing this package is light; `train_hooks.train` imports torch.
"""

import os

# OpenMP reads this once, when torch is imported. Its threads otherwise wait for each other by spinning, and on a machine that runs
# anything else a training step then takes 5 to 40 times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
