"""The public Python interface: open a run, run a pipeline, catch its errors.

    import rushes

    run = rushes.open("runs/demo")                      # reads only; see docs/api.md for its methods
    run = rushes.run("pipeline.yaml", sources="footage", overrides=["keep.motion.above=p50"])

`import rushes` loads no heavy package: pandas, Ray and torch are imported by the calls that need them.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.errors import ClaimError, ConfigError, RunError, RushesError, UsageError, WeightsError

if TYPE_CHECKING:
    from curate.clip import Clip
    from curate.dataset.run import Run

    __version__: str

__all__ = [
    "ClaimError",
    "Clip",
    "ConfigError",
    "RunError",
    "RushesError",
    "UsageError",
    "WeightsError",
    "__version__",
    "open",
    "run",
]


def open(path: str | Path, overrides: Iterable[str] = (), *, code: str | Path | None = None) -> "Run":
    """Opens a run directory for reading.

    Args:
        path: The run directory, local or an fsspec URL such as `s3://bucket/run`.
        overrides: `key.path=value` each, as `--set` of the command line.
        code: A directory with your own stages. Without it they are imported from the pipeline file's directory only if
            that is the current directory: a run directory may come from an untrusted source.

    Raises UsageError when `path` is not a run directory, ConfigError when its pipeline is not valid.
    """
    from curate.dataset.run import Run

    return Run.open(path, tuple(overrides), code=code)


def run(
    pipeline: str | Path,
    *,
    sources: str | Iterable[str] | None = None,
    run: str | None = None,
    overrides: Iterable[str] = (),
    recompute: Iterable[str] = (),
    retry_errors: bool = False,
) -> "Run":
    """Runs a pipeline file in this process, as the command `rushes run` does, and returns the opened run.

    A run that was interrupted resumes: finished work is not repeated. Ray is started for the call, or the cluster in
    `RAY_ADDRESS` is used, and is shut down afterwards.

    Args:
        pipeline: The pipeline file.
        sources: Replaces `sources:`; relative to the current directory.
        run: Replaces `run:`, the run directory; relative to the current directory.
        overrides: `key.path=value` each, as `--set`.
        recompute: Names of tables to delete first, together with all tables made from them.
        retry_errors: Processes failed rows again.

    Raises UsageError (with ConfigError, ClaimError, WeightsError) before any work starts, and RunError when the run
    fails; finished work is kept, and the next call resumes.
    """
    from curate.cli.common import console, load
    from curate.cli.train import check_finetune, finetune_run
    from curate.cluster import runner
    from curate.pipeline.execute import execute
    from curate.progress.progress import Progress
    from curate.report import write as report

    given = None if sources is None else [sources] if isinstance(sources, str) else list(sources)
    _, opened = load(Path(pipeline), given, run, list(overrides))
    check_finetune(opened)
    try:
        execute(opened, Progress(console()), list(recompute), retry_errors)
    finally:
        runner.stop()
    if finetune_run(opened):
        report.write(opened)
    return opened


def __getattr__(name: str) -> Any:
    if name == "Clip":
        from curate.clip import Clip

        return Clip
    if name == "__version__":
        from importlib.metadata import version

        return version("rushes")
    raise AttributeError(f"module 'rushes' has no attribute '{name}'")
