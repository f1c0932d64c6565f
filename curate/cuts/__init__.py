"""Where one shot ends and the next begins. `curate.cuts.Cascade` is the default; `curate.cuts.PySceneDetect` has that package's alone."""

from curate.cuts.cascade import Cascade
from curate.cuts.pyscenedetect import PySceneDetect

__all__ = ["Cascade", "PySceneDetect"]
