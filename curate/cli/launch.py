"""The installed command `pipeline.yaml`, so that `ray job submit pipeline.yaml` works."""

import sys
from pathlib import Path

from curate.cli import main
from curate.cluster.submit import ray_directory


def launch() -> None:
    """Runs the pipeline.yaml of the job's directory with `rushes run`; the directory where Ray was started comes second."""
    places = [Path.cwd(), ray_directory()]
    for place in dict.fromkeys(place for place in places if place is not None):
        if (place / "pipeline.yaml").is_file():
            sys.argv = ["rushes", "run", str(place / "pipeline.yaml"), *sys.argv[1:]]
            main()
            return
    print(
        f"there is no pipeline.yaml in {Path.cwd()}; start Ray in the project's directory (cd there, ray start --head) "
        f"or submit with  ray job submit --working-dir . -- ./pipeline.yaml",
        file=sys.stderr,
    )
    raise SystemExit(2)
