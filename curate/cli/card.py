"""`rushes card`: the dataset card of a run."""

from curate.cli.common import RunArgument, console
from curate.dataset import card
from curate.dataset.run import Run


def command(run: RunArgument) -> None:
    """Writes a dataset card (Markdown with Hugging Face's front matter) beside the newest shards."""
    console().print(card.write(Run.open(run)), highlight=False, soft_wrap=True)
