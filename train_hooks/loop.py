"""The training loop, top to bottom: chunks -> latents and conditions -> noise -> loss -> gradients of all ranks -> AdamW.

Every random number is a function of (seed, step, place in the batch), so a resumed training equals the uninterrupted one, on any number of
ranks. Compare only the losses of the fixed grid (`heldout.py`): the loss of one step depends on its clips and noise levels.

| fault | reaction |
|---|---|
| a loss or a gradient is not finite | the step is skipped, its clips are named; after `BAD_IN_A_ROW` the training stops |
| a clip cannot be decoded | another clip is used and reported; beyond `max_broken_share` of all clips the training stops |
| memory runs out | this rank halves the bucket's micro-batch from then on; the batch size is unchanged |
| torch.compile fails | one sentence; the newest checkpoint stays |
| SIGTERM, Ctrl-C | the step is finished and a checkpoint saved |
"""

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from train_hooks import trainable
from train_hooks.checkpoint import Checkpoint, Checkpoints, optimizer_tensors, restore_optimizer
from train_hooks.errors import TrainError
from train_hooks.fast import compile_blocks, compiler_errors
from train_hooks.feed import Chunk, Feed, Loaded
from train_hooks.heldout import grid_loss, make_grid, temporal_share
from train_hooks.loader import Loader
from train_hooks.machine import Machine
from train_hooks.metrics import CLIP_LOSSES, METRICS, ClipLosses, Metrics, as_parquet
from train_hooks.micro_batch import Tally, Tools, backward, micro_batches_of, seen_step, split
from train_hooks.optim import lr_factor, make_optimizer, update_ema
from train_hooks.recipe import Recipe
from train_hooks.sheets import Sheets
from train_hooks.signals import listening
from train_hooks.throughput import Throughput

BAD_IN_A_ROW = 5  # ours


@dataclass
class State:
    """Progress of a training, without its weights."""

    step: int = 0
    """Finished steps."""
    bad_in_a_row: int = 0
    grid_before: float = float("nan")
    broken: dict[str, str] = field(default_factory=dict)
    """Clips that could not be decoded, with the reason."""
    skipped: list[int] = field(default_factory=list)
    """Steps without an update."""
    pieces: dict[str, int] = field(default_factory=dict)
    """Micro-batch after memory ran out, by the size of the bucket."""


@dataclass
class Training:
    """The training loop and its state. `feeds` has one for each stage of the recipe."""

    whole: Recipe
    tools: Tools
    feeds: list[Feed]
    checkpoints: Checkpoints
    metrics: Metrics
    say: Callable[[str], None]
    sheets: Sheets | None = None
    flops: dict[str, float] = field(default_factory=dict)
    """FLOPs of one clip, by the size of its bucket, where they were counted."""
    state: State = field(default_factory=State)
    clip_losses: ClipLosses = field(default_factory=ClipLosses)
    ema: dict[str, Tensor] = field(default_factory=dict)
    stopped_by: int | None = None
    """The signal that stopped the training early; a checkpoint was saved."""
    grid_after: float = float("nan")
    seconds: float = 0.0

    def run(self) -> None:
        """Trains from the newest checkpoint, or from step 0, to the end. Afterwards the net holds the average of the weights, where one is kept.

        Raises TrainError as the table above says.
        """
        plan, shown, machine = self.whole.plan(), self.whole.shown(), self.tools.machine
        unet = self.tools.net.unet
        self._weights = self._all_weights(plan)
        machine.share_weights(unet)
        self._optimizer: Any = machine.accelerator.prepare(make_optimizer(self._weights.values(), shown))
        self._grid = make_grid(shown, self.tools.encoder, self.feeds[plan.index(shown)])
        self._saved = -1
        with listening() as self._signals, compiler_errors(self._signals):
            self._begin()
            if shown.compile:
                compile_blocks(unet)
            unet.train()
            begin, began_s = 0, time.monotonic()
            for stage, feed in zip(plan, self.feeds, strict=True):
                end = begin + stage.steps
                if self.state.step < end and self.stopped_by is None:
                    self._stage(stage, feed, begin, end)
                begin = end
            self.seconds = time.monotonic() - began_s
            if self._saved != self.state.step:
                self._save()
            self.checkpoints.finish(strict=True)
        if self.stopped_by is None:
            self._take_average()
            unet.eval()
            self.grid_after = self._grid_loss()

    @property
    def grid_clips(self) -> list[str]:
        """Ids of the clips of the loss grid."""
        return self._grid.clip_ids

    def _begin(self) -> None:
        """Restores the newest checkpoint, or measures the loss before the first step."""
        found = self.checkpoints.newest()
        if found is None:
            self.state.grid_before = self._grid_loss()
            self.say(f"loss on the fixed grid before training: {self.state.grid_before:.4f}")
        else:
            self._restore(found)
            if self.state.step > self.whole.steps:
                raise TrainError(
                    f"{found.path} is beyond the {self.whole.steps} steps of this recipe; set steps higher, or --restart"
                )
            self.say(f"resuming at step {self.state.step} ({found.path})")

    def _stage(self, stage: Recipe, feed: Feed, begin: int, end: int) -> None:
        machine, state, optimizer = self.tools.machine, self.state, self._optimizer
        trained = trainable.choose(self.tools.net.unet, stage)
        unscale = trainable.scale_inherited(self.tools.net.unet, stage.inherited_grad_scale)
        if self.whole.stages:
            self.say(f"stage {stage.stage or begin}: to step {end}, {stage.trainable} weights trained")
        loader = Loader(feed, _chunks(stage, feed, range(state.step, end), machine), stage.workers)
        throughput = Throughput(stage, loader, machine, self.flops, len(feed.train), self.whole.steps)
        try:
            while state.step < end:
                of_step = feed.at(seen_step(stage, state.step))
                clip_ids = [feed.train[i].clip_id for i, _ in of_step.clips]
                own = [next(loader) for _ in micro_batches_of(stage, feed, state.step, machine.rank, machine.world)]
                tally, stop = self._gradients(stage, feed, own, clip_ids)
                machine.add_up_gradients(list(trained.values()))
                norms = self._norms(trained) if (state.step + 1) % stage.log_every == 0 else {}
                norm = machine.accelerator.clip_grad_norm_(trained.values(), stage.grad_clip)

                lr = stage.lr * lr_factor(state.step - begin, stage)
                bad = self._not_finite(tally, norm, clip_ids)
                if not bad:
                    for group in optimizer.param_groups:
                        group["lr"], group["weight_decay"] = lr, stage.weight_decay
                    optimizer.step()
                    update_ema(self.ema, self.tools.net.unet, self.whole.shown().ema_decay, state.step)
                optimizer.zero_grad()
                state.step += 1
                self.note(bad, tally, clip_ids, stage, lr)
                throughput.add(tally, str(feed.sizes[of_step.bucket]))
                if state.step % stage.log_every == 0 or state.step == self.whole.steps:
                    line, values = throughput.report(state.step)
                    self.metrics.log(state.step, {**values, **norms})
                    self.say(line)
                elif throughput.overdue():
                    self.say(throughput.line(state.step))
                self._check_broken(feed, own, clip_ids, tally)
                self._now_and_then()
                if stop:
                    self.stopped_by = stop
                    return
        finally:
            loader.close()
            unscale()

    # -- one step

    def _gradients(self, stage: Recipe, feed: Feed, own: list[Loaded], clip_ids: list[str]) -> tuple[Tally, int]:
        """This rank's gradients, in the weights; all ranks' tally of the batch; and the signal that any of them had, or 0."""
        while True:
            tally = Tally.empty(stage.batch)
            try:
                for loaded in own:
                    size = str(feed.sizes[loaded.chunk.bucket])
                    for micro_batch in split(loaded, self.state.pieces.get(size, stage.batch)):
                        backward(stage, micro_batch, clip_ids, self.tools, tally)
                break
            except torch.OutOfMemoryError:
                self._halve(str(feed.sizes[own[0].chunk.bucket]), max(len(loaded.samples) for loaded in own))
        signalled = torch.full((1, stage.batch), float(len(self._signals)), dtype=torch.float64)
        summed = self.tools.machine.add_up(torch.cat([tally.rows, signalled]).to(self.tools.machine.device)).cpu()
        stop = (self._signals[0] if self._signals else int(signal.SIGTERM)) if summed[3, 0] else 0
        return Tally(summed[:3]), stop

    def _norms(self, trained: dict[str, Tensor]) -> dict[str, float]:
        """Gradient norms of the weights that came with the base and of the new ones."""
        scaler = self.tools.machine.accelerator.scaler
        found = {}
        for name, wanted in (("norm_spatial", trainable.is_spatial), ("norm_temporal", trainable.is_temporal)):
            grads = [w.grad for key, w in trained.items() if wanted(key) and w.grad is not None]
            if grads:
                norm = torch.stack(torch._foreach_norm(grads)).norm().item()
                found[name] = norm / (scaler.get_scale() if scaler is not None else 1.0)
        return found

    def _halve(self, size: str, largest: int) -> None:
        """After memory ran out: drops the step's gradients and halves the micro-batch from then on."""
        now = min(self.state.pieces.get(size, largest), largest)
        if now == 1:
            raise TrainError(
                f"one clip of {size} does not fit into this device's memory; "
                "smaller sizes, --set checkpointing=blocks or --set trainable=temporal need less"
            ) from None
        self.state.pieces[size] = now // 2
        for weight in self.tools.net.unet.parameters():
            weight.grad = None
        if self.tools.machine.device.type == "cuda":
            torch.cuda.empty_cache()
        self.say(
            f"memory ran out on {now} clips of {size} at once: {now // 2} from now on, the batch size is unchanged"
        )

    def _not_finite(self, tally: Tally, norm: Tensor | float, clip_ids: list[str]) -> str:
        """What is not finite and on which clips; empty where all is finite. fp16's loss scaler skips its own steps."""
        bad = [clip_id for clip_id, loss in zip(clip_ids, tally.losses, strict=True) if not math.isfinite(loss)]
        if bad:
            return f"the loss is not finite at step {self.state.step}, on clips {', '.join(bad)}"
        if not torch.isfinite(torch.as_tensor(norm)) and self.tools.machine.accelerator.scaler is None:
            return f"the gradient is not finite at step {self.state.step}, on clips {', '.join(clip_ids)}"
        return ""

    def note(self, bad: str, tally: Tally, clip_ids: list[str], stage: Recipe, lr: float) -> None:
        """Records a step. `bad` names what was not finite; raises TrainError at the BAD_IN_A_ROW-th bad step in a row."""
        state = self.state
        state.bad_in_a_row = state.bad_in_a_row + 1 if bad else 0
        self.metrics.step(stage.stage, None if bad else sum(tally.losses) / len(tally.losses), lr)
        if not bad:
            rows = zip(clip_ids, tally.levels, tally.losses, tally.meant, strict=True)
            for clip_id, level, loss, counted in rows:
                if counted:
                    self.clip_losses.add(clip_id, level, loss, late=2 * state.step > self.whole.steps)
            return
        state.skipped.append(state.step - 1)
        if state.bad_in_a_row == BAD_IN_A_ROW:
            raise TrainError(f"{bad}; that was the {BAD_IN_A_ROW}th step in a row, and a smaller lr usually helps")
        self.say(f"{bad}; the step is skipped")

    def _check_broken(self, feed: Feed, own: list[Loaded], clip_ids: list[str], tally: Tally) -> None:
        """Records the clips of a step, of all ranks, that were replaced."""
        known = {broken.clip_id: broken for loaded in own for broken in loaded.broken}
        fresh = [c for c, counted in zip(clip_ids, tally.meant, strict=True) if not counted]
        fresh = [clip_id for clip_id in dict.fromkeys(fresh) if clip_id not in self.state.broken]
        for clip_id in fresh:
            here = known.get(clip_id)
            self.state.broken[clip_id] = here.reason if here else f"clip {clip_id} cannot be decoded"
            self.say(f"{self.state.broken[clip_id]}; {here.substitute if here else 'another clip'} is used instead")
        bound = max(1.0, self.whole.max_broken_share * len(feed.train))  # one alone never stops a training
        if fresh and len(self.state.broken) > bound:
            raise TrainError(
                f"{len(self.state.broken)} of {len(feed.train)} clips cannot be decoded, more than max_broken_share = "
                f"{self.whole.max_broken_share:g}; `rushes shards verify --decode` lists them"
            )

    # -- between steps

    def _now_and_then(self) -> None:
        step, shown = self.state.step, self.whole.shown()
        if shown.heldout_every and step % shown.heldout_every == 0:
            with temporal_share(self.tools.net.unet) as shares, self.averaged():
                loss = self._grid_loss()
            share = sum(shares) / len(shares) if shares else None
            self.metrics.log(step, {"heldout_loss": loss, "temporal_share": share})
            temporal = "" if share is None else f", temporal layers add {share:.1%}"
            self.say(f"step {step}  loss on the fixed grid {loss:.4f}{temporal}")
        if shown.sample_every and step % shown.sample_every == 0 and self.sheets is not None:
            with self.averaged():
                self.metrics.log(step, self.sheets.make(step))
        if step % shown.checkpoint_every == 0:
            self._save()

    def _grid_loss(self) -> float:
        return grid_loss(self.whole.shown(), self.tools.net, self.tools.scheduler, self._grid)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The net with the averaged weights."""
        own = {key: value.detach().clone() for key, value in self._weights.items() if key in self.ema}
        self._take_average()
        try:
            yield
        finally:
            for key, value in own.items():
                self._weights[key].data.copy_(value)

    def _take_average(self) -> None:
        for key, value in self.ema.items():
            self._weights[key].data.copy_(value)

    def _save(self) -> None:
        self._saved = self.state.step
        if not self.tools.machine.first:
            return
        scaler = self.tools.machine.accelerator.scaler
        state = {**vars(self.state), "scaler": scaler.state_dict() if scaler is not None else {}}
        table = as_parquet(self.metrics.table())
        files: dict[str, Any] = {
            "weights": self._weights, "optimizer": optimizer_tensors(self._optimizer.optimizer, self._weights), "ema": self.ema,
            "metrics.parquet": table, "clips.parquet": self.clip_losses.state(),
        }  # fmt: skip
        beside = {METRICS: table, CLIP_LOSSES: as_parquet(self.clip_losses.table())}
        self.checkpoints.save(self.state.step, files, state, beside)
        self.metrics.flush()

    def _restore(self, found: Checkpoint) -> None:
        saved = found.tensors("weights")
        with torch.no_grad():
            for name, weight in self._weights.items():
                weight.copy_(saved[name])
        restore_optimizer(self._optimizer.optimizer, self._weights, found.tensors("optimizer"))
        self.ema |= {key: value.to(self.tools.machine.device) for key, value in found.tensors("ema").items()}
        self.metrics.restore((found.path / "metrics.parquet").read_bytes())
        self.clip_losses.restore((found.path / "clips.parquet").read_bytes())
        progress = dict(found.progress)
        scaler = progress.pop("scaler", {})
        if self.tools.machine.accelerator.scaler is not None and scaler:
            self.tools.machine.accelerator.scaler.load_state_dict(scaler)
        self.state = State(**progress)
        self._saved = self.state.step

    def _all_weights(self, plan: list[Recipe]) -> dict[str, Tensor]:
        """The weights that some stage trains, on the device and in memory of their own."""
        unet, machine = self.tools.net.unet, self.tools.machine
        names: dict[str, None] = {}
        for stage in plan:
            names |= dict.fromkeys(trainable.choose(unet, stage))
        unet.to(machine.device, torch.bfloat16 if self.whole.bf16_weights else None)  # a LoRA was just added
        # Weights read from a file keep the file's memory alignment, which changes the last bits of a sum on some CPUs.
        for value in (*unet.parameters(), *unet.buffers()):
            value.data = value.data.clone()
        parameters = dict(unet.named_parameters())
        return {name: parameters[name] for name in names}


def _chunks(stage: Recipe, feed: Feed, steps: range, machine: Machine) -> Iterator[Chunk]:
    for step in steps:
        yield from micro_batches_of(stage, feed, step, machine.rank, machine.world)
