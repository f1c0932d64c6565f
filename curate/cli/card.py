"""`rushes card`: the dataset card of a run."""

from curate.cli.common import RunArgument, console, open_run


def command(run: RunArgument) -> None:
    """Write a dataset card (Markdown with Hugging Face front matter) beside the newest shards."""
    opened = open_run(run)
    from curate.dataset import card

    console().print(card.write(opened), highlight=False, soft_wrap=True)
