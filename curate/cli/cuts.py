"""`rushes cuts`: the shot boundaries of one file, as lines, JSON or pictures, or scored against known transitions."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from curate.cli.common import JsonOption, console, grid, print_json
from curate.errors import RunError, UsageError

if TYPE_CHECKING:
    from curate.cuts.boundary import Boundary, Score
    from curate.stages.stage import StageSpec

WALL_FLOOR_S, WALL_FACTOR = 120.0, 20.0
"""Timeout of a pass over a file: this long, plus this many times its length. Ours."""


def command(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A video file: a path or a URL.")],
    as_json: JsonOption = False,
    sheet: Annotated[
        Path | None,
        typer.Option(metavar="OUT.png", help="Write a picture of the frames on both sides of every boundary."),
    ] = None,
    truth: Annotated[
        Path | None,
        typer.Option(metavar="REEL.json", help="Score the boundaries against the known transitions in this file."),
    ] = None,
    use: Annotated[
        str, typer.Option(metavar="DETECTOR", help="The detector, by its dotted name.")
    ] = "curate.cuts.Cascade",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override one option of the detector; repeatable."),
    ] = None,
) -> None:
    """Find the shot boundaries of one file. Frames count from 0; a gradual transition covers [start, end)."""
    _check_file(file)
    if sheet is not None and sheet.suffix.lower() != ".png":
        raise UsageError(f"--sheet {sheet}: the file name must end in .png")
    from curate.cuts import boundary
    from curate.cuts.boundary import Boundary
    from curate.stages import stage, weights
    from curate.stages.stage import StageSpec

    known = _truth(truth) if truth is not None else None
    spec = StageSpec(use, "cuts", dict(_setting(text) for text in settings or []))
    if isinstance(address := getattr(stage.build(spec), "weights", None), str):
        weights.locate(address)
    found = _find(file, spec)
    boundaries, edges = ([Boundary(**b) for b in found[name]] for name in ("boundaries", "edges"))
    rows, edge_rows = ([_row(b, found["times_s"]) for b in some] for some in (boundaries, edges))
    if sheet is not None:
        _draw(file, sorted([*boundaries, *edges], key=lambda b: b.start), found["times_s"], sheet)
    if as_json:
        facts = {"fps": found["fps"], "frames": len(found["times_s"]) - 1, "boundaries": rows, "edges": edge_rows}
        score = {} if known is None else {"score": _numbers(boundary.score(boundaries, known))}
        print_json({**facts, "error": found["error"], **score})
        return
    out = console()
    table = grid("kind", "frames", "", "seconds", "", "confidence", "detector", right=(1, 2, 3, 4, 5))
    for b in sorted([*rows, *edge_rows], key=lambda b: b["start_frame"]):
        table.add_row(
            b["kind"] + (" (edge)" if b in edge_rows else ""),
            str(b["start_frame"]),
            str(b["end_frame"]),
            f"{b['start_s']:.3f}",
            f"{b['end_s']:.3f}",
            f"{b['confidence']:.2f}",
            b["detector"],
        )
    if rows or edge_rows:
        out.print(table)
    length_s = found["times_s"][-1]
    out.print(
        f"{len(rows)} boundaries in {len(found['times_s']) - 1} frames, {length_s:.2f} s"
        + (f", {found['fps']:g} fps" if found["fps"] else ""),
        highlight=False,
    )
    if found["error"]:
        out.print(found["error"], highlight=False)
    if known is not None:
        _show_score(boundary.score(boundaries, known))
    if sheet is not None:
        out.print(f"{sheet}", highlight=False, soft_wrap=True)


def _check_file(file: str) -> None:
    """Raises UsageError unless this is a URL or an existing file."""
    if "://" in file:
        return
    if Path(file).is_dir():
        raise UsageError(f"'{file}' is a directory, and `rushes cuts` reads one video file")
    if not Path(file).exists():
        raise UsageError(f"there is no file '{file}'")


def _find(file: str, spec: "StageSpec") -> dict[str, Any]:
    from curate.sandbox.sandbox import Sandbox, SandboxError
    from curate.scan.scan import find_cuts
    from curate.tables import store
    from curate.video.header import probe

    online = not store.is_local(file)
    with Sandbox() as sandbox:
        try:
            length_s = sandbox.call(probe, file, wall_s=WALL_FLOOR_S, online=online).duration_s or 3600.0
            return sandbox.call(find_cuts, file, spec, wall_s=WALL_FLOOR_S + WALL_FACTOR * length_s, online=online)
        except SandboxError as error:
            raise RunError(_naming(file, error)) from error


def _naming(file: str, error: Exception) -> str:
    """The error with the file's name in it, once."""
    return str(error) if file in str(error) else f"{file}: {error}"


def _draw(file: str, boundaries: "list[Boundary]", times_s: list[float], sheet: Path) -> None:
    from curate.dataset import contact
    from curate.sandbox.sandbox import Sandbox, SandboxError
    from curate.tables import store

    with Sandbox() as sandbox:
        try:
            wall_s = WALL_FLOOR_S + WALL_FACTOR * times_s[-1]
            arguments = (file, boundaries, times_s)
            png = sandbox.call(contact.sheet, *arguments, wall_s=wall_s, online=not store.is_local(file))
        except SandboxError as error:
            raise RunError(_naming(file, error)) from error
    try:
        sheet.parent.mkdir(parents=True, exist_ok=True)
        sheet.write_bytes(png)
    except OSError as error:
        raise UsageError(f"--sheet {sheet}: {error.strerror or error}") from error


def _row(b: "Boundary", times_s: list[float]) -> dict[str, Any]:
    return {
        "kind": b.kind,
        "start_frame": b.start,
        "end_frame": b.end,
        "start_s": round(times_s[b.start], 6),
        "end_s": round(times_s[b.end], 6),
        "confidence": b.confidence,
        "detector": b.detector,
    }


def _numbers(score: "Score") -> dict[str, Any]:
    rates = {name: round(getattr(score, name), 4) for name in ("precision", "recall", "f1")}
    return {**rates, **asdict(score)}


def _show_score(score: "Score") -> None:
    out = console()
    kinds = ", ".join(f"{kind} {score.found[kind]}/{score.made[kind]}" for kind in score.made)
    out.print(
        f"\nprecision {score.precision:.3f}, recall {score.recall:.3f}, F1 {score.f1:.3f}; found of made: {kinds}",
        highlight=False,
    )
    for b in score.false_alarms:
        out.print(f"false alarm: {b.kind} at {b.start}..{b.end}, confidence {b.confidence:.2f}", highlight=False)
    for kind, start, end in score.missed:
        out.print(f"missed: {kind} at {start}..{end}", highlight=False)


def _truth(path: Path) -> list[dict[str, Any]]:
    try:
        transitions = json.loads(path.read_text(encoding="utf-8"))["transitions"]
        return [{"type": str(t["type"]), "start": int(t["start"]), "end": int(t["end"])} for t in transitions]
    except OSError as error:
        raise UsageError(f"--truth {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f'--truth {path}: expected {{"transitions": [{{"type", "start", "end"}}, ...]}}') from error


def _setting(text: str) -> tuple[str, Any]:
    from curate.config.lines import parse

    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(f"--set {text}: expected key=value")
    return key, parse(value, f"--set {key}").data
