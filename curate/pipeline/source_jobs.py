"""The jobs that open source files: reading headers (rows of `sources`) and scanning windows (rows of `clips`).

Both are picklable and run on any node: a job names its table by directory and its cut detector by dotted name.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from curate.cluster.work import Receipt, errors_in
from curate.config.config import ScanConfig
from curate.sandbox.job import Sandboxed
from curate.sandbox.sandbox import SandboxError
from curate.scan import scan, sources
from curate.stages.stage import StageSpec, one_sentence
from curate.tables import store
from curate.tables.table import Table
from curate.video.limits import Limits

PROBE_WALL_S = 60.0
"""Timeout for reading one header, in seconds. Ours."""


@dataclass(frozen=True)
class ProbeUnit:
    """Files to probe: `(uri, the manifest's other columns as JSON or None)` each."""

    files: tuple[tuple[str, str | None], ...]


@dataclass
class ProbeJob(Sandboxed):
    """Turns files into rows of `sources`."""

    table: Table
    digest: str
    limits: Limits = field(default_factory=Limits)

    def work(self, unit: ProbeUnit) -> Receipt:
        """Reads the header of each file."""
        rows = [self._probe(uri, manifest) for uri, manifest in unit.files]
        self.table.write(rows)
        return Receipt(len(rows), errors_in(rows))

    def _probe(self, uri: str, manifest: str | None) -> dict[str, Any]:
        row: dict[str, Any] = {**dict.fromkeys(sources.SCHEMA.names), "uri": uri, "manifest": manifest}
        try:
            row |= sources.identify(uri, self.digest)
            row |= self._sandbox.call(
                sources.probe_file, uri, self.limits, wall_s=PROBE_WALL_S, online=not store.is_local(uri)
            )
        except SandboxError as error:
            row["error"] = f"probe: {error}"
        except FileNotFoundError:
            row["error"] = "probe: there is no such file"
        except (OSError, ValueError) as error:
            row["error"] = f"probe: {one_sentence(error)}"
        return row


@dataclass(frozen=True)
class ScanUnit:
    """Windows to scan, each with `uri, source_id, duration_s, window, last_window` (curate/run/windows.py)."""

    windows: tuple[Mapping[str, Any], ...]


@dataclass
class ScanJob(Sandboxed):
    """Turns windows of sources into rows of `clips`."""

    table: Table
    config: ScanConfig
    cuts: StageSpec
    digest: str
    _seen: dict[str, tuple[str, str]] = field(default_factory=dict, repr=False)
    """File to its state when it was last checked (size, time, version) and its content id."""

    def work(self, unit: ScanUnit) -> Receipt:
        """Decodes each window once."""
        rows = [row for window in unit.windows for row in self._scan(window)]
        self.table.write(rows)
        return Receipt(len(rows), errors_in(rows), counted=len(unit.windows))

    def _scan(self, window: Mapping[str, Any]) -> list[dict[str, Any]]:
        uri, source_id = window["uri"], window["source_id"]
        length_s = min(window["duration_s"] or self.config.window_s, 1.5 * self.config.window_s)
        wall_s = self.config.timeout_floor_s + self.config.timeout_factor * length_s
        arguments = (uri, source_id, window["window"], window["last_window"], self.config, self.cuts)
        try:
            self._check(uri, source_id)
            return self._sandbox.call(scan.scan_window, *arguments, wall_s=wall_s, online=not store.is_local(uri))
        except FileNotFoundError:
            reason = "the file no longer exists"
        except SandboxError as error:
            reason = str(error)
        except (OSError, ValueError) as error:
            reason = one_sentence(error)
        return [scan.failed_row(window, window["window"], self.config, f"scan: {reason}")]

    def _check(self, uri: str, source_id: str) -> None:
        """Raises ValueError when the file's content is not what was probed, or OSError when it cannot be read."""
        state = store.state(uri)
        if uri not in self._seen or self._seen[uri][0] != state:
            self._seen[uri] = (state, sources.identify(uri, self.digest)["source_id"])
        if (now := self._seen[uri][1]) != source_id:
            raise ValueError(f"{uri} has changed since its header was read (its content was {source_id}, now {now})")
