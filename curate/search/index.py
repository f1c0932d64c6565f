"""The search index: one LanceDB table over the clips in the shards: captions, scores, vectors, a small picture, and where they lie.

    index.lance/_claim.json     what it was built from: shards by sha256, stages of the vectors, this code's format
    index.lance/clips.lance     the table; for every version of the shards a tag `shards-v1`, by which it can be opened as it was then

Shards that are new are added, shards that are gone are taken out; anything else that changed (stages, columns, the format) builds it anew.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from curate.errors import RunError, UsageError, nearest
from curate.run.data import RunData
from curate.run.steps import Step
from curate.stages import stage
from curate.tables import store
from curate.tables.table import digest
from curate.tables.where import parse as parse_where

TABLE = "clips"
CLAIM = "_claim.json"
FORMAT = 2
"""Raised when the table's make-up changes: an index of another format is built anew."""
PICTURE_PX = 160
"""Short side of the first thumbnail, kept as JPEG in the column `picture`. Ours."""
VECTOR_INDEX_ROWS = 100_000
"""From so many clips on vectors get an index (IVF_HNSW_SQ); below, all are compared, exactly. Ours, see benchmarks/shards.py."""
By = Literal["auto", "caption", "picture", "words"]


def is_current(run: RunData) -> bool:
    """Whether the index was built from the shards as they are."""
    return bool(store.get_json(run.path("index.lance", CLAIM)) == _claim(run))


def build(run: RunData) -> None:
    """Brings the index up to the shards (the mp4 bytes are not read). Raises RunError when there are none."""
    index = run.index()
    if index is None:
        raise RunError(f"{run.root} has no finished shards to index")
    claim, old = _claim(run), store.get_json(run.path("index.lance", CLAIM))
    store.remove(run.path("index.lance", CLAIM))  # until it is whole again
    table = _opened(run) if old is not None and {**old, "shards": claim["shards"]} == claim else None
    there: Mapping[str, str] = old["shards"] if old is not None and table is not None else {}
    if table is None:
        store.remove(run.path("index.lance"))
    elif gone := [file for file, sha256 in there.items() if claim["shards"].get(file) != sha256]:
        table.delete(f"shard IN ({', '.join(repr(file) for file in gone)})")
    new = [file for file, sha256 in claim["shards"].items() if there.get(file) != sha256]
    vectors = _vectors(run) if new else {}
    for file in new:
        rows = _rows_of(run, file, vectors)
        if table is None:
            table = _connect(run).create_table(TABLE, rows)
        else:
            table.add(rows)
    if table is not None:
        _index_columns(run, table)
        tag = f"shards-v{index['version']}"
        (table.tags.update if tag in table.tags.list() else table.tags.create)(tag, table.version)
    store.put_json(run.path("index.lance", CLAIM), claim)


def search(
    run: RunData,
    words: str | None = None,
    *,
    clip: str | None = None,
    image: str | None = None,
    by: By = "auto",
    where: str | None = None,
    limit: int = 10,
    version: int | None = None,
) -> list[dict[str, Any]]:
    """The clips nearest to some words, to a clip or to a picture, best first.

    Args:
        run: The run.
        words: What to look for, or
        clip: the id of a clip, or
        image: a picture's file. Without any of the three, clips in the order of the shards.
        by: What is compared. `caption`: embeddings of the captions (MiniLM). `picture`: embeddings of the frames (OpenClip, else Conse).
            `words`: full text of the captions (BM25). `auto`: `picture` where the run has vectors of its frames, else `caption`, else `words`.
        where: Which clips are looked at (curate/tables/where.py).
        limit: How many clips.
        version: Of the shards; left out, the newest.

    Returns one dict per clip: its columns without vectors and picture, `score` (cosine similarity, or BM25) and `ranked_by`.

    Raises UsageError when there is no index, no column to compare, no such clip, picture or version, or when the condition is malformed.
    """
    _check_query(words, clip, image)
    table = _table(run, version)
    types = {field.name: field.type for field in table.schema}
    vectors = {name for name, kind in types.items() if _is_vector(kind)}
    sql = parse_where(where, types).sql if where else None
    columns = [name for name in types if name not in vectors and name != "picture"]
    if words is None and clip is None and image is None:
        query = table.search()
        rows = (query.where(sql) if sql else query).select(columns).limit(limit).to_list()
        return [{**row, "score": None, "ranked_by": "order"} for row in rows]
    step = _compared(run, by, vectors, types, for_words=words is not None)
    if step is None:
        query = table.search(_full_text(run, str(words), types), query_type="fts")
        found = (query.where(sql) if sql else query).select([*columns, "_score"]).limit(limit).to_list()
        return [{**row, "score": row.pop("_score"), "ranked_by": "full text"} for row in found]
    column = getattr(step.stage, "searched", step.columns[0])
    if clip is not None:
        vector = _of_clip(table, clip, column)
        sql = f"clip_id != '{clip}'" + (f" AND {sql}" if sql else "")
    else:
        vector = _of_query(step, words, image)
    query = table.search(vector, vector_column_name=column).distance_type("cosine").limit(limit)
    hits = (query.where(sql) if sql else query).select([*columns, "_distance"]).to_list()
    return [{**row, "score": 1.0 - row.pop("_distance"), "ranked_by": step.spec.name} for row in hits]


def _check_query(words: str | None, clip: str | None, image: str | None) -> None:
    """Raises UsageError for more than one query, or an empty one."""
    if sum(given is not None for given in (words, clip, image)) > 1:
        raise UsageError("search by words, by a clip or by a picture, one at a time")
    if words is not None and not words.strip():
        raise UsageError("there is nothing to search for")


def hit_columns(run: RunData, version: int | None = None) -> list[str]:
    """The keys of every hit of `search`, which an empty result has as columns too."""
    schema = _table(run, version).schema
    return [
        *(field.name for field in schema if not _is_vector(field.type) and field.name != "picture"),
        "score",
        "ranked_by",
    ]


def _is_vector(kind: pa.DataType) -> bool:
    return bool(pa.types.is_fixed_size_list(kind) and pa.types.is_floating(kind.value_type))


def _compared(run: RunData, by: By, vectors: set[str], types: Mapping[str, Any], for_words: bool) -> Step | None:
    """The stage whose vectors are compared; None for full text. Raises UsageError when the run has nothing of the kind."""
    captions = next((s for s in run.steps if s.kind == "embed" and s.columns[0] in vectors), None)
    pictures = [s for s in run.steps if getattr(s.stage, "searched", None) in vectors]
    picture = min(pictures, key=lambda s: s.spec.use != "filters.OpenClip", default=None)
    has_words = "caption" in types
    if by == "auto":
        by = "picture" if picture or not for_words else "caption" if captions else "words"
    match by:
        case "caption" if not for_words:
            raise UsageError("captions are compared with words; a clip or a picture is searched --by picture")
        case "caption" if captions is None:
            raise UsageError(
                f"the captions of {run.root} have no vectors; add `embed: {{use: annotate.MiniLM}}` to the pipeline"
            )
        case "caption":
            return captions
        case "picture" if picture is None:
            raise UsageError(
                f"the frames of {run.root} have no vectors; add filters.OpenClip or filters.Conse to `measure:`"
            )
        case "picture":
            return picture
    if not for_words or not has_words:
        lacking = "neither captions nor embeddings; add `caption:` to the pipeline and run it again"
        raise UsageError(f"the clips of {run.root} have {lacking}" if for_words else "full text is searched by words")
    return None


def _full_text(run: RunData, words: str, types: Mapping[str, Any]) -> Any:
    from lancedb.query import MatchQuery, MultiMatchQuery

    captions = _caption_columns(run, types)
    return MatchQuery(words, captions[0]) if len(captions) == 1 else MultiMatchQuery(words, captions)


def _of_clip(table: Any, clip_id: str, column: str) -> Any:
    if not re.fullmatch(r"[0-9A-Za-z_-]+", clip_id):
        raise UsageError(f"'{clip_id}' is not the id of a clip")
    rows = table.search().where(f"clip_id = '{clip_id}'").select([column]).limit(1).to_list()
    if not rows:
        raise UsageError(f"there is no clip '{clip_id}' in the shards")
    if rows[0][column] is None:
        raise UsageError(f"clip {clip_id} has no vector to compare others with")
    return rows[0][column]


def _of_query(step: Step, words: str | None, image: str | None) -> Any:
    """The vector of some words or of a picture."""
    if words is not None:
        return stage.ready(step.spec, for_texts=True).embed_texts([words])[0]
    picture = cv2.imdecode(np.frombuffer(_bytes_of(str(image)), np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise UsageError(f"'{image}' is not a picture that can be read")
    return stage.ready(step.spec).embed_images([np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)])[0]


def _bytes_of(image: str) -> bytes:
    try:
        data = store.get(image)
    except OSError as error:
        raise UsageError(f"there is no picture '{image}'") from error
    if not data:
        raise UsageError(f"'{image}' is empty")
    return data


# -- the table


def _connect(run: RunData) -> Any:
    import lancedb

    options = {}
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if run.root.startswith("s3://") and endpoint:  # as botocore, and so fsspec, is told of a server of one's own
        options = {"endpoint": endpoint, "allow_http": str(endpoint.startswith("http://")).lower()}
    return lancedb.connect(run.path("index.lance"), storage_options=options or None)


def _opened(run: RunData) -> Any:
    """The table, or None where there is none that this version of LanceDB can read."""
    try:
        table = _connect(run).open_table(TABLE)
        table.count_rows()
    except (ValueError, OSError, RuntimeError):
        return None
    return table


def _table(run: RunData, version: int | None) -> Any:
    if store.get_json(run.path("index.lance", CLAIM)) is None:
        raise UsageError(f"{run.root} has no index yet; finish the run first:  rushes run")
    table = _opened(run)
    if table is None or (version is None and not table.count_rows()):
        raise UsageError(f"no clip of {run.root} was kept, so there is nothing to search")
    if version is not None:
        tags = table.tags.list()
        if f"shards-v{version}" not in tags:
            known = [name.removeprefix("shards-v") for name in tags]
            raise UsageError(
                f"the index of {run.root} knows no version {version} of the shards{nearest(str(version), known)}"
            )
        table.checkout(f"shards-v{version}")
    return table


def _index_columns(run: RunData, table: Any) -> None:
    """Full text over the captions, and vectors where there are many."""
    from lancedb.index import FTS, HnswSq

    there = {column for index in table.list_indices() for column in index.columns}
    n_rows = table.count_rows()
    for name in _caption_columns(run, table.schema.names):
        if name not in there:
            table.create_index(name, config=FTS())
    for field in table.schema:
        if pa.types.is_fixed_size_list(field.type) and n_rows >= VECTOR_INDEX_ROWS and field.name not in there:
            table.create_index(field.name, config=HnswSq(distance_type="cosine"))
    table.optimize()


def _caption_columns(run: RunData, there: Iterable[str]) -> list[str]:
    """Every captioner's words; `caption` alone where there is one captioner."""
    named = [step.names["caption"] for step in run.steps if step.kind == "caption" and "caption" in step.names]
    words = named if len(named) > 1 else ["caption"]
    return [name for name in words if name in there]


def _rows_of(run: RunData, file: str, vectors: Mapping[str, tuple[pa.Array, pa.Array]]) -> pa.Table:
    """The rows of one shard: its columns, where they lie, a small picture, and vectors."""
    with store.open_arrow(store.join(run.shards_root(), file)) as handle:
        parquet = pq.ParquetFile(handle)
        rows = parquet.read([name for name in parquet.schema_arrow.names if name != "mp4" and name not in vectors])
    ids = rows.column("clip_id").combine_chunks()
    clip_ids = ids.to_pylist()
    rows = rows.append_column("shard", pa.array([file] * len(rows)))
    rows = rows.append_column("row", pa.array(range(len(rows)), pa.int32()))
    pictures = dict(_pictures(run, set(clip_ids)))
    rows = rows.append_column("picture", pa.array([pictures.get(clip_id) for clip_id in clip_ids], pa.binary()))
    for name, (known, values) in vectors.items():
        rows = rows.append_column(name, values.take(pc.index_in(ids, known)))
    return rows


def _pictures(run: RunData, clip_ids: set[str]) -> Iterator[tuple[str, bytes]]:
    """The first thumbnail of each clip, small."""
    for clip_id, jpegs in run.thumbnails(clip_ids):
        picture = cv2.imdecode(np.frombuffer(jpegs[0], np.uint8), cv2.IMREAD_COLOR)
        if picture is not None:
            yield clip_id, _small(np.asarray(picture, np.uint8))


def _small(picture_HWC: NDArray[np.uint8]) -> bytes:
    scale = min(1.0, PICTURE_PX / min(picture_HWC.shape[:2]))
    size_px = round(picture_HWC.shape[1] * scale), round(picture_HWC.shape[0] * scale)
    small = cv2.resize(picture_HWC, size_px, interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()


def _searched(run: RunData) -> dict[str, Step]:
    """Vector columns of the index, each with its stage."""
    found = {s.columns[0]: s for s in run.steps if s.kind == "embed"}
    return found | {s.stage.searched: s for s in run.steps if getattr(s.stage, "searched", None) in s.columns}


def _vectors(run: RunData) -> dict[str, tuple[pa.Array, pa.Array]]:
    """Column to clip ids and their vectors. A clip without one (its stage failed) is not found by it."""
    found = {}
    for name, step in _searched(run).items():
        rows = step.table.read([name]).combine_chunks()
        found[name] = tuple(
            column.chunk(0) if column.num_chunks else pa.array([], column.type)
            for column in (rows.column("clip_id"), rows.column(name))
        )
    return found


def _claim(run: RunData) -> dict[str, Any]:
    index = run.index() or {}
    stages = {name: run.claims[step.spec.name] for name, step in _searched(run).items()}
    return {
        "format": FORMAT,
        "shards": {shard["file"]: shard["sha256"] for shard in index.get("shards", [])},
        "columns": digest(index.get("columns")),
        "vectors": digest(stages),
    }
