"""One measurement per file: clips in, columns out, thumbnails only."""

from filters.aesthetic import Aesthetic
from filters.camera_motion import CameraMotion
from filters.caption_similarity import CaptionSimilarity
from filters.conse import Conse
from filters.duplicate import Duplicate
from filters.fingerprint import Fingerprint
from filters.motion import Motion
from filters.nsfw import Nsfw
from filters.open_clip import OpenClip
from filters.quality import Quality
from filters.screen_content import ScreenContent
from filters.source_watermark import SourceWatermark
from filters.static import Static
from filters.text_area import TextArea
from filters.train_loss import TrainLoss
from filters.watermark import Watermark
from filters.zero_shot import ZeroShot

__all__ = [
    "Aesthetic",
    "CameraMotion",
    "CaptionSimilarity",
    "Conse",
    "Duplicate",
    "Fingerprint",
    "Motion",
    "Nsfw",
    "OpenClip",
    "Quality",
    "ScreenContent",
    "SourceWatermark",
    "Static",
    "TextArea",
    "TrainLoss",
    "Watermark",
    "ZeroShot",
]
