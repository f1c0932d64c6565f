"""What a shards directory says of itself: `plan.json` (which clips go into which shard) and the format of `index.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from curate.errors import UsageError
from curate.tables import store
from curate.tables.table import digest

SCHEMA_VERSION = 3


@dataclass
class Plan:
    """What one version of the shards holds, as in its plan.json."""

    version: int = 1
    made_from: str | None = None
    """A digest of all that the rows depend on; None: nothing is known of them any more."""
    pixels: str | None = None
    """The same for the mp4 bytes alone."""
    parent: dict[str, Any] | None = None
    """The version before: `version`, and the `sha256` of its index.json."""
    shards: dict[str, list[str]] = field(default_factory=dict)
    """Shard to ids of its clips."""

    @classmethod
    def of(cls, root: str) -> Plan | None:
        """The plan of a shards directory, or None when there is none."""
        saved = store.get_json(store.join(root, "plan.json"))
        return (
            None if saved is None else cls(**{name: saved[name] for name in cls.__dataclass_fields__ if name in saved})
        )

    def save(self, root: str) -> None:
        """Writes plan.json."""
        store.put_json(store.join(root, "plan.json"), vars(self))

    @property
    def digest(self) -> str:
        """Changes with anything in it."""
        return digest(vars(self))


def check_format(index: Mapping[str, Any], root: str) -> None:
    """Raises UsageError when an index.json was written by a version of rushes whose shards look different."""
    if (found := index.get("schema_version")) != SCHEMA_VERSION:
        raise UsageError(
            f"the shards in {root} have schema {found}, and this rushes reads {SCHEMA_VERSION}; write them again:  rushes run"
        )
