"""The search index: a LanceDB table over the clips in the shards, with captions, scores, vectors, a small picture, shard and row.

    index.lance/_claim.json     its inputs: shards by sha256, stages of the vectors, FORMAT
    index.lance/clips.lance     the table; a tag such as `shards-v1` for every version of the shards opens it as it was then

New shards are added and removed shards deleted; any other change (stages, columns, format) rebuilds the table.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
"""Format of the table; an index of another format is rebuilt."""
PICTURE_PX = 160
"""Short side of the first thumbnail, kept as JPEG in the column `picture`. Ours."""
VECTOR_INDEX_ROWS = 100_000
"""Minimum number of clips for a vector index (IVF_HNSW_SQ); fewer are compared exactly. Ours, see benchmarks/shards.py."""
GOOD_COSINE = {"filters.Conse": 0.35, "annotate.MiniLM": 0.27}
"""Stage to the minimum similarity of a clear hit for words. Ours, from 12 texts that fit a clip of the demo's run and 12 that fit none (the same
texts set the limit, so it is a hint): the best hit reached it for 8 and 2 of 12 (Conse), for 6 and 2 of 12 (MiniLM)."""
By = Literal["auto", "caption", "picture", "words"]


def is_current(run: RunData) -> bool:
    """Whether the index was built from the current shards."""
    return bool(store.get_json(run.path("index.lance", CLAIM)) == _claim(run))


def build(run: RunData) -> None:
    """Updates the index to the shards, without reading mp4 bytes. Raises RunError when the run has no finished shards."""
    index = run.index()
    if index is None:
        raise RunError(f"{run.root} has no finished shards to index")
    claim, old = _claim(run), store.get_json(run.path("index.lance", CLAIM))
    store.remove(run.path("index.lance", CLAIM))  # until it is complete again
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
    """The clips most similar to a text, a clip or a picture, best first.

    Args:
        run: The run.
        words: A text; or
        clip: the id of a clip; or
        image: a picture file. Without any of the three, clips in the order of the shards.
        by: What is compared. `caption`: embeddings of the captions (MiniLM). `picture`: embeddings of the frames (OpenClip, else Conse).
            `words`: full text of the captions (BM25). `auto`: `picture` where the run has vectors of its frames, else `caption`, else `words`.
        where: A condition on the clips (curate/tables/where.py).
        limit: Maximum number of clips.
        version: Version of the shards; None: the newest.

    Returns one dict per clip: its columns without vectors and picture, `score` (cosine similarity, or BM25) and `ranked_by`.

    Raises UsageError without an index, without vectors to compare, for an unknown clip, picture or version, and for a malformed condition.
    """
    if sum(given is not None for given in (words, clip, image)) > 1:
        raise UsageError("search by words, by a clip or by a picture, one at a time")
    if words is not None and not words.strip():
        raise UsageError("the text to search for is empty")
    table = _table(run, version)
    types = {field.name: field.type for field in table.schema}
    sql = parse_where(where, types).sql if where else None
    if words is None and clip is None and image is None:
        return _in_order(table, types, sql, limit)
    step = _compared(run, by, _vector_columns(types), types, for_words=words is not None)
    if step is None:
        return _by_full_text(run, table, str(words), types, sql, limit)
    column = getattr(step.stage, "searched", step.columns[0])
    if clip is not None:
        vector = _of_clip(table, clip, column)
        sql = f"clip_id != '{clip}'" + (f" AND {sql}" if sql else "")
    else:
        vector = _of_query(step, words, image)
    query = table.search(vector, vector_column_name=column).distance_type("cosine").limit(limit)
    hits = (query.where(sql) if sql else query).select([*_shown(types), "_distance"]).to_list()
    return [_hit(row, 1.0 - row.pop("_distance"), step.spec.name) for row in hits]


def columns(run: RunData, version: int | None = None) -> list[str]:
    """The keys of a row that `search` returns, whether or not anything matches."""
    return [*_shown({field.name: field.type for field in _table(run, version).schema}), "score", "ranked_by"]


def _hit(row: dict[str, Any], score: float | None, ranked_by: str) -> dict[str, Any]:
    return {**row, "score": score, "ranked_by": ranked_by}


def _vector_columns(types: Mapping[str, pa.DataType]) -> set[str]:
    return {
        name
        for name, kind in types.items()
        if pa.types.is_fixed_size_list(kind) and pa.types.is_floating(kind.value_type)
    }


def _shown(types: Mapping[str, pa.DataType]) -> list[str]:
    """The columns of the table without vectors and picture."""
    vectors = _vector_columns(types)
    return [name for name in types if name not in vectors and name != "picture"]


def _in_order(table: Any, types: Mapping[str, pa.DataType], sql: str | None, limit: int) -> list[dict[str, Any]]:
    """Clips that match a condition, in the order of the shards."""
    query = table.search()
    rows = (query.where(sql) if sql else query).select(_shown(types)).limit(limit).to_list()
    return [_hit(row, None, "order") for row in rows]


def _by_full_text(
    run: RunData, table: Any, words: str, types: Mapping[str, pa.DataType], sql: str | None, limit: int
) -> list[dict[str, Any]]:
    """Clips whose captions contain the words, best BM25 score first."""
    query = table.search(_full_text(run, words, types), query_type="fts")
    found = (query.where(sql) if sql else query).select([*_shown(types), "_score"]).limit(limit).to_list()
    return [_hit(row, row.pop("_score"), "full text") for row in found]


def poor_fit(run: RunData, hits: Sequence[Mapping[str, Any]]) -> str | None:
    """A sentence when no hit of a search by words is clear (GOOD_COSINE of the stage that ranked them); None otherwise."""
    if not hits:
        return None
    uses = {step.spec.name: step.spec.use for step in run.steps}
    limit = GOOD_COSINE.get(uses.get(str(hits[0]["ranked_by"]), ""))
    best = hits[0]["score"]
    if limit is None or best is None or best >= limit:
        return None
    return f"no clip fits well: the best similarity is {best:.2f}, and hits below {limit:g} are often unrelated"


def _compared(run: RunData, by: By, vectors: set[str], types: Mapping[str, Any], for_words: bool) -> Step | None:
    """The stage whose vectors are compared; None for full text. Raises UsageError when the run has no such vectors."""
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
    """The vector of a text or of a picture."""
    if words is not None:
        built, _ = stage.located(step.spec)
        if hasattr(built, "embed_queries"):  # without setup: a search need not import torch
            return built.embed_queries([words])[0]
        return stage.ready(step.spec).embed_texts([words])[0]
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
    if (
        run.root.startswith("s3://") and endpoint
    ):  # the variables with which botocore, and so fsspec, is pointed at another server
        options = {"endpoint": endpoint, "allow_http": str(endpoint.startswith("http://")).lower()}
    return lancedb.connect(run.path("index.lance"), storage_options=options or None)


def _opened(run: RunData) -> Any:
    """The table, or None when this version of LanceDB cannot read it."""
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
                f"the index of {run.root} has no version {version} of the shards{nearest(str(version), known)}"
            )
        table.checkout(f"shards-v{version}")
    return table


def _index_columns(run: RunData, table: Any) -> None:
    """Creates full-text indexes of the captions, and vector indexes from VECTOR_INDEX_ROWS clips on."""
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
    """The caption column of every captioner; `caption` where there is one captioner."""
    named = [step.names["caption"] for step in run.steps if step.kind == "caption" and "caption" in step.names]
    words = named if len(named) > 1 else ["caption"]
    return [name for name in words if name in there]


def _rows_of(run: RunData, file: str, vectors: Mapping[str, tuple[pa.Array, pa.Array]]) -> pa.Table:
    """The rows of one shard: its columns without mp4, shard and row, a small picture, and vectors."""
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
    """Column to clip ids and vectors. A clip without a vector (its stage failed) is never a hit."""
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
