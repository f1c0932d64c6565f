"""The report: a folder with a page that opens from a disk or from object storage, without a server and without requests to other hosts.

report/
    index.html               the page; it names the newest data folder
    page/                    scripts and styles (curate/report/page/), with uPlot for the charts
    pictures/<name>.jpg      thumbnails of sixteen clips each (curate/report/pictures.py)
    trainings/ ablations/    samples
    data/<digest>/           run.js, a piece for each column, pieces of text
"""

import hashlib
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.report import columns as report_columns
from curate.report import facts as report_facts
from curate.report import pictures as report_pictures
from curate.report.columns import as_json, piece
from curate.report.pictures import Look
from curate.run.data import RunData
from curate.run.select import passing, select
from curate.tables import store

MOST_CLIPS = 200_000
"""The maximum number of clips shown; of a larger run an even sample. Our choice: a browser filters and draws them without a pause."""
DATA = "data/none"
"""The placeholder in index.html for the newest data folder."""


def write(run: RunData) -> str:
    """Writes the report and returns the path of its page. The previous data folder is kept, because an open page may still load from it."""
    root, keep = run.path("report"), run.pipeline.config.keep
    everything = run.arrow()
    clips = _shown(everything)
    ids = clips.column("clip_id").to_pylist()
    look, short_side_px = Look.of(len(clips)), run.pipeline.config.scan.thumb_short_side_px
    with ThreadPoolExecutor(1) as background:  # drawing pictures takes longest, and the rest needs one core
        folder = store.join(root, "pictures")
        drawing = background.submit(report_pictures.write, run.clips_table, set(ids), folder, look, short_side_px)
        packed = report_columns.pack(clips)
        needed = list(dict.fromkeys(["clip_id", "start_s", "end_s", "error", *keep]))
        facts = report_facts.facts(run, select(everything.select(needed).to_pandas(), keep))
        facts["trainings"] = report_facts.trainings(run, store.join(root, "trainings"))
        facts["ablations"] = _ablations(run, store.join(root, "ablations"))
        sheets = drawing.result()
    facts |= {
        "rows": len(clips),
        "clips": len(everything),
        "text_rows": report_columns.TEXT_ROWS,
        "columns": list(report_columns.describe(packed.columns, report_facts.of_stages(run))),
        "pictures": {"sheets": sheets.names, **asdict(look)},
    }
    pieces = packed.pieces | {
        "ids": as_json(ids),
        "places": _int32([sheets.places.get(clip_id, (-1, 0)) for clip_id in ids]),
        "sources": _int32(clips.column("source_id").combine_chunks().dictionary_encode().indices),
        "good": _bytes(pc.is_null(clips.column("error"))),
        **_masks(run, clips, facts),
    }
    pieces["run"] = as_json(facts)
    _put_page(root, _put_data(root, pieces))
    return run.report_path


def _ablations(run: RunData, folder: str) -> list[dict[str, Any]]:
    """The ablations of a run. Only a run that has some loads curate.ablation and curate.voting."""
    store.remove(folder)
    if not store.is_local(run.root) or not store.names(run.path("ablate"), ""):
        return []
    from curate.ablation import report as ablation_report

    return ablation_report.ablations(run, folder)


def _put_data(root: str, pieces: dict[str, bytes]) -> str:
    """Writes the pieces and returns the name of their folder, which is a digest of them."""
    digests = b"".join(hashlib.sha256(name.encode() + pieces[name]).digest() for name in sorted(pieces))
    version = hashlib.sha256(digests).hexdigest()[:12]
    with ThreadPoolExecutor() as pool:  # object storage has a long latency and takes many requests at once
        put = lambda item: store.put(store.join(root, "data", version, f"{item[0]}.js"), piece(*item))  # noqa: E731
        for _ in pool.map(put, pieces.items()):
            pass
    return version


def _put_page(root: str, version: str) -> None:
    """Writes the files of the page, index.html last, and removes all data folders but the newest and the one before."""
    page = files("curate.report").joinpath("page")
    for name, data in _files(page):
        if name != "index.html":
            store.put(store.join(root, "page", *name.split("/")), data)
    named = store.join(root, "index.html")
    before = re.search(r'data-folder="data/(\w+)"', store.get(named).decode()) if store.exists(named) else None
    index = page.joinpath("index.html").read_text(encoding="utf-8").replace(DATA, f"data/{version}")
    store.put(named, index.encode())
    for old in store.names(store.join(root, "data"), ""):
        if old not in (version, before and before[1]):
            store.remove(store.join(root, "data", old))


def _shown(clips: pa.Table) -> pa.Table:
    """All clips, or an even sample of MOST_CLIPS: ids are digests, so the order by id is random."""
    if len(clips) > MOST_CLIPS:
        clips = clips.take(pa.array([i * len(clips) // MOST_CLIPS for i in range(MOST_CLIPS)]))
    return report_columns.sorted_rows(clips)


def _masks(run: RunData, clips: pa.Table, facts: dict[str, Any]) -> dict[str, bytes]:
    """The clips that pass each rule on a column that the page has neither as numbers nor as words. The page cannot change such a rule."""
    by_value = {column["name"] for column in facts["columns"] if column["kind"] in ("number", "flag", "word")}
    found: dict[str, bytes] = {}
    for rule in facts["keep"]:
        if rule["column"] not in by_value:
            rule["piece"] = f"rule-{len(found)}"
            frame = clips.select(["error", rule["column"]]).to_pandas()
            passes = passing(frame, rule["column"], run.pipeline.config.keep[rule["column"]])
            found[rule["piece"]] = passes.astype(np.uint8).tobytes()
    return found


def _int32(numbers: Any) -> bytes:
    return np.asarray(numbers, "<i4").tobytes()


def _bytes(flags: pa.ChunkedArray) -> bytes:
    return bytes(flags.to_numpy().astype(np.uint8).tobytes())


def _files(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, bytes]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _files(entry, f"{prefix}{entry.name}/")
        else:
            yield f"{prefix}{entry.name}", entry.read_bytes()
