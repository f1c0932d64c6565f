"""Limits of a file for a scan. A file that exceeds one becomes a row with an error before it uses much memory or time."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """The limits under `scan:` in the pipeline file, each 0 or more. The defaults (ours) are above any camera or broadcast that we know."""

    max_megapixels: float = 140.0
    """Millions of pixels of one picture. 8K has 33, 12K 80, 16K 133. A pixel takes 3 to 8 bytes, and a decoder keeps up to 16 pictures."""
    max_hours: float = 168.0
    """Hours that the header states. The default is a week."""
    max_streams: int = 256
    """Streams of all kinds: video, audio, subtitles, attachments. A broadcast multiplex has about a hundred."""
    max_metadata_mb: float = 16.0
    """Megabytes of tags of the file and its streams."""
