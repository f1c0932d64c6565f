"""What the commands share: options, opening runs and pipeline files, printing. Light: nothing here imports pandas or pyarrow when loaded."""

import difflib
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from curate.errors import UNPRINTABLE, UsageError, printable

if TYPE_CHECKING:
    from curate.config.config import Pipeline
    from curate.dataset.run import Run

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="The run directory, such as runs/demo.")]
PipelineArgument = Annotated[Path, typer.Argument(metavar="PIPELINE", help="The pipeline file.")]
SourcesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--sources",
        metavar="PATH...",
        help="Replaces `sources:`: files, directories, quoted globs, URLs or manifests. One or more values; repeatable.",
    ),
]
RunOption = Annotated[str | None, typer.Option("--run", metavar="DIR", help="Replaces `run:`, the run directory.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.PATH=VALUE", help="Overrides one value of the pipeline file; repeatable."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Prints JSON.")]

YAML_SUFFIXES = (".yaml", ".yml")


class Stopped(BaseException):
    """Ctrl-C or SIGTERM. Not a KeyboardInterrupt, which typer would handle itself."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


class Screen(Console):
    """Prints text as it is: file names, captions and errors are untrusted, so Rich markup in them is not interpreted and control characters
    are replaced."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Called by Rich for every text and every cell of a table."""
        return super().render_str(printable(text), **options)


def console() -> Console:
    """The console on standard output. Without a terminal it prints plain lines that are not wrapped at 80, even in Jupyter (FORCE_COLOR)."""
    return Screen() if sys.stdout.isatty() else Screen(width=200, highlight=False, force_terminal=False)


def fail(sentence: str, code: int) -> NoReturn:
    """Prints one sentence to standard error and exits."""
    warn(sentence)
    sys.exit(code)


def warn(sentence: str) -> None:
    """Prints one sentence to standard error."""
    print(f"rushes: {printable(sentence)}", file=sys.stderr)


def load(
    pipeline: Path, sources: list[str] | None, run: str | None, settings: list[str] | None
) -> "tuple[Pipeline, Run]":
    """Reads a pipeline file with the command line's changes. Paths typed there are relative to the current directory, those in the file to
    the file."""
    check_pipeline_file(pipeline)
    from curate.cluster import submit
    from curate.config import pipeline_file
    from curate.dataset.run import Run
    from curate.tables import store

    directory = pipeline.absolute().parent
    typed, written = submit.home(Path.cwd()), submit.home(directory)
    if str(directory) not in sys.path:
        sys.path.append(str(directory))  # last: a lab's own `filters/` beside its YAML must not hide ours
    replace = {"sources": sources} if sources else {}
    loaded = pipeline_file.load(pipeline, settings or [], replace, home=typed if sources else written)
    root = run or loaded.config.run
    if store.is_local(root):
        root = str((typed if run else written) / store.local_path_of(root))
    return loaded, Run(root, loaded)


def check_pipeline_file(pipeline: Path) -> None:
    """Raises UsageError for a video, a directory or a missing file in place of a pipeline file, with the command that was meant."""
    if pipeline.suffix in YAML_SUFFIXES and pipeline.is_file():
        return
    command = typed_command()
    if _is_video(pipeline):
        raise UsageError(
            f"'{pipeline}' is a video, not a pipeline file:  rushes {command} pipeline.yaml --sources {shlex.quote(str(pipeline))}"
        )
    if pipeline.is_dir():
        if (pipeline / "pipeline.yaml").is_file():
            meant = f"rushes {command} {shlex.quote(str(pipeline / 'pipeline.yaml'))}"
        else:
            meant = f"rushes {command} pipeline.yaml --sources {shlex.quote(str(pipeline))}"
        raise UsageError(f"'{pipeline}' is a directory, not a pipeline file:  {meant}")
    if not pipeline.exists():
        there = sorted(path.name for suffix in YAML_SUFFIXES for path in pipeline.absolute().parent.glob(f"*{suffix}"))
        near = difflib.get_close_matches(pipeline.name, there, n=1)
        hint = f"; did you mean '{pipeline.with_name(near[0])}'?" if near else ""
        if not near and pipeline == Path("pipeline.yaml"):
            hint = f" in {Path.cwd()}; cd to the project's directory, or give the file:  rushes {command} PATH/pipeline.yaml"
        raise UsageError(f"there is no pipeline file '{pipeline}'{hint}")


def typed_command() -> str:
    """The command on the command line, for messages that print a corrected one: `run`, `shards list`."""
    words = sys.argv[1:3] if sys.argv[1:2] in (["shards"], ["weights"]) else sys.argv[1:2]
    return " ".join(words)


def _is_video(path: Path) -> bool:
    from curate.scan.sources import VIDEO_SUFFIXES

    return path.suffix.lower() in VIDEO_SUFFIXES


def open_run(run: str, settings: list[str] | None = None) -> "Run":
    """Opens a run directory that was named on the command line. Raises UsageError, with the run that was probably meant."""
    check_run(run)
    from curate.dataset.run import Run

    return Run.open(run, tuple(settings or ()))


def check_run(run: str, may_come: bool = False) -> None:
    """Raises UsageError when RUN is a local path that is not a run directory: a pipeline file, a video, a directory above the run, nothing.

    With `may_come` only files are refused: a run may create the directory later.
    """
    if "://" in run:
        return
    path = Path(run)
    if (path / "pipeline.json").exists():
        return
    command = typed_command()
    if path.is_file():
        if path.suffix in YAML_SUFFIXES:
            raise UsageError(
                f"'{run}' is a pipeline file, and this command needs a run directory{_run_of(path, command)}"
            )
        raise UsageError(
            f"'{run}' is a file, and this command needs a run directory, such as runs/demo{_nearby(path.parent)}"
        )
    if may_come:
        return
    if not path.exists():
        raise UsageError(f"there is no run directory '{run}'{_nearby(path.parent, path.name)}")
    raise UsageError(
        f"'{run}' is not a run directory: it has no pipeline.json; `rushes run` creates one{_nearby(path)}"
    )


def check_shards(folder: str) -> None:
    """Raises UsageError when a local RUN|SHARDS argument is neither a run directory nor a folder of shards."""
    path = Path(folder)
    if "://" in folder or (path / "index.json").exists() or (path / "pipeline.json").exists():
        return
    if path.is_dir():
        raise UsageError(
            f"'{folder}' is neither a run directory nor a folder of shards: it has no pipeline.json and no index.json{_nearby(path)}"
        )
    if path.exists():
        check_run(folder)
    raise UsageError(f"there is no run directory or folder of shards '{folder}'{_nearby(path.parent, path.name)}")


def _run_of(pipeline: Path, command: str) -> str:
    """The command with the run directory that a pipeline file names."""
    from curate.config import pipeline_file
    from curate.errors import RushesError

    try:
        root = pipeline_file.load(pipeline).config.run
    except RushesError:
        return ", such as runs/demo"
    where = root if "://" in root or Path(root).is_absolute() else str(pipeline.parent / root)
    made = "" if "://" in where or (Path(where) / "pipeline.json").exists() else ", once `rushes run` has created it"
    return f":  rushes {command} {shlex.quote(where)}{made}"


def _nearby(folder: Path, name: str | None = None) -> str:
    """Run directories in and below a folder, to name in a message: the nearest to `name`, or up to three."""
    found = [
        path.parent
        for pattern in ("*/pipeline.json", "*/*/pipeline.json")
        for path in sorted(folder.glob(pattern))[:200]
    ]  # fmt: skip
    if name is not None:
        near = difflib.get_close_matches(name, [path.name for path in found], n=1)
        if near:
            return f"; did you mean '{next(path for path in found if path.name == near[0])}'?"
    return f"; found here: {', '.join(str(path) for path in found[:3])}" if found else ""


def print_json(value: Any) -> None:
    """Prints JSON; values unknown to JSON (dates, numpy numbers) become text or plain numbers."""
    text = json.dumps(
        value,
        indent=1,
        ensure_ascii=False,
        default=lambda x: x.item() if hasattr(x, "item") else x.tolist() if hasattr(x, "tolist") else str(x),
    )
    print(UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text))  # such characters occur inside strings only


def grid(*headers: str, right: tuple[int, ...] = ()) -> Grid:
    """An unadorned table; the columns in `right` are numbers."""
    made = Grid(box=None, pad_edge=False, header_style="bold")
    for i, header in enumerate(headers):
        made.add_column(header, justify="right" if i in right else "left", overflow="fold")
    return made
