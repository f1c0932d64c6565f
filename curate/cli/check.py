"""`rushes check`: builds every stage without running anything."""

from pathlib import Path

from curate.cli.common import PipelineArgument, RunOption, SetOption, SourcesOption, console, fail, grid, load
from curate.errors import WeightsError


def command(
    pipeline: PipelineArgument = Path("pipeline.yaml"),
    sources: SourcesOption = None,
    run: RunOption = None,
    settings: SetOption = None,
) -> None:
    """Check a pipeline file: print its stages, their columns, and where their weights come from."""
    loaded, opened = load(pipeline, sources, run, settings)
    from curate.pipeline.execute import check_stages
    from curate.scan import sources as listing
    from curate.stages import stage, weights

    stage.build(loaded.cuts)
    out = console()
    table = grid("table", "stage", "columns", "weights")
    table.add_row("clips", loaded.cuts.use, "clip_id, start_s, end_s, thumbs ...", "")
    missing = []
    for step in opened.steps:
        found = []
        for address in stage.weights_of(step.stage).values():
            try:
                found.append(f"{address}\n-> {weights.locate(address)}")
            except WeightsError as error:
                found.append(f"{address}\n-> missing")
                missing.append(str(error))
        table.add_row(step.spec.name, step.spec.use, ", ".join(step.columns), "\n".join(found))
    out.print(table)
    if missing:
        fail(missing[0], WeightsError.exit_code)
    check_stages(opened)
    files = listing.discover(loaded.config.sources, loaded.home)
    out.print(f"{len(files)} source files; run directory {opened.root}", highlight=False, soft_wrap=True)
