"""The training loop: no Ray, no MLflow, no files. Everything else is behind `on_step`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from sonar.data.batch import Batch
from sonar.data.prefetch import Prefetch
from sonar.model.compilation import check_compiler, layers_compiled
from sonar.model.heap import freed_memory_kept
from sonar.model.ranks import world_size
from sonar.model.transformer import Transformer
from sonar.train.accumulation import Precision, StepLosses, accumulate
from sonar.train.draws import dropout_from, step_generator
from sonar.train.memory import MemoryNeed, plain_advice, within_memory
from sonar.train.objective import Moment, Objective
from sonar.train.optim import OptimConfig, learning_rate, make_optimizer
from sonar.train.plateau import Plateau

PACE = ("step_seconds", "clips_per_second", "input_wait_share")  # of a step's metrics, those that no run repeats


class NonFiniteLossError(FloatingPointError):
    """A loss term or the gradient became NaN or infinite; names the stage, step, term and clips."""


class Stream(Protocol):
    """Anything that gives the batch of a step, the same one every time it is asked."""

    def batch(self, step: int) -> Batch:
        """The batch of `step`."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One part of a run: an objective, the modules it trains and for how long.

    Attributes:
        name: stage name, the prefix of its logged terms.
        objective: an nn.Module that satisfies `Objective`.
        trained: modules whose parameters are optimised; all others of the objective stay fixed.
        stream: gives the batches.
        num_steps: optimiser steps, the most where there is a `plateau`.
        optim: optimiser settings.
        seed: of masks and codebook draws.
        rank: of this worker, mixed into the seed of the masks.
        precision: fp32, or bf16 autocast.
        accumulation: micro-batches that a batch is split into.
        checkpoint_activations: see `Transformer.recompute`; of the trained modules.
        compile_layers: see `sonar.model.compilation`; in the steps, not in what is measured between them.
        plateau: ends the stage early; None: never.
        advise: what to set so that a batch is split into so many micro-batches, for who runs out of memory; None: not
            even single clips fit.
        prepare: called once before the first step, not when a stage is resumed.
        measure: what else the steps that `measure_every` divides, and the last one, are to show.
        measure_every: steps; 0: never.
    """

    name: str
    objective: nn.Module
    trained: tuple[nn.Module, ...]
    stream: Stream
    num_steps: int
    optim: OptimConfig
    seed: int
    rank: int = 0
    precision: Precision = "fp32"
    accumulation: int = 1
    checkpoint_activations: bool = False
    compile_layers: bool = False
    plateau: Plateau | None = None
    advise: Callable[[int | None], str] = plain_advice
    prepare: Callable[[], None] = lambda: None
    measure: Callable[[], dict[str, float]] = dict
    measure_every: int = 0


class StageState(NamedTuple):
    """Where a stage stands; all that resuming it needs beside its modules.

    Attributes:
        step: steps done.
        ended: no step is left.
        optimizer: the optimiser's state; None before the first step and after the last.
        watched: what the plateau rule has to remember.
    """

    step: int = 0
    ended: bool = False
    optimizer: dict[str, Any] | None = None
    watched: tuple[float, ...] = ()


class StepReport(NamedTuple):
    """What one step tells: the stage, the step just done (1-based), of how many, terms and rates.

    `num_steps` of the last report is the number that there were, also where a plateau ended the stage.
    """

    stage: str
    step: int
    num_steps: int
    metrics: dict[str, float]

    def by_stage(self) -> dict[str, float]:
        """The metrics as `STAGE/NAME`, and `STAGE/steps`: how many are done."""
        named = {f"{self.stage}/{name}": value for name, value in self.metrics.items()}
        return named | {f"{self.stage}/steps": float(self.step)}


OnStep = Callable[[StepReport, StageState], None]


def run_stage(
    stage: Stage, on_step: OnStep, *, state: StageState | None = None, until: int | None = None
) -> StageState:
    """Train `stage` from where `state` stands to step `until` or to its end.

    Args:
        stage: what to train; its `trained` modules change in place.
        on_step: called after every step, when parameters and codebook are those of the step done.
        state: what an earlier call returned or `on_step` heard; None: from the start.
        until: step to stop before; None: the stage's end.

    Returns:
        Where the stage stands then.

    Raises:
        NonFiniteLossError: a loss term or the gradient is not finite; nothing has been updated by that step.
        BatchTooLargeError: a step found no memory; nothing has been updated by it.
        ValueError: layers are to be compiled where there is no compiler.
    """
    state = state or StageState()
    parameters = _select_parameters(stage)
    if stage.compile_layers:
        check_compiler(parameters[0].device)
    optimizer = make_optimizer(parameters, stage.optim)
    if state.optimizer is not None:
        optimizer.load_state_dict(state.optimizer)
    objective = _data_parallel(stage.objective)
    last = stage.num_steps if until is None else min(until, stage.num_steps)
    on_gpu = parameters[0].device.type != "cpu"
    with freed_memory_kept(), Prefetch(stage.stream.batch, range(state.step, last), pinned=on_gpu) as batches:
        while state.step < last and not state.ended:
            began = time.perf_counter()
            batch = next(batches)
            waited = time.perf_counter() - began
            metrics = _train_step(stage, objective, optimizer, batch, Moment(stage.name, state.step, stage.num_steps))
            state = _advanced(stage, state, optimizer, metrics)
            if stage.measure_every and (state.ended or state.step % stage.measure_every == 0):
                metrics |= stage.measure()
            metrics |= _pace(time.perf_counter() - began, waited, len(batch.clip_ids))
            num_steps = state.step if state.ended else stage.num_steps
            on_step(StepReport(stage.name, state.step, num_steps, metrics), state)
    optimizer.zero_grad(set_to_none=True)  # what was trained may be a frozen teacher from here on
    return state


def _pace(seconds: float, waited: float, num_clips: int) -> dict[str, float]:
    """What a step took, and the share of it that was spent waiting for its batch."""
    return dict(zip(PACE, (seconds, num_clips * world_size() / seconds, waited / seconds), strict=True))


def _train_step(
    stage: Stage, objective: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch, moment: Moment
) -> dict[str, float]:
    """One optimiser step and what it shows."""
    optimizer.param_groups[0]["lr"] = rate = learning_rate(moment.step, moment.num_steps, stage.optim)
    need = MemoryNeed(moment, stage.objective, batch, stage.accumulation, stage.precision, optimizer, stage.advise)
    losses = within_memory(lambda: _update(stage, objective, optimizer, batch, moment), need)
    told = cast(Objective, stage.objective).after_step(
        losses.assignment, step_generator(stage.seed, moment.step, 0), moment
    )
    return losses.terms | {"lr": rate} | told


def _update(
    stage: Stage, objective: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch, moment: Moment
) -> StepLosses:
    """Move the parameters by the batch; its losses, and among the terms the norm of its gradient."""
    (group,) = optimizer.param_groups
    optimizer.zero_grad(set_to_none=True)
    draws = step_generator(stage.seed, moment.step, 1 + stage.rank)
    with dropout_from(draws, group["params"][0].device), layers_compiled(stage.compile_layers):
        losses = accumulate(objective, batch, draws, stage.accumulation, stage.precision)
    _check_finite(moment, losses, batch)
    norm = float(nn.utils.clip_grad_norm_(group["params"], stage.optim.clip_norm))
    if not math.isfinite(norm):
        raise _non_finite(moment, ["the gradient"], batch)
    optimizer.step()
    return losses._replace(terms=losses.terms | {"grad_norm": norm})


def _select_parameters(stage: Stage) -> list[nn.Parameter]:
    stage.objective.requires_grad_(False).eval()
    for module in stage.trained:
        module.requires_grad_(True)
        module.train()
    for part in stage.objective.modules():
        if isinstance(part, Transformer):
            part.recompute = stage.checkpoint_activations and part.training
    return [p for p in stage.objective.parameters() if p.requires_grad]


def _data_parallel(objective: nn.Module) -> nn.Module:
    """Wrap for gradient averaging when several workers train; buffers are ours to keep equal."""
    if world_size() == 1:
        return objective
    return DistributedDataParallel(objective, broadcast_buffers=False, find_unused_parameters=True)


def _advanced(
    stage: Stage, state: StageState, optimizer: torch.optim.Optimizer, metrics: dict[str, float]
) -> StageState:
    """The state after one more step."""
    step, plateau = state.step + 1, stage.plateau
    watched = () if plateau is None else plateau.watched(state.watched, metrics[plateau.metric])
    ended = step == stage.num_steps or (plateau is not None and plateau.is_reached(watched, step))
    return StageState(step, ended, None if ended else optimizer.state_dict(), watched)


def _check_finite(moment: Moment, losses: StepLosses, batch: Batch) -> None:
    if math.isfinite(losses.terms["loss"]):
        return
    bad = [name for name, value in losses.terms.items() if not math.isfinite(value) and name != "loss"] or ["the loss"]
    raise _non_finite(moment, bad, batch)


def _non_finite(moment: Moment, bad: list[str], batch: Batch) -> NonFiniteLossError:
    clips = ", ".join(batch.clip_ids[:8])
    return NonFiniteLossError(
        f"{moment}: {', '.join(bad)} is not finite on clips {clips} (the first of this worker's). "
        "Lower optim.lr or the loss weights; the last checkpoint is kept."
    )
