"""Stages in legs, resumable at any step: what `adapt` and `pretrain` have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

from sonar.train.loop import Stage, StageState, StepReport, run_stage


class Worker(NamedTuple):
    """This process among the workers that train together."""

    rank: int = 0
    world_size: int = 1
    device: torch.device = torch.device("cpu")


def local_worker() -> Worker:
    """The only worker of a run in this process, on its GPU where there is one."""
    return Worker(device=torch.device("cuda" if torch.cuda.is_available() else "cpu"))


Observe = Callable[[StepReport, Mapping[str, nn.Module]], dict[str, float]]


def observe_nothing(report: StepReport, models: Mapping[str, nn.Module]) -> dict[str, float]:
    """Show nothing beside what a step itself shows."""
    return {}


def never() -> bool:
    """Nobody asks for a stop."""
    return False


class TrainingStopped(Exception):
    """The run was asked to stop and has saved its state: it goes on from there, bitwise the same."""


class Hooks(NamedTuple):
    """What the outside hears of a run.

    Attributes:
        report: called after every step.
        save: called with the whole training state at intervals and after each stage.
        state: the state to resume from, as `save` got it, or None.
        save_every: steps between two calls of `save`.
        observe: looks at the models after every step, leaves them as they are, and says what else the step shows.
        is_stopping: asked after every step; where it says yes, the state is saved and TrainingStopped raised.
    """

    report: Callable[[StepReport], None]
    save: Callable[[dict[str, Any]], None]
    state: dict[str, Any] | None = None
    save_every: int = 200
    observe: Observe = observe_nothing
    is_stopping: Callable[[], bool] = never


class Leg(NamedTuple):
    """A stretch of a run: train `stage` until `until` of its steps are done (None: to its end)."""

    stage: str
    until: int | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run: the modules that it changes, its stages, and the legs in which they are trained.

    Attributes:
        models: the modules whose state is saved and resumed, by name.
        stages: builders by name, called when a leg begins, since it works on what the legs before it made, and what
            an objective has kept of other models is void by then; a builder gives None where there is no such stage.
        legs: in order; a stage that has several is taken up again with its own optimiser and schedule. The last leg
            of each stage must go to its end.
    """

    models: dict[str, nn.Module]
    stages: dict[str, Callable[[], Stage | None]]
    legs: tuple[Leg, ...]


def one_leg_each(stages: Iterable[str]) -> tuple[Leg, ...]:
    """Every stage from its beginning to its end, in order."""
    return tuple(Leg(name) for name in stages)


def alternating_legs(num_steps: dict[str, int], block: int) -> tuple[Leg, ...]:
    """Blocks of each stage in turn; a stage that has no steps left is passed over.

    Args:
        num_steps: of every stage, in the order of the turns.
        block: steps of a turn.
    """
    turns = -(-max(num_steps.values()) // block)
    return tuple(
        Leg(name, min((turn + 1) * block, steps))
        for turn in range(turns)
        for name, steps in num_steps.items()
        if turn * block < steps
    )


def run_plan(plan: Plan, hooks: Hooks) -> None:
    """Train the legs of `plan` from the start, or from where `hooks.state` left off, bitwise the same."""
    run = _Run(plan, hooks)
    for leg in plan.legs:
        run.train(leg)


class _Run:
    """Where every stage of a plan stands. Legs follow from that: one whose steps are done is over."""

    def __init__(self, plan: Plan, hooks: Hooks) -> None:
        self.plan, self.hooks = plan, hooks
        self.states = {name: StageState() for name in plan.stages}
        if hooks.state is not None:
            self.states |= {name: StageState(**fields) for name, fields in hooks.state["stages"].items()}
            for name, module in plan.models.items():
                module.load_state_dict(hooks.state["models"][name])

    def train(self, leg: Leg) -> None:
        state = self.states[leg.stage]
        if state.ended or (leg.until is not None and state.step >= leg.until):
            return
        stage = self.plan.stages[leg.stage]()
        if stage is None or stage.num_steps == 0:
            return
        if state.step == 0:
            stage.prepare()
        self.states[leg.stage] = run_stage(stage, self._on_step, state=state, until=leg.until)

    def _on_step(self, report: StepReport, state: StageState) -> None:
        observed = self.hooks.observe(report, self.plan.models)
        self.hooks.report(report._replace(metrics=report.metrics | observed))
        self.states[report.stage] = state
        is_stopping = self.hooks.is_stopping()
        if is_stopping or state.ended or state.step % self.hooks.save_every == 0:
            self.hooks.save(self._state())
        if is_stopping:
            raise TrainingStopped(f"stopped after step {state.step} of {report.stage}")

    def _state(self) -> dict[str, Any]:
        return {
            "stages": {name: state._asdict() for name, state in self.states.items()},
            "models": {name: module.state_dict() for name, module in self.plan.models.items()},
        }
