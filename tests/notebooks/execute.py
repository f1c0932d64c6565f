"""Executes the notebooks and writes their outputs back:  python -m tests.notebooks.execute [NUMBER ...]

Without RUSHES_RUN it first makes the run that the committed outputs show: the films of tests/notebooks/gallery.py through gallery.yaml, which
needs the project's raw footage beside the repository, and takes some minutes on two cores. With RUSHES_RUN any finished run will do.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.notebooks import books, gallery
from tests.project import ROOT, environment

RUN = Path("../runs/gallery")
"""As the notebooks name it, from their own folder."""
SCRATCH = {"05": RUN / "train" / "notebook", "06": Path("../runs/my_filter"), "07": RUN / "ablate"}
"""What the notebooks make, taken away first so that they make it."""


def main(numbers: list[str]) -> None:
    """Executes the notebooks whose names begin so, or all."""
    if "RUSHES_RUN" not in os.environ:
        gallery.prepare(ROOT.parent / "shared" / "footage" / "raw", ROOT / "footage" / "gallery")
        code = "from curate.cli import main; main()"
        pipeline = ROOT / "tests" / "notebooks" / "gallery.yaml"
        subprocess.run([sys.executable, "-c", code, "run", str(pipeline)], check=True, env=environment())
    run = os.environ.get("RUSHES_RUN", str(RUN))
    for path in books.paths():
        if numbers and not path.name.startswith(tuple(numbers)):
            continue
        if (made := SCRATCH.get(path.name[:2])) is not None and run == str(RUN):
            shutil.rmtree(books.FOLDER / made, ignore_errors=True)
        book = books.clean(books.execute(path, {"RUSHES_RUN": run}))
        books.write(book, path)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
