"""What a file may ask of a scan. One that asks for more is a row with one sentence: it costs neither memory nor hours."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """As under `scan:` in the pipeline file; 0 or more each. The defaults are ours: more than any camera or broadcast we know of."""

    max_megapixels: float = 140.0
    """Millions of pixels of one picture. 8K has 33, 12K 80, 16K 133; one takes three to eight bytes a pixel, and a decoder keeps up to 16."""
    max_hours: float = 168.0
    """Hours that the header promises. A week."""
    max_streams: int = 256
    """Streams of all kinds: pictures, sound, subtitles, attachments. A whole broadcast multiplex has about a hundred."""
    max_metadata_mb: float = 16.0
    """Megabytes of text about the file and its streams."""
