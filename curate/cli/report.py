"""`rushes report`: writes the report page again."""

from curate.cli.common import RunArgument, console, open_run


def command(run: RunArgument) -> None:
    """Write the report page of a run, `report/index.html`, and print its path."""
    opened = open_run(run)
    from curate.report import write as report

    console().print(report.write(opened), highlight=False, soft_wrap=True)
