"""Fault injection: every Python process of a disturbed run imports this file first and reads from $RUSHES_FAULTS which faults to inject.

The file that $RUSHES_FAULTS names is JSON, read again at every event, so that one Ray cluster serves many scenarios:

    run             only this run directory is affected
    log             where every event is appended: begin and end of a unit, put of a file, receipt received by the driver
    unit_s          delay per unit: without it small footage is done before a fault could be injected
    put_s           delay per put: a slow disk
    decoder         {"how": "segfault" | "hang" | "memory", "source": part of its path, "times": n, "folder": where it counts}
    clock           seconds by which the driver's clock jumps, back and forth, at every tenth time it is read
    seconds_per_unit, files_per_probe    how large the units of the scan and the probe are: half a minute of footage makes several

The product contains none of this: modules of `curate` are patched after import.
"""

import importlib.abc
import importlib.machinery
import json
import os
import sys
import time


def asked():
    """The faults to inject now; may be empty."""
    try:
        with open(os.environ["RUSHES_FAULTS"]) as file:
            return json.load(file)
    except (KeyError, OSError, ValueError):
        return {}


def note(what, **more):
    """Appends one event to the log."""
    if path := asked().get("log"):
        line = json.dumps({"what": what, "t": time.monotonic(), "pid": os.getpid(), **more}) + "\n"
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.write(handle, line.encode())
        os.close(handle)


def is_ours(root):
    run = asked().get("run")
    return run is not None and str(root).startswith(run)


def _around_work(kind, cls, root_of, items_of):
    inside = cls.work

    def work(self, unit):
        if not is_ours(root_of(self)):
            return inside(self, unit)
        items = items_of(self, unit)
        note("begin", kind=kind, items=items)
        time.sleep(asked().get("unit_s", 0.0))
        receipt = inside(self, unit)
        note("end", kind=kind, items=items)
        return receipt

    cls.work = work


def _clips_of(job, unit):
    names = ",".join(task.spec.name for task in job.tasks)
    return [f"{names}:{clip_id}" for ids in unit.parts.values() for clip_id in ids]


def curate_source_jobs(module):
    table = lambda job: job.table.root  # noqa: E731
    _around_work("probe", module.ProbeJob, table, lambda _, unit: [f"probe:{uri}" for uri, _ in unit.files])
    windows = lambda _, unit: [f"scan:{w['uri']}:{w['window']}" for w in unit.windows]  # noqa: E731
    _around_work("scan", module.ScanJob, table, windows)


def curate_stage_jobs(module):
    _around_work("stage", module.StageJob, lambda job: job.clips.root, _clips_of)


def curate_shard_job(module):
    _around_work("shard", module.ShardJob, lambda job: job.root, lambda _, unit: [f"shard:{unit.shard}"])


def curate_store(module):
    inside = module.put

    def put(uri, data, **more):
        if not is_ours(uri):
            return inside(uri, data, **more)
        time.sleep(asked().get("put_s", 0.0))
        done = inside(uri, data, **more)
        note("put", uri=uri)
        return done

    module.put = put


def curate_progress(module):
    inside = module.StepProgress.advance

    def advance(self, receipt):
        note("receipt")
        return inside(self, receipt)

    module.StepProgress.advance = advance


def begin_driver():
    """Patches that cannot wait for an event: called in the driver's process before the command."""
    jump_clock()
    from curate.pipeline import plan

    plan.SECONDS_PER_UNIT = asked().get("seconds_per_unit", plan.SECONDS_PER_UNIT)
    plan.FILES_PER_PROBE = asked().get("files_per_probe", plan.FILES_PER_PROBE)


def curate_scan(module):
    inside = module.scan_window

    def scan_window(uri, *more):
        misbehave(uri)
        return inside(uri, *more)

    scan_window.__qualname__, scan_window.__module__ = inside.__qualname__, inside.__module__
    module.scan_window = scan_window


def misbehave(uri):
    """Makes the decoder crash, hang or eat memory on one source, a given number of times."""
    fault = asked().get("decoder")
    if not fault or fault["source"] not in uri:
        return
    for turn in range(fault["times"]):
        try:
            os.close(os.open(os.path.join(fault["folder"], f"bad-{turn}"), os.O_CREAT | os.O_EXCL))
            break
        except FileExistsError:
            continue
    else:
        return
    note("decoder", how=fault["how"])
    if fault["how"] == "segfault":
        os.kill(os.getpid(), 11)
    elif fault["how"] == "hang":
        time.sleep(3600)
    else:
        held = []
        while True:
            held.append(bytearray(os.urandom(2**20)) * 64)


def jump_clock():
    """Wall clock time jumps an hour forward and back in this process, as when a clock is set; monotonic time is unaffected."""
    jump_s = asked().get("clock", 0.0)
    if not jump_s:
        return
    true, read = time.time, [0]

    def jumping():
        read[0] += 1
        return true() + (jump_s if read[0] // 10 % 2 else -jump_s)

    time.time = jumping


CHANGED = {
    "curate.pipeline.source_jobs": curate_source_jobs,
    "curate.pipeline.stage_jobs": curate_stage_jobs,
    "curate.shards.job": curate_shard_job,
    "curate.tables.store": curate_store,
    "curate.progress.progress": curate_progress,
    "curate.scan.scan": curate_scan,
}


class After(importlib.abc.MetaPathFinder):
    """Patches modules of `curate` after their import."""

    def find_spec(self, name, path=None, target=None):
        if name not in CHANGED:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        inside = spec.loader.exec_module

        def exec_module(module):
            inside(module)
            CHANGED[name](module)

        spec.loader.exec_module = exec_module
        return spec


if "RUSHES_FAULTS" in os.environ:
    sys.meta_path.insert(0, After())
