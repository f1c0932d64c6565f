"""Accuracy of every filter against known truth, and its cost: runs the three parts in sequence.

    python benchmarks/filters.py [motion] [overlay] [models]

Each part prints value, target, met or NOT MET. Costs are ratios: CPU per clip over the JPEG decode of the clip's thumbnails, and for filters
with a model the stage's throughput over the bare model's in a tight loop with the same batch.
"""

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("motion", "overlay", "models")


def main() -> None:
    """Runs the parts; ends with the first bad exit code."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("parts", nargs="*", choices=[*PARTS, []], default=[])
    for part in ask.parse_args().parts or PARTS:
        print(f"\n== {part}", flush=True)
        subprocess.run([sys.executable, "-m", f"benchmarks.filters_{part}"], cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
