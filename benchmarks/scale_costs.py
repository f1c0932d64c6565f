"""Costs per second of real footage: CPU of each step, bytes, requests to object storage; the input of `benchmarks.scale_model`.

    python -m benchmarks.scale_costs FILE... [--pipeline pipeline.yaml] [--no-requests]     writes benchmarks/results/scale_costs.json

Every step runs with one worker in this process; CPU seconds include this process and its ended sandboxes. Requests are counted in the log of
a moto server, for a run of the same footage without the expensive filters, which do not change their number.
"""

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from curate.config.pipeline_file import load
from curate.dataset.run import Run
from curate.pipeline import execute as pipeline
from curate.progress.progress import Progress
from curate.report import write as report
from curate.scan import sources
from curate.search import index
from curate.shards import write as shards
from tests.servers import s3_server

ROOT = Path(__file__).resolve().parents[1]
WHERE = ROOT / "benchmarks" / "results" / "scale_costs.json"
REQUESTS = """\
run: s3://costs/run
sources: {sources}
scan: {{workers: 1}}
measure:
  - {{use: tests.stages.Brightness, workers: 1}}
shards: {{workers: 1, short_side_px: 64}}
"""


def cpu_s() -> float:
    """CPU seconds of this process and of the children that have ended."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(used.ru_utime + used.ru_stime for used in both)


def size_of(folder: Path) -> int:
    """Bytes of all files inside."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def costs(files: list[str], pipeline_file: Path, folder: Path) -> dict[str, Any]:
    """Runs the pipeline step by step."""
    one = ["scan.workers=1", "shards.workers=1"]
    loaded = load(pipeline_file, one, {"sources": files, "run": str(folder / "run")}, home=ROOT)
    for spec in (*loaded.measure, *loaded.caption, *([loaded.embed] if loaded.embed else [])):
        object.__setattr__(spec, "workers", 1)
    run = Run(str(folder / "run"), loaded)
    for step in run.steps:
        object.__setattr__(step.spec, "workers", 1)
    listed = sources.discover(run.pipeline.config.sources, ROOT)
    for name, table in run.tables().items():
        table.begin(run.claims[name])
    progress = Progress()
    found: dict[str, float] = {}
    steps = {
        "probe": lambda: pipeline.probe(run, listed, progress),
        "scan": lambda: pipeline.split(run, progress),
        "measure": lambda: pipeline.measure(run, progress),
        "caption": lambda: (pipeline.caption(run, progress), pipeline.review(run, progress)),
        "shards": lambda: shards.write(run, run.selection(), progress),
        "embed": lambda: pipeline.embed(run, progress),
        "index": lambda: index.build(run),
        "report": lambda: report.write(run),
    }
    with progress.over(run.walk(), run.root):
        for name, do in steps.items():
            before = cpu_s()
            do()
            found[name] = cpu_s() - before
            print(f"  {name}: {found[name]:.1f} CPU s", file=sys.stderr, flush=True)
    ledger, finished = run.ledger(), run.index() or {"clips": 0, "bytes": 0, "seconds": 0.0}
    here = folder / "run"
    stages = progress.spent
    per_stage = {name: s for spent in stages.values() for name, s in spent.stages.items()}
    return {
        "footage": {
            "files": len(listed),
            "bytes": sum(Path(f).stat().st_size for f in files),
            "seconds": ledger.total_s,
        },
        "clips": len(run.clip_ids()),
        "kept": {"clips": finished["clips"], "seconds": finished["seconds"], "bytes": finished["bytes"]},
        "cpu_s": found,
        "measure_share": {name: s / max(sum(per_stage.values()), 1e-9) for name, s in per_stage.items()},
        "bytes": {
            name: size_of(here / name)
            for name in ("sources", "clips", "measures", "captions", "embeddings", "index.lance", "report")
        },
    }


@contextmanager
def object_storage(folder: Path) -> Iterator[tuple[dict[str, str], Path]]:
    """A moto server: the environment variables for it, and its log of requests."""
    with s3_server(folder) as (port, log):
        yield {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }, log  # fmt: skip


def requests(files: list[str], folder: Path) -> dict[str, Any]:
    """Counts the requests of a run, and of the same run with one more source; the difference is the cost of a source."""
    import s3fs

    counted = []
    with object_storage(folder) as (env, log):
        os.environ.update(env)
        s3fs.S3FileSystem().mkdir("costs")
        for some in (files[:-1], files):
            before = len(log.read_text())
            (folder / "pipeline.yaml").write_text(REQUESTS.format(sources=json.dumps(some)))
            command = [sys.executable, "-c", "from curate.cli import main; main()", "run"]
            subprocess.run(
                command, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, stdout=subprocess.DEVNULL
            )
            counted.append(log.read_text()[before:])
        counts = Run.open("s3://costs/run")
        requests = {
            kind: len(re.findall(rf'"?{kind} /', counted[0])) for kind in ("GET", "HEAD", "PUT", "POST", "DELETE")
        }
        by_table = {
            name: len(re.findall(rf"/costs/run/{name}", counted[0]))
            for name in ("sources", "clips", "measures", "shards", "index.lance", "report")
        }
        listed = counts.sources()
        first = listed[listed["uri"].isin(files[:-1])]
        return {
            "seconds": float(first["duration_s"].sum()),
            "files": len(first),
            "requests": requests,
            "about": by_table,
            "one_source_more": {kind: len(re.findall(rf'"?{kind} /', counted[1])) for kind in requests},
        }


def main() -> None:
    """Measures and writes the JSON file."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("files", nargs="+")
    ask.add_argument("--pipeline", type=Path, default=ROOT / "pipeline.yaml")
    ask.add_argument("--no-requests", action="store_true")
    given = ask.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    files = [str(Path(file).resolve()) for file in given.files]
    with tempfile.TemporaryDirectory() as name:
        found = costs(files, given.pipeline, Path(name))
        if not given.no_requests:
            (Path(name) / "s3").mkdir()
            found["object_storage"] = requests(files, Path(name) / "s3")
    found["footage"]["names"] = [Path(file).name for file in files]
    WHERE.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
