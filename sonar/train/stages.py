"""Stages in order, resumable at any step: what `adapt` and `pretrain` have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

from sonar.train.loop import Stage, StepReport, run_stage


class Worker(NamedTuple):
    """This process among the workers that train together."""

    rank: int = 0
    world_size: int = 1
    device: torch.device = torch.device("cpu")


def local_worker() -> Worker:
    """The only worker of a run in this process, on its GPU where there is one."""
    return Worker(device=torch.device("cuda" if torch.cuda.is_available() else "cpu"))


class Hooks(NamedTuple):
    """What the outside hears of a run.

    Attributes:
        report: called after every step.
        save: called with the whole training state at intervals and after each stage.
        state: the state to resume from, as `save` got it, or None.
        save_every: steps between two calls of `save`.
    """

    report: Callable[[StepReport], None]
    save: Callable[[dict[str, Any]], None]
    state: dict[str, Any] | None = None
    save_every: int = 200


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run: the modules that it changes and its stages.

    Attributes:
        models: the modules whose state is saved and resumed, by name.
        stages: builders, called in order, since a later stage works on what an earlier one made; None: no such stage.
    """

    models: dict[str, nn.Module]
    stages: tuple[Callable[[], Stage | None], ...]


def run_plan(plan: Plan, hooks: Hooks) -> None:
    """Train the stages of `plan` from the start, or from where `hooks.state` left off, bitwise the same."""
    position, step, optimizer_state = 0, 0, None
    if hooks.state is not None:
        position, step, optimizer_state = (
            hooks.state["position"],
            hooks.state["step"],
            hooks.state["optimizer"],
        )
        for name, module in plan.models.items():
            module.load_state_dict(hooks.state["models"][name])
    for index in range(position, len(plan.stages)):
        stage = plan.stages[index]()
        if stage is not None and stage.num_steps > 0:
            if step == 0:
                stage.prepare()
            run_stage(stage, _on_step(plan, index, hooks), start=step, optimizer_state=optimizer_state)
            hooks.save(_state(plan, index + 1, 0, None))
        step, optimizer_state = 0, None


def _on_step(plan: Plan, index: int, hooks: Hooks) -> Callable[[StepReport, torch.optim.Optimizer], None]:
    def on_step(report: StepReport, optimizer: torch.optim.Optimizer) -> None:
        hooks.report(report)
        if report.step % hooks.save_every == 0 and report.step < report.num_steps:
            hooks.save(_state(plan, index, report.step, optimizer.state_dict()))

    return on_step


def _state(plan: Plan, position: int, step: int, optimizer: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "position": position,
        "step": step,
        "models": {name: module.state_dict() for name, module in plan.models.items()},
        "optimizer": optimizer,
    }
