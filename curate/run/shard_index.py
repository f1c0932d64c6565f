"""The metadata of a shards directory: `plan.json` (the clips of each shard) and the format of `index.json`."""

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
    """The contents of one version of the shards, as in its plan.json."""

    version: int = 1
    made_from: str | None = None
    """A digest of everything that the rows depend on; None: unknown."""
    pixels: str | None = None
    """A digest of everything that the mp4 bytes depend on."""
    parent: dict[str, Any] | None = None
    """The previous version: `version`, and the `sha256` of its index.json."""
    shards: dict[str, list[str]] = field(default_factory=dict)
    """Ids of the clips of each shard."""

    @classmethod
    def of(cls, root: str) -> Plan | None:
        """The plan of a shards directory, or None when it does not exist."""
        saved = store.get_json(store.join(root, "plan.json"))
        return (
            None if saved is None else cls(**{name: saved[name] for name in cls.__dataclass_fields__ if name in saved})
        )

    def save(self, root: str) -> None:
        """Writes plan.json."""
        store.put_json(store.join(root, "plan.json"), vars(self))

    @property
    def digest(self) -> str:
        """A digest of the whole plan."""
        return digest(vars(self))


def check_format(index: Mapping[str, Any], root: str) -> None:
    """Raises UsageError when an index.json has another schema version."""
    if (found := index.get("schema_version")) != SCHEMA_VERSION:
        raise UsageError(
            f"the shards in {root} have schema {found}, but this version of rushes reads {SCHEMA_VERSION}; write them again:  rushes run"
        )
