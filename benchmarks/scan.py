"""What the scan costs over a plain decode, and how many shot boundaries it finds, on reels whose cuts are known.

    python benchmarks/scan.py [REEL.mp4 ...]

Each reel has its truth beside it (REEL.json, made by shared/tools/make_reel.py); the default are the project's three. CPU seconds of one thread
(`resource.getrusage`), the median of three runs each, taken in turns; only ratios are printed. A hard cut counts as found within 2 frames, a
gradual transition when a boundary lies in it (2 frames around it); a boundary that fits none is a false alarm.
"""

import json
import resource
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
from scenedetect import AdaptiveDetector, ContentDetector, SceneManager, open_video

from curate.config import ScanConfig
from curate.scan import scan_window
from curate.stage import StageSpec
from curate.video import Reader

RUNS = 3
NEAR_FRAMES = 2
SHARED = Path(__file__).resolve().parents[2] / "shared" / "footage"


def decode(path: Path) -> list[int]:
    """Every frame decoded, nothing else done."""
    with Reader(str(path)) as reader:
        for _ in reader:
            pass
    return []


def ours(**options: Any) -> Callable[[Path], list[int]]:
    """The whole scan: cuts, thumbnails, clip rows. Gives the first frames of new shots."""

    def run(path: Path) -> list[int]:
        cuts = StageSpec("curate.cuts.PySceneDetect", "cuts", options)
        rows = scan_window(str(path), "source", 0, 0, ScanConfig(), cuts)
        fps = rows[0]["fps"]
        return [round(row["start_s"] * fps) for row in rows if row["start_kind"] == "hard"]

    return run


def peer(detector: Callable[[], Any]) -> Callable[[Path], list[int]]:
    """PySceneDetect as its documentation shows it (cuts alone, no thumbnails)."""

    def run(path: Path) -> list[int]:
        manager = SceneManager()
        manager.add_detector(detector())
        manager.detect_scenes(open_video(str(path), backend="pyav"))
        return [scene[0].frame_num for scene in manager.get_scene_list()[1:]]

    return run


CONTENDERS: dict[str, Callable[[Path], list[int]]] = {
    "plain decode (PyAV)": decode,
    "rushes scan": ours(),
    "rushes scan, content at 256 px": ours(short_side_px=256),
    "rushes scan, adaptive at 64 px": ours(detector="adaptive"),
    "PySceneDetect adaptive, cuts alone": peer(AdaptiveDetector),
    "PySceneDetect content, cuts alone": peer(ContentDetector),
}


def cpu_s(call: Callable[[Path], list[int]], path: Path) -> tuple[float, list[int]]:
    """CPU seconds of this process during the call, and what it found."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    found = call(path)
    after = resource.getrusage(resource.RUSAGE_SELF)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, found


def score(found: list[int], truth: list[dict[str, Any]]) -> dict[str, tuple[int, int]]:
    """Per kind of transition: found, made; and under `false` the boundaries that fit none, of all."""
    hits: dict[str, tuple[int, int]] = {}
    explained: set[int] = set()
    for transition in truth:
        near = [f for f in found if transition["start"] - NEAR_FRAMES <= f <= transition["end"] + NEAR_FRAMES]
        explained.update(near)
        got, made = hits.get(transition["type"], (0, 0))
        hits[transition["type"]] = (got + bool(near), made + 1)
    return {**hits, "false": (len(set(found) - explained), len(set(found)))}


def main() -> None:
    """Prints the tables."""
    cv2.setNumThreads(1)
    reels = [Path(argument) for argument in sys.argv[1:]] or sorted(SHARED.glob("reel_*.mp4"))
    if not reels:
        raise SystemExit("no reel given, and none in the project's shared footage")
    costs: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    totals: dict[str, dict[str, tuple[int, int]]] = {name: {} for name in CONTENDERS}
    for reel in reels:
        truth = json.loads(reel.with_suffix(".json").read_text())["transitions"]
        seconds: dict[str, list[float]] = {name: [] for name in CONTENDERS}
        for run in range(RUNS):
            for name, call in CONTENDERS.items():
                taken_s, found = cpu_s(call, reel)
                seconds[name].append(taken_s)
                if run == 0:
                    for kind, (got, made) in score(found, truth).items():
                        before = totals[name].get(kind, (0, 0))
                        totals[name][kind] = (before[0] + got, before[1] + made)
        base = statistics.median(seconds["plain decode (PyAV)"])
        for name in CONTENDERS:
            costs[name].append(statistics.median(seconds[name]) / base)
    print(f"{'':36s} {'CPU over a plain decode':26s} F1    precision recall  found / made")
    for name in CONTENDERS:
        ratios = "  ".join(f"{ratio:.2f}" for ratio in costs[name])
        kinds = {kind: value for kind, value in totals[name].items() if kind != "false"}
        wrong, spoken = totals[name]["false"]
        if not spoken:
            print(f"{name:36s} {ratios}")
            continue
        recall = sum(got for got, _ in kinds.values()) / sum(made for _, made in kinds.values())
        precision = 1 - wrong / spoken
        f1 = 2 * precision * recall / (precision + recall)
        told = ", ".join(f"{kind} {got}/{made}" for kind, (got, made) in sorted(kinds.items()))
        print(f"{name:36s} {ratios:26s} {f1:.3f} {precision:.3f}     {recall:.3f}   {told}")
    print("reels: " + ", ".join(reel.stem for reel in reels))


if __name__ == "__main__":
    main()
