"""Content-derived ids: the same footage has the same ids on any machine and in any order. 20 hexadecimal digits of sha256 (80 bits)."""

import hashlib
from typing import BinaryIO, Literal

SAMPLE_BYTES = 1 << 20


def source_id(file: BinaryIO, size_bytes: int, digest: Literal["sampled", "full"] = "sampled") -> str:
    """The id of a file's content.

    `sampled` hashes the size and three samples of 1 MiB (start, middle, end), at the same cost for every file; `full` hashes all bytes.
    """
    hasher = hashlib.sha256(f"{digest} {size_bytes} ".encode())
    if digest == "full":
        file.seek(0)
        while block := file.read(1 << 22):
            hasher.update(block)
    else:
        for start in (0, max(0, (size_bytes - SAMPLE_BYTES) // 2), max(0, size_bytes - SAMPLE_BYTES)):
            file.seek(start)
            hasher.update(file.read(SAMPLE_BYTES))
    return hasher.hexdigest()[:20]


def span_id(source: str, start_s: float, end_s: float, kind: str = "clip") -> str:
    """The id of a span of a source, to the microsecond. `kind` distinguishes a clip from a span that was skipped or failed."""
    return hashlib.sha256(f"{source} {start_s:.6f} {end_s:.6f} {kind}".encode()).hexdigest()[:20]
