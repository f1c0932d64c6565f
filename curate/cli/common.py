"""What the commands share: options, printing, JSON, one sentence for an error."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from curate.cluster import submit
from curate.config import config
from curate.config.config import Pipeline
from curate.dataset.run import Run
from curate.errors import UNPRINTABLE, printable
from curate.tables import store

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="The run directory, such as runs/demo.")]
PipelineArgument = Annotated[Path, typer.Argument(metavar="PIPELINE", help="The pipeline file.")]
SourcesOption = Annotated[
    list[str] | None, typer.Option("--sources", help="Replaces `sources:`; may be given more than once.")
]
RunOption = Annotated[str | None, typer.Option("--run", help="Replaces `run:`, the run directory.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.PATH=VALUE", help="Sets one value of the pipeline file; repeatable."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Prints JSON.")]


class Stopped(BaseException):
    """Ctrl-C or SIGTERM. Not a KeyboardInterrupt, which the argument parser would answer itself."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


class Screen(Console):
    """Prints text as it is: file names, captions and errors are a stranger's, so no markup of Rich is read in them and no control character
    reaches the terminal."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Called by Rich for every text and every cell of a table."""
        return super().render_str(printable(text), **options)


def console() -> Console:
    """Where people read; without a terminal, lines are as long as they are (no wrapping at 80) and plain, even in Jupyter (FORCE_COLOR)."""
    return Screen() if sys.stdout.isatty() else Screen(width=200, highlight=False, force_terminal=False)


def fail(sentence: str, code: int) -> NoReturn:
    """Prints one sentence to standard error and exits."""
    print(f"rushes: {printable(sentence)}", file=sys.stderr)
    sys.exit(code)


def warn(sentence: str) -> None:
    """Prints one sentence to standard error."""
    print(f"rushes: {printable(sentence)}", file=sys.stderr)


def load(
    pipeline: Path, sources: list[str] | None, run: str | None, settings: list[str] | None
) -> tuple[Pipeline, Run]:
    """Reads a pipeline file with the command line's changes. Paths typed there start at the current directory, those in the file at the file."""
    directory = pipeline.absolute().parent
    typed, written = submit.home(Path.cwd()), submit.home(directory)
    if str(directory) not in sys.path:
        sys.path.append(str(directory))  # last: a lab's own `filters/` beside its YAML must not hide ours
    replace = {"sources": sources} if sources else {}
    loaded = config.load(pipeline, settings or [], replace, home=typed if sources else written)
    root = run or loaded.config.run
    if store.is_local(root):
        root = str((typed if run else written) / store.local_path_of(root))
    return loaded, Run(root, loaded)


def print_json(value: Any) -> None:
    """Prints JSON with what it holds that JSON does not know (dates, numpy numbers) as text or plain numbers."""
    text = json.dumps(
        value,
        indent=1,
        ensure_ascii=False,
        default=lambda x: x.item() if hasattr(x, "item") else x.tolist() if hasattr(x, "tolist") else str(x),
    )
    print(UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text))  # they stand in strings alone


def grid(*headers: str, right: tuple[int, ...] = ()) -> Grid:
    """An unadorned table; the columns in `right` are numbers."""
    made = Grid(box=None, pad_edge=False, header_style="bold")
    for i, header in enumerate(headers):
        made.add_column(header, justify="right" if i in right else "left", overflow="fold")
    return made
