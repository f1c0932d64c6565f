"""`rushes report`: writes the report page anew."""

from curate import report
from curate.cli.common import RunArgument, console
from curate.run import Run


def command(run: RunArgument) -> None:
    """Writes `report/index.html` of a run and prints where it lies."""
    console().print(report.write(Run.open(run)), highlight=False, soft_wrap=True)
