"""The plan: the clips of each shard, and the versions of a run's shards.

    shards/plan.json        version 1; when the selection grows, shards are added to it
    shards/v2/plan.json     version 2, made when a finished version would have to change; it names its parent

A finished version may have been trained on, so it only grows. When clips leave the selection, or when rows or options change, a new version is
made. Unchanged shards become links (copies on object storage) in the new version, and clips with unchanged pixels are not encoded again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from curate.config.config import ShardsConfig
from curate.errors import plain_name
from curate.run.data import RunData
from curate.run.shard_index import SCHEMA_VERSION, Plan
from curate.tables import store
from curate.tables.table import digest

PIXELS = {"mode", "tolerance_s", "audio", "crop", "short_side_px", "fps", "crf", "gop"}
"""Options of `shards:` that change the mp4 bytes."""
ELSEWHERE = {"workers", "caption", "suffix"}
"""Options of `shards:` that do not change the shards."""
BITS_PER_PIXEL = 0.2
"""For a clip of 640 x 360 pixels at CRF 18. Our choice: half of the project's footage has 0.15 to 0.25."""


def made_from(run: RunData) -> tuple[str, str]:
    """Digests of the inputs of rows and of mp4 bytes."""
    options = run.pipeline.config.shards
    embeddings = {step.spec.name for step in run.steps if step.kind == "embed"}  # in the index, not in the shards
    claims = {name: claim for name, claim in run.claims.items() if name not in embeddings}
    rows = digest([claims, options.model_dump(exclude=ELSEWHERE), SCHEMA_VERSION])
    return rows, digest([run.claims["clips"], options.model_dump(include=PIXELS), SCHEMA_VERSION])


def bring_up(run: RunData, wide: pd.DataFrame) -> Plan:
    """Updates the plan to the selection: the existing plan, the existing plan with more shards, or the plan of a new version.

    Args:
        run: The run.
        wide: The selected clips in order: `clip_id, source_id, duration_s, fps, width_px, height_px`.
    """
    root = run.shards_root()
    rows, pixels = made_from(run)
    chosen = set(wide["clip_id"])
    old = Plan.of(root) or Plan(made_from=rows, pixels=pixels)
    stays = {name: ids for name, ids in old.shards.items() if old.made_from == rows and set(ids) <= chosen}
    plan = Plan(old.version, rows, pixels, old.parent, dict(stays))
    if stays != old.shards:
        finished = store.sha256(store.join(root, "index.json"))
        if finished is not None:
            plan.version, plan.parent = old.version + 1, {"version": old.version, "sha256": finished}
    planned = {clip_id for ids in stays.values() for clip_id in ids}
    new = wide[~wide["clip_id"].isin(planned)]
    if plan == old and new.empty:
        plan.save(root)
        return plan
    number = max((int(name.removeprefix("shard-")) + 1 for name in stays), default=0)
    for n, ids in enumerate(_fill(new, run.pipeline.config.shards), start=number):
        plan.shards[f"shard-{n:05d}"] = ids
    _move_in(run, plan, old, sorted(stays))
    return plan


def _move_in(run: RunData, plan: Plan, old: Plan, stays: Sequence[str]) -> None:
    """Removes dropped shards (same version) or links kept ones (new version), then saves the plan."""
    root, before = run.shards_root(plan.version), run.shards_root(old.version)
    if root == before:
        _remove(root, sorted(set(old.shards) - set(stays)))
    else:
        for name in stays:
            receipt = store.get_json(store.join(before, f"{name}.json"))
            if receipt is not None:
                if receipt["clips"]:
                    file = plain_name(receipt["file"])
                    store.link(store.join(before, file), store.join(root, file))
                store.put_json(store.join(root, f"{name}.json"), receipt)
    plan.save(root)


def _remove(root: str, names: Sequence[str]) -> None:
    for name in names:
        store.remove(store.join(root, f"{name}.json"))  # first, because without it the shard does not count as finished
        store.remove(store.join(root, f"{name}.parquet"))


def _fill(wide: pd.DataFrame, options: ShardsConfig) -> Iterator[list[str]]:
    """The clips in order, in shards of about equal size. By the estimate only a shard of a single clip exceeds the target size."""
    if wide.empty:
        return
    sizes = [bytes_of(row, options) for row in wide.to_dict("records")]
    target = options.target_mb * 2**20
    fair = sum(sizes) / max(1, math.ceil(sum(sizes) / target))
    shard: list[str] = []
    size = total = 0.0
    n = 1
    for clip_id, estimate in zip(wide["clip_id"], sizes, strict=True):
        if shard and (size + estimate > target or total + estimate / 2 > n * fair):
            yield shard
            shard, size, n = [], 0.0, n + 1
        shard.append(clip_id)
        size += estimate
        total += estimate
    yield shard


def bytes_of(row: Any, options: ShardsConfig) -> float:
    """Estimated size of a clip in bytes. Small pictures need more bits per pixel; six steps of CRF halve the size."""
    width, height = row["width_px"], row["height_px"]
    if options.crop and row.get("crop_width_px"):
        width, height = row["crop_width_px"], row["crop_height_px"]
    scale = min(1.0, (options.short_side_px or min(width, height)) / min(width, height))
    pixels = width * height * scale**2
    bits_per_pixel = BITS_PER_PIXEL * (pixels / 230_400) ** -0.25 * 2 ** ((18 - options.crf) / 6)
    return float(pixels * bits_per_pixel / 8 * (options.fps or row["fps"] or 25.0) * row["duration_s"])


def forget_left_out(run: RunData) -> None:
    """Removes the clips that could not be written from the plan, so that the next run retries them in new shards."""
    root = run.shards_root()
    plan = Plan.of(root)
    if plan is None:
        return
    tried = {item["clip_id"] for item in left_out(root, plan)}
    if tried:
        good = {name: [i for i in ids if i not in tried] for name, ids in plan.shards.items()}
        _remove(root, [name for name, ids in good.items() if not ids])
        plan.shards = {name: ids for name, ids in good.items() if ids}
        plan.save(root)


def left_out(root: str, plan: Plan) -> list[dict[str, Any]]:
    """The clips of the plan that could not be written, with `clip_id, seconds, error`."""
    found = []
    for name, ids in plan.shards.items():
        receipt = store.get_json(store.join(root, f"{name}.json"))
        found += [item for item in (receipt or {}).get("left_out", []) if item["clip_id"] in ids]
    return found


def spoil(root: str, files: Sequence[str]) -> None:
    """Removes shards by file name, so that the next run writes them again."""
    _remove(root, [name.removesuffix(".parquet") for name in files])


def forget(run: RunData, tables: Sequence[str]) -> None:
    """Marks rows of these tables as recomputed, so that the next version does not reuse existing shards."""
    root = run.shards_root()
    plan = Plan.of(root)
    if plan is not None:
        plan.made_from = None
        if {"sources", "clips"} & set(tables):
            plan.pixels = None
        plan.save(root)
