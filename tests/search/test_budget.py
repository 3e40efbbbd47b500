"""When a sweep launches no more trials, by hand-made journals under a fake clock."""

from typing import Any

import pytest
from fake_sweep import SETTINGS, metrics
from hypothesis import given
from hypothesis import strategies as st

from sonar.config import ConfigError
from sonar.experiment import TrialConfig
from sonar.search.budget import hypervolume_gain, spent_hours, spent_reason
from sonar.search.convergence import Convergence, parse_convergence
from sonar.search.journal import Event, SweepState, replay
from sonar.search.space import Sweep, uniform
from sonar.search.standing import is_complete

SWEEP = Sweep(
    domain="bio",
    base=TrialConfig(),
    space={"sampling.replay_ratio": uniform(0.1, 0.7)},
    objectives={"plasticity": "max", "forgetting_rate": "min"},
    num_trials=10,
)
HOUR = 3600.0


def with_budget(**changes: Any) -> Sweep:
    return Sweep(**SWEEP.__dict__ | changes)


class History:
    """Events of a sweep, each at a time of its own."""

    def __init__(self) -> None:
        self.now_s, self.events = 1e9, list[Event]()
        self.add("sweep_created", **SETTINGS)

    def add(self, event: str, **data: Any) -> None:
        self.events.append(Event(len(self.events), self.now_s, event, data))

    def wait(self, hours: float) -> "History":
        self.now_s += hours * HOUR
        return self

    def told(self, trial_id: str, plasticity: float, forgetting: float) -> None:
        kind = "anchor" if trial_id.startswith("anchor") else "search"
        self.add("suggested", trial_id=trial_id, kind=kind, params={})
        self.wait(0.01)
        self.add("told", trial_id=trial_id, metrics=metrics(plasticity, forgetting), checkpoint="c")

    def anchors(self) -> "History":
        """Reference point (-1, 11)."""
        self.told("anchor-base", 0.0, 0.0)
        self.told("anchor-dcpt", 8.0, 10.0)
        return self

    @property
    def state(self) -> SweepState:
        return replay(self.events)


def test_hours_are_those_of_all_drivers_without_the_time_between_them() -> None:
    history = History()
    history.wait(1.5).add("suggested", trial_id="a", kind="search", params={})
    history.wait(0.25).add("ended", reason="enough")
    history.wait(100).add("resumed")
    history.wait(2).add("started", trial_id="a")
    assert spent_hours(history.state, history.now_s, 0.0) == pytest.approx(3.75)
    assert spent_hours(history.state, history.now_s + 0.5 * HOUR, 0.0) == pytest.approx(4.25)


def test_hours_of_a_driver_that_was_killed_end_with_its_last_event() -> None:
    history = History()
    history.wait(1).add("suggested", trial_id="a", kind="search", params={})
    history.wait(50)
    assert spent_hours(history.state, history.now_s, history.now_s) == pytest.approx(1.0)
    history.add("resumed")
    assert spent_hours(history.state, history.now_s, 0.0) == pytest.approx(1.0)


@given(st.lists(st.tuples(st.sampled_from(["resumed", "ended"]), st.floats(-5, 50)), max_size=12))
def test_hours_never_shrink_and_count_exactly_the_time_at_work(steps: list[tuple[str, float]]) -> None:
    history, expected = History(), 0.0
    for event, hours in steps:
        history.wait(hours).add(event, **({} if event == "resumed" else {"reason": "r"}))
        expected += 0 if event == "resumed" else max(0.0, hours)
    assert spent_hours(history.state, history.now_s, 0.0) == pytest.approx(expected, abs=1e-6)


def test_no_trial_is_launched_once_the_hours_are_spent() -> None:
    history, sweep = History(), with_budget(budget_hours=2.0)
    assert spent_reason(sweep, history.state, 1.99) is None
    assert spent_reason(sweep, history.state, 2.0) == "2.00 of 2 hours are spent"


def test_no_trial_is_launched_once_all_are_and_anchors_do_not_count() -> None:
    history, sweep = History().anchors(), with_budget(num_trials=2)
    history.told("a", 1.0, 1.0)
    assert spent_reason(sweep, history.state, 0.0) is None
    history.told("b", 1.0, 1.0)
    assert spent_reason(sweep, history.state, 0.0) == "all 2 trials were launched"


def test_the_gain_is_that_of_the_last_told_trials_over_the_volume_before_them() -> None:
    """By hand, against (-1, 11)."""
    history = History().anchors()
    history.told("a", 3.0, 5.0)
    before = 1 * 11 + 8 * 1 + 3 * 5  # the base; what DCPT adds to it; what a adds to both
    history.told("b", 3.0, 5.5)  # dominated
    history.told("c", 5.0, 5.0)
    gain = hypervolume_gain(history.state, Convergence(num_trials=2))
    assert gain == pytest.approx(100 * 2 * 5 / before)
    assert spent_reason(with_budget(converge=Convergence(num_trials=2)), history.state, 0.0) is None


def test_a_sweep_ends_once_the_last_trials_add_less_than_the_rule_asks() -> None:
    history, sweep = History().anchors(), with_budget(converge=Convergence(num_trials=2, gain_percent=0.5))
    history.told("a", 5.0, 5.0)
    history.told("b", 4.0, 6.0)
    assert spent_reason(sweep, history.state, 0.0) is None  # a is one of the last two
    history.told("c", 4.5, 6.0)
    reason = "the last 2 trials added 0.00 % to the hypervolume, less than 0.5 %"
    assert spent_reason(sweep, history.state, 0.0) == reason


def test_nothing_has_converged_before_anchors_and_enough_trials_are_told() -> None:
    history, rule = History(), Convergence(num_trials=1, gain_percent=99.0)
    history.told("a", 5.0, 5.0)
    history.told("anchor-base", 0.0, 0.0)
    assert hypervolume_gain(history.state, rule) is None  # an anchor is missing: there is no reference point
    history.told("anchor-dcpt", 8.0, 10.0)
    assert hypervolume_gain(history.state, rule) is not None
    assert hypervolume_gain(history.state, Convergence(num_trials=2)) is None


def test_the_last_trials_are_those_that_ended_last_not_those_suggested_last() -> None:
    history = History().anchors()
    history.add("suggested", trial_id="slow", kind="search", params={})
    history.told("quick", 5.0, 5.0)
    history.wait(1).add("told", trial_id="slow", metrics=metrics(1.0, 9.0), checkpoint="c")
    assert hypervolume_gain(history.state, Convergence(num_trials=1)) == 0.0


@pytest.mark.parametrize(("text", "rule"), [("8:1", (8, 1.0)), ("3:0.25", (3, 0.25))])
def test_a_rule_is_read_from_the_command_line(text: str, rule: tuple[int, float]) -> None:
    assert parse_convergence(text) == Convergence(num_trials=rule[0], gain_percent=rule[1])


@pytest.mark.parametrize("text", ["8", "8:1%", "a:1", "", "8:-1", "8:1:2"])
def test_a_rule_written_otherwise_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"converge: got .*; allowed: TRIALS:PERCENT, as in 8:1"):
        parse_convergence(text)


@pytest.mark.parametrize(
    ("num_trials", "gain_percent", "message"),
    [
        (0, 1.0, "converge.num_trials: got 0; allowed: 1 or more"),
        (2, 0.0, "converge.gain_percent: got 0.0; allowed: a number above 0"),
    ],
)
def test_a_rule_that_could_never_or_always_hold_is_refused(num_trials: int, gain_percent: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Convergence(num_trials=num_trials, gain_percent=gain_percent)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget_hours": 0.0}, "budget_hours: got 0.0; allowed: a number of hours above 0"),
        ({"sampler": "cmaes"}, "sampler: got 'cmaes'; allowed: tpe, nsga2, nsga3, gp, random"),
    ],
)
def test_a_sweep_with_a_budget_or_sampler_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        with_budget(**changes)


def test_how_a_search_ended_is_known_until_the_next_driver() -> None:
    history = History()
    history.add("ended", reason="2.00 of 2 hours are spent")
    assert history.state.end_reason == "2.00 of 2 hours are spent"
    history.add("resumed")
    assert history.state.end_reason is None


def test_a_search_that_a_budget_ended_is_complete_once_what_was_launched_has_ended() -> None:
    history = History().anchors()
    history.add("suggested", trial_id="a", kind="search", params={})
    history.add("ended", reason="2.00 of 2 hours are spent")
    assert not is_complete(history.state)
    history.add("told", trial_id="a", metrics=metrics(1.0, 1.0), checkpoint="c")
    assert is_complete(history.state)
    history.add("resumed")
    assert not is_complete(history.state)
