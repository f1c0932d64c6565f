"""The search index: one LanceDB table over the clips in the shards: caption, scores, shard coordinates and, if any, an embedding.

`search` ranks by the distance of embeddings when the pipeline has an `embed:` stage, else by full text over the captions.
"""

from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from curate import stage, store
from curate.errors import RunError, UsageError
from curate.run import Run
from curate.table import digest

TABLE = "clips"
CLAIM = "_claim.json"


def is_current(run: Run) -> bool:
    """Whether the index was built from the shards as they are."""
    return bool(store.get_json(run.path("index.lance", CLAIM)) == _claim(run))


def build(run: Run) -> None:
    """Builds the index anew from the shards' columns (the mp4 bytes are not read)."""
    import lancedb

    index = run.index()
    if index is None:
        raise RunError(f"{run.root} has no finished shards to index")
    store.remove(run.path("index.lance"))
    tables = []
    for shard in index["shards"]:
        with store.open_read(store.join(run.shards_root(), shard["file"])) as file:
            parquet = pq.ParquetFile(file)
            rows = parquet.read([name for name in parquet.schema_arrow.names if name != "mp4"])
        rows = rows.append_column("shard", pa.array([shard["file"]] * len(rows)))
        tables.append(rows.append_column("row", pa.array(range(len(rows)), pa.int32())))
    if tables:
        table = _with_embedding(run, pa.concat_tables(tables))
        made = lancedb.connect(run.path("index.lance")).create_table(TABLE, table)
        if "caption" in table.column_names:
            from lancedb.index import FTS

            made.create_index("caption", config=FTS())
    store.put_json(run.path("index.lance", CLAIM), _claim(run))


def search(run: Run, words: str, limit: int = 10) -> list[dict[str, Any]]:
    """The clips nearest to `words`, best first, each with `score` (cosine similarity, or BM25 without embeddings) and `ranked_by`.

    Raises UsageError when there is no index, no caption to search, or nothing to search for.
    """
    import lancedb

    if not words.strip():
        raise UsageError("there is nothing to search for")
    if store.get_json(run.path("index.lance", CLAIM)) is None:
        raise UsageError(f"{run.root} has no index yet; finish the run first:  rushes run")
    database = lancedb.connect(run.path("index.lance"))
    try:
        table = database.open_table(TABLE)
    except (ValueError, FileNotFoundError) as error:
        raise UsageError(f"no clip of {run.root} was kept, so there is nothing to search") from error
    step = next((s for s in run.steps if s.kind == "embed"), None)
    if step is not None and step.columns[0] in table.schema.names:
        vector = stage.ready(step.spec).embed_texts([words])[0]
        query = table.search(vector, vector_column_name=step.columns[0]).distance_type("cosine").limit(limit)
        hits = [{**row, "score": 1.0 - row.pop("_distance"), "ranked_by": step.spec.name} for row in query.to_list()]
        return [{key: value for key, value in hit.items() if key != step.columns[0]} for hit in hits]
    if "caption" not in table.schema.names:
        raise UsageError(
            f"the clips of {run.root} have neither captions nor embeddings; add `caption:` to the pipeline and run it again"
        )
    found = table.search(words, query_type="fts", fts_columns="caption").limit(limit).to_list()
    return [{**row, "score": row.pop("_score"), "ranked_by": "full text"} for row in found]


def _with_embedding(run: Run, table: pa.Table) -> pa.Table:
    """Joins the embeddings. A clip without one (its stage failed) is in the shards but not found by vector search."""
    for step in (s for s in run.steps if s.kind == "embed"):
        rows = {row["clip_id"]: row[step.columns[0]] for row in step.table.read([step.columns[0]]).to_pylist()}
        field = step.table.schema.field(step.columns[0])
        table = table.append_column(
            field, pa.array([rows.get(clip_id) for clip_id in table.column("clip_id").to_pylist()], field.type)
        )
    return table


def _claim(run: Run) -> dict[str, Any]:
    index = run.index() or {}
    embedded = [run.claims[step.spec.name] for step in run.steps if step.kind == "embed"]
    return cast(
        dict[str, Any],
        {"shards": digest([shard["sha256"] for shard in index.get("shards", [])]), "embedded": digest(embedded)},
    )
