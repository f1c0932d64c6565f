"""`rushes report`: writes the report page anew."""

from curate.cli.common import RunArgument, console
from curate.dataset.run import Run
from curate.report import write as report


def command(run: RunArgument) -> None:
    """Writes `report/index.html` of a run and prints where it lies."""
    console().print(report.write(Run.open(run)), highlight=False, soft_wrap=True)
