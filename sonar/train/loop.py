"""The training loop: no Ray, no MLflow, no files. Everything else is behind `on_step`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, cast

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from sonar.data.stream import Batch
from sonar.model.codebook import CodebookHealth
from sonar.train.objective import LossTerms
from sonar.train.optim import OptimConfig, learning_rate, make_optimizer

Precision = Literal["fp32", "bf16"]


class NonFiniteLossError(FloatingPointError):
    """A loss term or the gradient became NaN or infinite; names the stage, step, term and clips."""


class Stream(Protocol):
    """Anything that gives the batch of a step, the same one every time it is asked."""

    def batch(self, step: int) -> Batch:
        """The batch of `step`."""


class Objective(Protocol):
    """What a stage minimises (see objective.py)."""

    def __call__(self, batch: Batch, generator: torch.Generator) -> LossTerms:
        """Losses of one batch."""

    def after_step(self, losses: LossTerms, generator: torch.Generator) -> CodebookHealth | None:
        """Updates outside autograd that follow the optimiser's step."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One leg of a run: an objective, the modules it trains and for how long.

    Attributes:
        name: stage name, the prefix of its logged terms.
        objective: an nn.Module that satisfies `Objective`.
        trained: modules whose parameters are optimised; all others of the objective stay fixed.
        stream: gives the batches.
        num_steps: optimiser steps.
        optim: optimiser settings.
        seed: of masks and codebook draws.
        rank: of this worker, mixed into the seed of the masks.
        precision: fp32, or bf16 autocast.
        prepare: called once before the first step, not when a stage is resumed.
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
    prepare: Callable[[], None] = lambda: None


class StepReport(NamedTuple):
    """What one step tells: the stage, the step just done (1-based), of how many, terms and rates."""

    stage: str
    step: int
    num_steps: int
    metrics: dict[str, float]


OnStep = Callable[[StepReport, torch.optim.Optimizer], None]


def run_stage(stage: Stage, on_step: OnStep, *, start: int = 0, optimizer_state: dict[str, Any] | None = None) -> None:
    """Train `stage` from step `start` to its end.

    Args:
        stage: what to train; its `trained` modules change in place.
        on_step: called after every step, when parameters and codebook are those of the step done.
        start: steps already done (a resumed run).
        optimizer_state: the optimiser's state after `start` steps; required when `start` > 0.

    Raises:
        NonFiniteLossError: a loss term or the gradient is not finite; nothing has been updated by that step.
    """
    parameters = _select_parameters(stage)
    optimizer = make_optimizer(parameters, stage.optim)
    if optimizer_state is not None:
        optimizer.load_state_dict(optimizer_state)
    objective = _data_parallel(stage.objective)
    device = parameters[0].device
    for step in range(start, stage.num_steps):
        began = time.perf_counter()
        rate = learning_rate(step, stage.num_steps, stage.optim)
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = stage.stream.batch(step).to(device)
        draws = _generator(stage.seed, step, 1 + stage.rank)
        with _dropout_from(draws, device), torch.autocast(device.type, torch.bfloat16, stage.precision == "bf16"):
            losses: LossTerms = objective(batch, draws)
        _check_finite(stage.name, step, losses, batch)
        optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        norm = nn.utils.clip_grad_norm_(parameters, stage.optim.clip_norm)
        if not torch.isfinite(norm):
            raise _non_finite(stage.name, step, ["the gradient"], batch)
        optimizer.step()
        health = cast(Objective, stage.objective).after_step(losses, _generator(stage.seed, step, 0))
        metrics = _metrics(losses, health, norm=float(norm), lr=rate)
        metrics["step_seconds"] = time.perf_counter() - began
        on_step(StepReport(stage.name, step + 1, stage.num_steps, metrics), optimizer)
    optimizer.zero_grad(set_to_none=True)  # what was trained may be a frozen teacher from here on


def _select_parameters(stage: Stage) -> list[nn.Parameter]:
    stage.objective.requires_grad_(False).eval()
    for module in stage.trained:
        module.requires_grad_(True)
        module.train()
    return [p for p in stage.objective.parameters() if p.requires_grad]


def _data_parallel(objective: nn.Module) -> nn.Module:
    """Wrap for gradient averaging when several workers train; buffers are ours to keep equal."""
    if not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1:
        return objective
    return DistributedDataParallel(objective, broadcast_buffers=False, find_unused_parameters=True)


def _generator(seed: int, step: int, stream: int) -> torch.Generator:
    """A generator that depends on nothing but its arguments, so that a resumed step draws the same."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) * 4096 + stream)


@contextmanager
def _dropout_from(generator: torch.Generator, device: torch.device) -> Iterator[None]:
    """Dropout and layer drop know the global generator only: seed it for one step, then give it back as it was."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(generator.initial_seed())
        yield


def _check_finite(stage: str, step: int, losses: LossTerms, batch: Batch) -> None:
    if torch.isfinite(losses.total):
        return
    bad = [name for name, value in losses.terms.items() if not torch.isfinite(value)] or ["total"]
    raise _non_finite(stage, step, bad, batch)


def _non_finite(stage: str, step: int, bad: list[str], batch: Batch) -> NonFiniteLossError:
    clips = ", ".join(batch.clip_ids[:8])
    return NonFiniteLossError(
        f"stage {stage}, step {step}: {', '.join(bad)} is not finite on clips {clips} (first 8). "
        "Lower optim.lr or the loss weights; the last checkpoint is kept."
    )


def _metrics(losses: LossTerms, health: CodebookHealth | None, *, norm: float, lr: float) -> dict[str, float]:
    metrics = {name: float(value) for name, value in losses.terms.items()}
    metrics |= {"loss": float(losses.total.detach()), "grad_norm": norm, "lr": lr}
    if health is not None:
        metrics |= {f"codebook/{name}": float(value) for name, value in health._asdict().items()}
    return metrics
