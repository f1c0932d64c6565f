"""Scores of an ablation's samples by the measures of the run: the aesthetic head that scores clips scores the samples too."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from curate.ablation.results import Ablation, training_name
from curate.clip import Clip
from curate.run.data import RunData
from curate.run.steps import Step
from curate.stages import stage
from curate.tables import store
from curate.video.open import open_video

SCORED = ("aesthetic",)
"""Columns that score the samples, if the run has them. Our choice."""
JPEG_QUALITY = 95


def add_scores(run: RunData, ablation: Ablation, columns: Iterable[str] = SCORED) -> int:
    """Scores the samples of each finished training that has no scores yet, and adds the means to its results.

    Args:
        run: The run whose stages score.
        ablation: The ablation with the samples.
        columns: Columns of the run; missing ones are skipped.

    Returns the number of trainings scored. Raises the errors of a stage's setup, such as WeightsError.
    """
    wanted = [name for name in columns if any(name in step.columns for step in run.steps)]
    todo = {
        training_name(*key): result
        for key, result in ablation.judged.items()
        if any(name not in result["scores"] for name in wanted)
    }
    if not wanted or not todo:
        return 0
    chain = _chain(run.steps, wanted)
    ready = [(step, stage.ready(step.spec)) for step in chain]
    for name, result in todo.items():
        videos = sorted((ablation.folder / "samples" / name).glob("*.mp4"))
        clips = [_clip(path, run.pipeline.config.scan.thumb_fps) for path in videos]
        rows = _measured(ready, clips)
        scores = {column: [row[column] for row in rows if row.get(column) is not None] for column in wanted}
        result["scores"] |= {column: float(np.mean(values)) for column, values in scores.items() if values}
        store.put(str(ablation.folder / "judged" / f"{name}.json"), json.dumps(result).encode())
    return len(todo)


def _chain(steps: Sequence[Step], wanted: Sequence[str]) -> list[Step]:
    """The steps that write these columns and the steps that they read from, in the run's order."""
    needed = {step.spec.name for step in steps if set(step.columns) & set(wanted)}
    for step in reversed(steps):
        if step.spec.name in needed:
            needed |= {table for table, _ in step.reads.values()}
    return [step for step in steps if step.spec.name in needed]


def _measured(ready: Sequence[tuple[Step, Any]], clips: Sequence[Clip]) -> list[Mapping[str, Any]]:
    """The columns of each clip after all stages ran in order."""
    values: list[dict[str, Any]] = [{} for _ in clips]
    for step, built in ready:
        read = [
            _with(clip, {name: known.get(column) for name, (_, column) in step.reads.items()})
            for clip, known in zip(clips, values, strict=True)
        ]
        by_id = {row["clip_id"]: row for row in stage.apply(built, read, step.names)}
        for clip, known in zip(clips, values, strict=True):
            known |= by_id[clip.clip_id]
    return list(values)


def _with(clip: Clip, columns: Mapping[str, Any]) -> Clip:
    return Clip(**{**{name: getattr(clip, name) for name in Clip.__dataclass_fields__}, "columns": columns})


def _clip(path: Path, thumb_fps: float) -> Clip:
    """A sample as a Clip, with thumbnails at the run's rate."""
    import cv2

    with open_video(str(path)) as video:
        info = video.info
        length_s = info.duration_s or 1 / thumb_fps
        times_s = tuple(i / thumb_fps for i in range(max(1, int(length_s * thumb_fps))))
        frames_THWC = video.frames_at(times_s).frames_THWC
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    jpegs = tuple(cv2.imencode(".jpg", frame[..., ::-1], options)[1].tobytes() for frame in frames_THWC)
    height_px, width_px = frames_THWC.shape[1:3]
    fps = info.fps or thumb_fps
    n_frames = round(length_s * fps)
    return Clip(path.stem, path.stem, 0.0, length_s, fps, n_frames, width_px, height_px, jpegs, times_s)
