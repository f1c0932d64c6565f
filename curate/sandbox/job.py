"""Base class of the jobs that read untrusted files: one sandbox for the life of a worker."""

from dataclasses import dataclass

from curate.sandbox.sandbox import Sandbox


@dataclass
class Sandboxed:
    """A job whose functions run in a child process that may use up to `memory_mb` of memory."""

    memory_mb: int

    def setup(self) -> None:
        """Creates the sandbox."""
        self._sandbox = Sandbox(self.memory_mb)

    def close(self) -> None:
        """Kills the sandbox's child."""
        self._sandbox.close()
