"""The loop on a toy objective: what it reports, what it keeps, and how it stops."""

import copy
import threading
import time
from typing import Any

import pytest
import torch
from tiny import changed, tensors
from torch import nn

from sonar.data.batch import Batch
from sonar.train.loop import NonFiniteLossError, Stage, StageState, StepReport, run_stage
from sonar.train.objective import LossTerms, Moment
from sonar.train.optim import OptimConfig, learning_rate

OPTIM = OptimConfig(lr=0.1, final_lr=0.01, warmup_fraction=0.25)


class Stream:
    """The batch of a step is the step."""

    def batch(self, step: int) -> Batch:
        waveform = torch.full((2, 3), float(step))
        return Batch(waveform, torch.zeros(2, 3, dtype=torch.bool), torch.zeros(2, dtype=torch.bool), ("a", "b"))


class Toy(nn.Module):
    """Pulls `weight` to noise; the term `poisoned` is `poison` at one step."""

    def __init__(self, poison: float = 0.0, at: int = 2) -> None:
        super().__init__()
        self.weight, self.fixed = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
        self.register_buffer("updates", torch.zeros(1))
        self.poison, self.at = poison, at

    def forward(self, batch: Batch, generator: torch.Generator) -> LossTerms:
        pull = (self.weight * self.fixed - torch.rand(3, generator=generator)).square().sum()
        poisoned = torch.tensor(self.poison if batch.waveform[0, 0] == self.at else 0.0)
        return LossTerms({"pull": pull, "poisoned": poisoned}, {"pull": pull.detach(), "poisoned": poisoned})

    def counts(self, batch: Batch) -> dict[str, int]:
        return dict.fromkeys(("pull", "poisoned", "cliff", "total"), len(batch.clip_ids))

    def after_step(self, assignment: None, generator: torch.Generator, moment: Moment) -> dict[str, float]:
        self.updates += torch.rand(1, generator=generator)
        return {"progress": moment.progress}


class Cliff(Toy):
    """Finite loss, infinite gradient: the square root at zero."""

    def forward(self, batch: Batch, generator: torch.Generator) -> LossTerms:
        total = (self.weight * 0.0).abs().sum().sqrt() if batch.waveform[0, 0] == self.at else self.weight.sum()
        return LossTerms({"cliff": total}, {"cliff": total.detach()})


def stage(objective: Toy, **fields: Any) -> Stage:
    plain = {
        "name": "toy",
        "objective": objective,
        "trained": (objective,),
        "stream": Stream(),
        "num_steps": 6,
        "optim": OPTIM,
        "seed": 3,
    }
    return Stage(**plain | fields)


def run(objective: Toy, **fields: Any) -> list[StepReport]:
    reports: list[StepReport] = []
    run_stage(stage(objective, **fields), lambda report, state: reports.append(report))
    return reports


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_not_finite_names_everything_and_updates_nothing(poison: float) -> None:
    objective, seen = Toy(poison), []
    with pytest.raises(
        NonFiniteLossError, match=r"stage toy, step 2: poisoned is not finite on clips a, b \(the first of"
    ):
        run_stage(stage(objective), lambda report, state: seen.append(tensors(objective)))
    assert len(seen) == 2
    assert changed(seen[-1], tensors(objective)) == []


def test_a_gradient_that_is_not_finite_updates_nothing_either() -> None:
    objective, seen = Cliff(), []
    with pytest.raises(NonFiniteLossError, match="stage toy, step 2: the gradient is not finite on clips a, b"):
        run_stage(stage(objective), lambda report, state: seen.append(tensors(objective)))
    assert changed(seen[-1], tensors(objective)) == []


def test_every_step_reports_its_place_its_terms_and_the_rate_of_its_schedule() -> None:
    reports = run(Toy())
    assert [report[:3] for report in reports] == [("toy", step + 1, 6) for step in range(6)]
    assert [report.metrics["lr"] for report in reports] == [learning_rate(step, 6, OPTIM) for step in range(6)]
    for report in reports:
        assert report.metrics["loss"] == report.metrics["pull"] + report.metrics["poisoned"]
        assert report.metrics["step_seconds"] > 0


def test_the_same_seed_gives_the_same_run_and_another_seed_another() -> None:
    first, second, other = Toy(), Toy(), Toy()
    run(first)
    torch.rand(5)  # the global generator plays no part
    run(second)
    run(other, seed=4)
    assert changed(tensors(first), tensors(second)) == []
    assert set(changed(tensors(first), tensors(other))) == {"0.weight", "0.fixed", "0.updates"}


def test_workers_draw_different_masks_and_the_same_codebook_updates() -> None:
    first, second = Toy(), Toy()
    run(first)
    run(second, rank=1)
    assert set(changed(tensors(first), tensors(second))) == {"0.weight", "0.fixed"}


class Pair(Toy):
    """A loss of `inner` and of weights that are not trained."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 1)

    def forward(self, batch: Batch, generator: torch.Generator) -> LossTerms:
        total = (self.inner(self.weight) - 5.0).square().sum()
        return LossTerms({"total": total}, {"total": total.detach()})

    def after_step(self, assignment: None, generator: torch.Generator, moment: Moment) -> dict[str, float]:
        assert self.inner.training and not self.training
        return {}


def test_only_the_trained_modules_change_and_only_they_are_in_training_mode() -> None:
    objective = Pair()
    before = tensors(objective)
    run(objective, trained=(objective.inner,))
    assert set(changed(before, tensors(objective))) == {"0.inner.weight", "0.inner.bias"}


def test_six_steps_equal_three_and_three_resumed() -> None:
    whole, resumed = Toy(), Toy()
    states: list[tuple[dict[str, Any], StageState]] = []

    def keep(report: StepReport, state: StageState) -> None:
        states.append(copy.deepcopy((whole.state_dict(), state)))

    end = run_stage(stage(whole), keep)
    resumed.load_state_dict(states[2][0])
    steps: list[int] = []
    run_stage(stage(resumed), lambda report, state: steps.append(report.step), state=states[2][1])
    assert steps == [4, 5, 6]
    assert changed(tensors(whole), tensors(resumed)) == []
    assert end == StageState(6, True) and run_stage(stage(resumed), keep, state=end) == end


def test_a_stage_taken_up_in_legs_equals_one_that_ran_through() -> None:
    whole, legs = Toy(), Toy()
    run(whole)
    state = None
    for until in (2, 4, None):
        state = run_stage(stage(legs), lambda report, state: None, state=state, until=until)
        assert state.step == (until or 6) and state.ended == (until is None)
    assert changed(tensors(whole), tensors(legs)) == []


def test_a_step_shows_its_pace_and_what_follows_it() -> None:
    reports = run(Toy())
    assert [report.metrics["progress"] for report in reports] == [step / 6 for step in range(6)]
    for report in reports:
        assert report.metrics["clips_per_second"] * report.metrics["step_seconds"] == pytest.approx(2)
        assert 0 <= report.metrics["input_wait_share"] <= 1


def test_a_step_that_waits_for_its_batch_says_so_and_a_batch_that_fails_ends_the_stage() -> None:
    class Slow(Stream):
        def batch(self, step: int) -> Batch:
            time.sleep(0.05)
            if step == 4:
                raise OSError("the disk is gone")
            return super().batch(step)

    reports: list[StepReport] = []
    with pytest.raises(OSError, match="the disk is gone"):
        run_stage(stage(Toy(), stream=Slow()), lambda report, state: reports.append(report))
    assert [report.step for report in reports] == [1, 2, 3, 4]
    seconds = [report.metrics["step_seconds"] for report in reports]
    waited = [report.metrics["input_wait_share"] * report.metrics["step_seconds"] for report in reports]
    assert sum(waited) > 4 * 0.05 - (sum(seconds) - sum(waited)) - 0.02  # whatever else the machine does
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def test_what_is_measured_comes_at_intervals_and_with_the_last_step() -> None:
    asked: list[int] = []
    reports = run(Toy(), measure=lambda: asked.append(1) or {"probe": float(len(asked))}, measure_every=4)
    assert [report.metrics.get("probe") for report in reports] == [None, None, None, 1.0, None, 2.0]
    assert all("probe" not in report.metrics for report in run(Toy(), measure=lambda: {"probe": 1.0}))
