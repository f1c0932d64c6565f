"""One measurement per file: clips in, columns out, thumbnails only."""

from filters.camera_motion import CameraMotion
from filters.motion import Motion
from filters.quality import Quality
from filters.source_watermark import SourceWatermark
from filters.static import Static
from filters.text_area import TextArea
from filters.watermark import Watermark

__all__ = [
    "CameraMotion",
    "Motion",
    "Quality",
    "SourceWatermark",
    "Static",
    "TextArea",
    "Watermark",
]
