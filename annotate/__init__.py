"""One captioner per file: clips in, a caption and its columns out."""

from annotate.caption_check import CaptionCheck
from annotate.coca import Coca
from annotate.existing import Existing
from annotate.labels import Labels
from annotate.minilm import MiniLM
from annotate.openai_server import OpenAIServer
from annotate.summary import Summary
from annotate.vllm_batch import VllmBatch
from annotate.vlm import Vlm

__all__ = ["CaptionCheck", "Coca", "Existing", "Labels", "MiniLM", "OpenAIServer", "Summary", "VllmBatch", "Vlm"]
