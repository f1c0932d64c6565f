"""A training on the workers of a Ray cluster, through Ray Train: each is a rank. When one dies, all resume at the last checkpoint."""

import shutil
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from train_hooks.errors import RecipeError, TrainError
from train_hooks.out_folder import check_out, clear
from train_hooks.recipe_files import load_recipe, whole_name
from train_hooks.train import TrainResult, result_of, train

ENDING_S = 60.0  # for the workers to end after one of them reported an error; ours
LISTEN_S = 0.5  # between two polls of the first rank's lines; ours


def train_on_ray(
    recipe: str,
    shards: str | Path,
    out: Path,
    overrides: Mapping[str, str],
    workers: int,
    gpus_per_worker: float = 1.0,
    say: Callable[[str], None] = print,
    max_failures: int = 3,
    *,
    restart: bool = False,
    **options: Any,
) -> TrainResult:
    """Trains on `workers` Ray workers; Ray must be initialised.

    Args:
        recipe, shards, out, overrides, options: as `train`. `out` and the shards must be what every worker sees under the same name.
        workers: ranks.
        gpus_per_worker: GPUs of each; 0 trains on the CPU.
        say: receives the first rank's lines.
        max_failures: how many worker failures are tolerated.
        restart: removes what is in `out` first, once.

    Raises what `train` raises, and TrainError when workers died too often or the cluster has not got what is asked for.
    """
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    load_recipe(recipe, overrides)
    check_out(out)
    there = ray.cluster_resources()
    if there.get("GPU", 0) < workers * gpus_per_worker or there.get("CPU", 0) < workers:
        asked = f"{workers} workers with {gpus_per_worker:g} GPU each"
        raise TrainError(
            f"{asked} are asked for, and this Ray cluster has {there.get('CPU', 0):g} CPU and {there.get('GPU', 0):g} GPU"
        )
    out = out.absolute()
    if restart:
        clear(out)
    local = Path(str(shards))
    inbox = ray.remote(num_cpus=0)(_Inbox).remote()
    config = {
        "ear": inbox,
        "call": {
            "recipe": whole_name(recipe),
            "shards": str(local.absolute()) if local.exists() else str(shards),
            "out": str(out), "overrides": dict(overrides), **options, "clips": _absolute(options.get("clips")),
        },
    }  # fmt: skip
    own = out.parent / f".{out.name}.ray"
    each = {"CPU": 1.0, **({"GPU": gpus_per_worker} if gpus_per_worker else {})}
    trainer = TorchTrainer(
        _worker,
        train_loop_config=config,
        torch_config=TorchConfig(backend="nccl" if gpus_per_worker else "gloo"),
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpus_per_worker > 0, resources_per_worker=each),
        run_config=RunConfig(name=uuid4().hex, storage_path=str(own), failure_config=FailureConfig(max_failures=max_failures)),
    )  # fmt: skip
    failure: list[BaseException] = []

    def fit() -> None:
        try:
            trainer.fit()
        except BaseException as error:  # raised below, in the polling thread
            failure.append(error)

    fitting = threading.Thread(target=fit, daemon=True)
    fitting.start()
    try:
        while True:
            alive = fitting.is_alive()
            lines, wrong = ray.get(inbox.take.remote())
            for line in lines:
                say(line)
            if wrong is not None:
                fitting.join(ENDING_S)
                kind, sentence = wrong
                raise (RecipeError if kind == "RecipeError" else TrainError)(sentence)
            if not alive:
                break
            time.sleep(LISTEN_S)
    finally:
        shutil.rmtree(own, ignore_errors=True)
    if failure:
        message = str(failure[0]).strip().splitlines() or [type(failure[0]).__name__]
        raise TrainError(
            f"Ray Train gave up after {max_failures} failures: {message[-1]}; {out} has the last checkpoint"
        )
    return result_of(out)


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else path.absolute()


class _Inbox:
    """An actor that keeps the workers' lines until the driver takes them."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._wrong: tuple[str, str] | None = None

    def say(self, line: str) -> None:
        self._lines.append(line)

    def fail(self, kind: str, sentence: str) -> None:
        self._wrong = kind, sentence

    def flush(self) -> None:
        """Ray runs the calls of one caller in order: when this one returns, the earlier ones are done."""

    def take(self) -> tuple[list[str], tuple[str, str] | None]:
        lines, self._lines = self._lines, []
        return lines, self._wrong


def _worker(config: dict[str, Any]) -> None:
    """One rank. An error in the recipe or the data is reported and not retried; only a dead worker is restarted."""
    import ray

    inbox, call = config["ear"], dict(config["call"])
    try:
        train(
            call.pop("recipe"),
            call.pop("shards"),
            Path(call.pop("out")),
            call.pop("overrides"),
            lambda line: inbox.say.remote(line),
            **call,
        )
    except (RecipeError, TrainError) as error:
        ray.get(inbox.fail.remote(type(error).__name__, str(error)))
    ray.get(inbox.flush.remote())  # Ray ends a worker that has returned, possibly before its last lines were sent
