"""Detectors of shot boundaries. `curate.cuts.Cascade` is the default; `curate.cuts.PySceneDetect` uses that package's detectors only."""

from curate.cuts.cascade import Cascade
from curate.cuts.pyscenedetect import PySceneDetect

__all__ = ["Cascade", "PySceneDetect"]
