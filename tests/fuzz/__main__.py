"""`python -m tests.fuzz TARGET --seconds 60 [--seed 0] [--guided]`: see tests/fuzz/targets.py. Findings are written into a folder.

`--guided` lets atheris choose the inputs by what they reach (Linux on x86_64: `pip install atheris`); it ends at the first finding.
"""

import argparse
import hashlib
import logging
import random
import resource
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

HANG_S = 5.0
"""An input that takes longer counts as a finding. Ours; the slowest seen took 0.11 s."""
OWN = ["curate", "train_hooks"]
"""Packages whose branches atheris counts; it sees only Python."""


def at_random(name: str, seconds: float, seed: int, folder: Path) -> int:
    """Changes good inputs until the time is over; returns the number of different findings."""
    from tests.fuzz.targets import TARGETS, changed, survives

    target = TARGETS[name]
    rng = random.Random(seed)
    begins = list(target.begins())
    found: set[str] = set()
    n, slowest, end = 0, 0.0, time.monotonic() + seconds
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    while time.monotonic() < end:
        data = changed(rng.choice(begins), rng)
        began = time.monotonic()
        error = survives(target, data)
        slowest = max(slowest, time.monotonic() - began)
        n += 1
        if error is not None:
            last = traceback.extract_tb(error.__traceback__)[-1]
            key = f"{type(error).__name__} at {last.filename.rsplit('/', 1)[-1]}:{last.lineno}"
            if key not in found:
                found.add(key)
                folder.mkdir(parents=True, exist_ok=True)
                path = folder / f"{name}-{hashlib.sha256(data).hexdigest()[:12]}"
                path.write_bytes(data)
                print(f"{name}: {key}: {str(error)[:150]} ({path})", flush=True)
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(
        f"{name}: {n} inputs, {len(found)} findings, slowest {slowest:.2f} s, {more:.0f} MB more at the peak",
        flush=True,
    )
    return len(found) + (slowest > HANG_S)


def guided(name: str, seconds: float, folder: Path) -> None:
    """By atheris, which ends the process."""
    atheris: Any = __import__("atheris")
    with atheris.instrument_imports(include=OWN):
        from tests.fuzz.targets import TARGETS, survives
    target = TARGETS[name]
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for i, data in enumerate(target.begins()):
        (corpus / f"good-{i}").write_bytes(data)

    def once(data: bytes) -> None:
        if (error := survives(target, data)) is not None:
            raise error

    atheris.Setup([sys.argv[0], f"-max_total_time={int(seconds)}", f"-artifact_prefix={folder}/", str(corpus)], once)
    atheris.Fuzz()


def main() -> None:
    """Runs one target, or all."""
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("target", help="one of tests/fuzz/targets.py, or all")
    ask.add_argument("--seconds", type=float, default=60.0)
    ask.add_argument("--seed", type=int, default=0)
    ask.add_argument("--findings", type=Path, default=Path("findings"))
    ask.add_argument("--guided", action="store_true", help="with atheris, one target")
    given = ask.parse_args()
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    if given.guided:
        guided(given.target, given.seconds, given.findings / given.target)
        return
    from tests.fuzz.targets import TARGETS

    names = list(TARGETS) if given.target == "all" else [given.target]
    if unknown := set(names) - set(TARGETS):
        ask.error(f"there is no target {', '.join(unknown)}; there are {', '.join(TARGETS)}")
    n_found = sum(at_random(name, given.seconds, given.seed, given.findings) for name in names)
    sys.exit(n_found > 0)


if __name__ == "__main__":
    main()
