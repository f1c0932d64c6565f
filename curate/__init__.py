"""The engine: configuration, scan, tables, Ray, selection, shards, index, report and the command line.

`from curate import Run` opens a run directory in a notebook; it is loaded when asked for, so that filters, which need the Clip record alone,
stay light.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from curate.dataset.run import Run

__all__ = ["Run"]


def __getattr__(name: str) -> Any:
    if name == "Run":
        from curate.dataset.run import Run

        return Run
    raise AttributeError(f"module 'curate' has no attribute '{name}'")
