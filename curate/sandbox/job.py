"""The part that all jobs with untrusted files share: a sandbox for the life of a worker."""

from dataclasses import dataclass

from curate.sandbox.sandbox import Sandbox


@dataclass
class Sandboxed:
    """A job that opens untrusted files: its functions run in a child process, which may use `memory_mb`."""

    memory_mb: int

    def setup(self) -> None:
        """Begins the sandbox."""
        self._sandbox = Sandbox(self.memory_mb)

    def close(self) -> None:
        """Ends the sandbox."""
        self._sandbox.close()
