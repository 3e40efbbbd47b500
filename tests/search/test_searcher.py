"""The source of trials: its order, what is in the journal when, and a sweep cut anywhere that goes on the same."""

import math
import shutil
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from sonar.config import to_dict
from sonar.experiment import TrialConfig, apply_preset
from sonar.search.budget import spent_hours
from sonar.search.convergence import Convergence
from sonar.search.journal import Event, Journal, read_journal
from sonar.search.results import front, ranked_trials
from sonar.search.samplers import Observed
from sonar.search.searcher import Suggestion, TrialSource
from sonar.search.space import (
    Dimension,
    SamplerName,
    Sweep,
    apply,
    choice,
    contains,
    int_uniform,
    log_uniform,
    uniform,
)

SETTINGS: dict[str, Any] = {"config": {}, "space": {}, "seed": 5, "forgetting_limit": 5.0}
SWEEP = Sweep(
    domain="bio",
    base=TrialConfig(),
    space={
        "sampling.replay_ratio": uniform(0.1, 0.7),
        "distill.model_weight": log_uniform(0.1, 100.0),
        "codebook.anchor": choice("centroid", "closest", "probrandom"),
        "sampling.num_clusters": int_uniform(20, 200),
    },
    objectives={"plasticity": "max", "forgetting_rate": "min"},
    num_trials=11,  # more than Optuna's 8 random ones
)
IDS = ["anchor-base", "anchor-dcpt", *(f"trial-{number:03d}" for number in range(11))]


def judge(suggestion: Suggestion) -> dict[str, float]:
    """Metrics as a function of the configuration alone; some trials diverge."""
    ratio, weight = suggestion.config.sampling.replay_ratio, suggestion.config.distill.model_weight
    pull = math.log10(weight) if weight else -2.0
    diverged = suggestion.config.codebook.anchor == "probrandom" and ratio > 0.4
    return {
        "plasticity": math.nan if diverged else 8 - pull - 3 * ratio,
        "forgetting_rate": 30 * (0.7 - ratio) - 2 * pull,
        "trial_seconds": 3.0,
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    with Journal(path) as journal:
        journal.append("sweep_created", objectives=SWEEP.objectives, **SETTINGS)
        yield journal


def run_to_the_end(journal: Journal, sweep: Sweep = SWEEP) -> list[Suggestion]:
    """One trial after the other, as the tuner would."""
    source, given = TrialSource(sweep, journal, seed=5), []
    while (suggestion := source.suggest()) is not None:
        given.append(suggestion)
        journal.append("started", trial_id=suggestion.trial_id)
        source.tell(suggestion.trial_id, judge(suggestion), f"checkpoints/{suggestion.trial_id}")
    return given


def test_anchors_come_first_then_the_papers_point_then_the_sampler(journal: Journal) -> None:
    given = run_to_the_end(journal)
    assert [suggestion.trial_id for suggestion in given] == IDS
    assert [suggestion.kind for suggestion in given] == ["anchor"] * 2 + ["search"] * 11
    assert [suggestion.config for suggestion in given[:2]] == [
        apply_preset(SWEEP.base, name) for name in ("base", "dcpt")
    ]
    assert given[2].params == {
        "sampling.replay_ratio": 0.5,
        "distill.model_weight": 10.0,
        "codebook.anchor": "centroid",
        "sampling.num_clusters": 100,
    }
    assert given[2].config == SWEEP.base
    for suggestion in given[2:]:
        assert all(contains(SWEEP.space[key], value) for key, value in suggestion.params.items())
        assert suggestion.config == apply(SWEEP, suggestion.params)
    assert len({str(suggestion.params) for suggestion in given[2:]}) == 11


def test_a_suggestion_is_on_the_disk_before_it_is_given_out(journal: Journal, path: Path) -> None:
    source = TrialSource(SWEEP, journal, seed=5)
    while (suggestion := source.suggest()) is not None:
        last = read_journal(path)[-1]
        assert last.event == "suggested"
        assert last.data == {
            "trial_id": suggestion.trial_id,
            "kind": suggestion.kind,
            "params": suggestion.params,
            "config": to_dict(suggestion.config),
        }
    assert list(journal.state.trials) == IDS


@pytest.mark.parametrize(
    ("metrics", "reason"),
    [
        ({"forgetting_rate": 1.0}, "plasticity never arrived"),
        ({"plasticity": math.nan, "forgetting_rate": 1.0}, "plasticity is nan"),
        ({"plasticity": math.inf, "forgetting_rate": -math.inf}, "plasticity is inf; forgetting_rate is -inf"),
        ({}, "plasticity never arrived; forgetting_rate never arrived"),
    ],
)
def test_a_trial_without_finite_objectives_fails_with_the_reason_and_is_no_point(
    journal: Journal, metrics: dict[str, float], reason: str
) -> None:
    source = TrialSource(SWEEP, journal, seed=5)
    given = [source.suggest() for _ in range(4)]
    for suggestion in given:
        assert suggestion is not None
        good = {"plasticity": 1.0, "forgetting_rate": 2.0}
        source.tell(suggestion.trial_id, metrics if suggestion.trial_id == "trial-000" else good, "")
    record = journal.state.trials["trial-000"]
    assert (record.status, record.reason, record.metrics) == ("failed", reason, {})
    assert [ranked.record.trial_id for ranked in ranked_trials(journal.state)] == [*IDS[:2], "trial-001"]
    assert source.suggest() is not None  # and the sampler goes on


def test_other_metrics_that_are_not_finite_are_left_out_of_a_told_trial(journal: Journal) -> None:
    source = TrialSource(SWEEP, journal, seed=5)
    assert source.suggest() is not None
    source.tell("anchor-base", {"plasticity": 0.0, "forgetting_rate": 0.0, "codebook/perplexity": math.nan}, "c")
    assert journal.state.trials["anchor-base"].metrics == {"plasticity": 0.0, "forgetting_rate": 0.0}


def test_told_results_steer_the_sampler(tmp_path: Path) -> None:
    """After the random ones, the same seed with opposite results asks for other points."""
    params = []
    for sign in (1.0, -1.0):
        with Journal(tmp_path / f"{sign}.jsonl") as journal:
            journal.append("sweep_created", objectives=SWEEP.objectives, **SETTINGS)
            source, asked = TrialSource(SWEEP, journal, seed=5), []
            while (suggestion := source.suggest()) is not None:
                asked.append(suggestion.params)
                told = {"plasticity": sign * suggestion.config.sampling.replay_ratio, "forgetting_rate": 0.0}
                source.tell(suggestion.trial_id, told, "")
            params.append(asked)
    assert params[0][:10] == params[1][:10]
    assert params[0][10:] != params[1][10:]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The journal of a sweep that never stopped."""
    path = tmp_path_factory.mktemp("whole") / "journal.jsonl"
    with Journal(path) as journal:
        journal.append("sweep_created", objectives=SWEEP.objectives, **SETTINGS)
        run_to_the_end(journal)
    return path


def outcome(events: list[Event]) -> list[tuple[str, Any]]:
    """Every suggestion and every end, in order, without the times, whichever driver wrote them."""
    return [(event.event, event.data) for event in events if event.event not in ("started", "resumed")]


def test_the_whole_sweep_has_told_and_failed_trials(whole: Path) -> None:
    ends = [event.event for event in read_journal(whole) if event.event in ("told", "failed")]
    assert len(ends) == 13 and {"told", "failed"} == set(ends)


@pytest.mark.parametrize("part", range(4))
def test_a_sweep_cut_after_any_event_goes_on_as_if_it_had_not_been(whole: Path, tmp_path: Path, part: int) -> None:
    lines = whole.read_bytes().splitlines(keepends=True)
    expected = outcome(read_journal(whole))
    for cut in range(1 + part, len(lines), 4):
        path = tmp_path / f"{cut}.jsonl"
        path.write_bytes(b"".join(lines[:cut]))
        with Journal(path) as journal:
            run_to_the_end(journal)
        assert outcome(read_journal(path)) == expected, f"cut after {cut} events"


def test_a_sweep_torn_within_a_line_goes_on_the_same_too(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "torn.jsonl"
    shutil.copy(whole, path)
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(size * 2 // 3 + 5)
    with Journal(path) as journal:
        run_to_the_end(journal)
    assert outcome(read_journal(path)) == outcome(read_journal(whole))


def test_a_finished_sweep_gives_nothing_more_until_it_is_made_longer(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "longer.jsonl"
    shutil.copy(whole, path)
    with Journal(path) as journal:
        assert TrialSource(SWEEP, journal, seed=5).suggest() is None
        more = run_to_the_end(journal, Sweep(**SWEEP.__dict__ | {"num_trials": 13}))
    assert [suggestion.trial_id for suggestion in more] == ["trial-011", "trial-012"]


def test_no_failed_trial_is_on_the_front(whole: Path) -> None:
    with Journal(whole) as journal:
        failed = {record.trial_id for record in journal.state.trials.values() if record.status == "failed"}
        assert failed and not failed & {ranked.record.trial_id for ranked in front(journal.state)}


def give_and_take(source: TrialSource, concurrency: int) -> Iterator[Suggestion]:
    """Every suggestion of a sweep with so many trials at a time, the oldest of which ends first; some are pruned."""
    running: deque[Suggestion] = deque()
    while True:
        while len(running) < concurrency and (suggestion := source.suggest()) is not None:
            running.append(suggestion)
            yield suggestion
        if not running:
            return
        done = running.popleft()
        if done.trial_id.endswith(("3", "7")):
            source.prune(done.trial_id, "off the front", {"forgetting_rate": 40.0})
        else:
            source.tell(done.trial_id, judge(done), "c")


def next_by_another_driver(sweep: Sweep, journal_lines: list[bytes], path: Path) -> tuple[list[str], Suggestion | None]:
    """Ids of what a driver that finds these lines begins again, and what it then suggests."""
    path.write_bytes(b"".join(journal_lines))
    with Journal(path) as journal:
        source, again = TrialSource(sweep, journal, seed=5), list[str]()
        num_unfinished = sum(not record.is_finished for record in journal.state.trials.values())
        for _ in range(num_unfinished):
            suggestion = source.suggest()
            assert suggestion is not None
            again.append(suggestion.trial_id)
        return again, source.suggest()


@pytest.mark.parametrize("sampler", get_args(SamplerName))
def test_whatever_the_sampler_another_driver_suggests_what_the_first_one_did(
    sampler: SamplerName, tmp_path: Path
) -> None:
    """Three trials at a time; at every suggestion the first driver is replaced by one that has the journal alone."""
    num_trials = 11 if sampler == "gp" else 20
    sweep = Sweep(**SWEEP.__dict__ | {"sampler": sampler, "num_trials": num_trials})
    path, given = tmp_path / "journal.jsonl", list[str]()
    with Journal(path) as journal:
        journal.append("sweep_created", objectives=SWEEP.objectives, **SETTINGS)
        source = TrialSource(sweep, journal, seed=5)
        for suggestion in give_and_take(source, 3):
            lines = path.read_bytes().splitlines(keepends=True)[:-1]
            again, following = next_by_another_driver(sweep, lines, tmp_path / "other.jsonl")
            assert following == suggestion
            assert again == given[len(given) - len(again) :] and len(again) <= 2
            given.append(suggestion.trial_id)
        records = journal.state.trials.values()
        assert len(given) == num_trials + 2 and source.end_reason == f"all {num_trials} trials were launched"
        assert {record.status for record in records} == {"told", "failed", "pruned"}


@pytest.mark.parametrize("sampler", get_args(SamplerName))
def test_a_finite_space_ends_the_sweep_with_every_point_tried_once(sampler: SamplerName, journal: Journal) -> None:
    space: dict[str, Dimension] = {
        "codebook.anchor": choice("centroid", "closest", "probrandom"),
        "sampling.num_clusters": int_uniform(99, 102),
    }
    source = TrialSource(Sweep(**SWEEP.__dict__ | {"space": space, "num_trials": 40, "sampler": sampler}), journal, 5)
    given = [suggestion.params for suggestion in give_and_take(source, 2) if suggestion.kind == "search"]
    assert len(given) == len({str(params) for params in given}) == 12
    assert source.end_reason == "every point of the space was tried"
    assert all(record.is_finished for record in journal.state.trials.values())


def test_what_the_sampler_goes_by_is_what_the_journal_says_in_the_order_in_which_it_ended(path: Path) -> None:
    clock = Clock()
    with Journal(path, clock=clock) as journal:
        journal.append("sweep_created", objectives=SWEEP.objectives, **SETTINGS)
        source = TrialSource(SWEEP, journal, seed=5)
        given = [suggestion for suggestion in (source.suggest() for _ in range(7)) if suggestion is not None]
        told, failed, pruned, runs, late = given[2:]
        source.tell(late.trial_id, {"plasticity": 2.0, "forgetting_rate": 9.0}, "")
        clock.now_s += 1
        source.tell(told.trial_id, {"plasticity": 1.0, "forgetting_rate": 3.5}, "")
        source.fail(failed.trial_id, "worker lost")
        clock.now_s += 1
        source.prune(pruned.trial_id, "off the front", {})
        assert source.observed() == [
            Observed(late.params, "told", (2.0, 9.0), 4.0),
            Observed(told.params, "told", (1.0, 3.5), -1.5),
            Observed(pruned.params, "pruned"),
            Observed(runs.params, "running"),
        ]


def test_an_anchor_that_is_a_point_of_the_space_is_known_and_not_tried_twice(journal: Journal) -> None:
    sweep = Sweep(**SWEEP.__dict__ | {"anchors": ("base", "sonar"), "num_trials": 3})
    given = run_to_the_end(journal, sweep)
    point = {"sampling.replay_ratio": 0.5, "distill.model_weight": 10.0, "codebook.anchor": "centroid"}
    point["sampling.num_clusters"] = 100
    assert given[1].trial_id == "anchor-sonar" and given[1].params == {}
    assert point not in [suggestion.params for suggestion in given[2:]]
    anchor, *_ = TrialSource(sweep, journal, seed=5).observed()
    assert (anchor.params, anchor.status) == (point, "told")


class Clock:
    """Set by hand."""

    now_s = 1e9

    def __call__(self) -> float:
        return self.now_s


def test_hours_end_a_sweep_but_not_what_is_begun_nor_the_anchors(path: Path) -> None:
    clock, sweep = Clock(), Sweep(**SWEEP.__dict__ | {"budget_hours": 2.0})
    with Journal(path, clock=clock) as journal:
        journal.append("sweep_created", objectives=SWEEP.objectives, **SETTINGS)
        source = TrialSource(sweep, journal, seed=5, clock=clock)
        given = [source.suggest() for _ in range(4)]
        clock.now_s += 2 * 3600
        assert source.suggest() is None and source.end_reason == "2.00 of 2 hours are spent"
        journal.append("ended", reason=source.end_reason)
    clock.now_s += 50 * 3600
    with Journal(path, clock=clock) as journal:
        source = TrialSource(sweep, journal, seed=5, clock=clock)
        again = [source.suggest() for _ in range(4)]
        assert again == given  # begun, so they are finished
        assert source.suggest() is None
        assert [event.event for event in read_journal(path)].count("resumed") == 1
        longer = TrialSource(Sweep(**sweep.__dict__ | {"budget_hours": 2.1}), journal, seed=5, clock=clock)
        assert [longer.suggest() for _ in range(4)] == given
        assert (following := longer.suggest()) is not None and following.trial_id == "trial-002"


def test_a_search_that_ended_does_not_begin_anew_in_the_same_driver(journal: Journal) -> None:
    """Tune has been told that it is finished; a trial that ends later must not make it otherwise."""
    sweep = Sweep(**SWEEP.__dict__ | {"converge": Convergence(num_trials=2, gain_percent=1.0)})
    source = TrialSource(sweep, journal, seed=5)
    given = [suggestion for suggestion in (source.suggest() for _ in range(5)) if suggestion is not None]
    for suggestion, forgetting in zip(given[:4], (0.0, 10.0, 5.0, 5.0), strict=True):
        plasticity = 1.0 if suggestion.kind == "anchor" else 0.5
        source.tell(suggestion.trial_id, {"plasticity": plasticity, "forgetting_rate": forgetting}, "")
    assert source.suggest() is None and "the last 2 trials added 0.00 %" in str(source.end_reason)
    source.tell(given[4].trial_id, {"plasticity": 90.0, "forgetting_rate": -50.0}, "")
    assert source.suggest() is None
    assert TrialSource(sweep, journal, seed=5).suggest() is not None


def test_hours_between_drivers_are_nobodys_though_the_first_was_killed(path: Path) -> None:
    clock, sweep = Clock(), Sweep(**SWEEP.__dict__ | {"budget_hours": 2.0})
    for _ in range(3):
        with Journal(path, clock=clock) as journal:
            if not journal.state.settings:
                journal.append("sweep_created", objectives=SWEEP.objectives, **SETTINGS)
            source = TrialSource(sweep, journal, seed=5, clock=clock)
            suggestion = source.suggest()
            assert suggestion is not None
            clock.now_s += 0.9 * 3600
            source.fail(suggestion.trial_id, "killed")
        clock.now_s += 70 * 3600
    with Journal(path, clock=clock) as journal:
        assert spent_hours(journal.state, clock.now_s, clock.now_s) == pytest.approx(2.7)
        source = TrialSource(Sweep(**sweep.__dict__ | {"anchors": ()}), journal, seed=5, clock=clock)
        assert source.suggest() is None and source.end_reason == "2.70 of 2 hours are spent"


def test_a_driver_with_nothing_to_give_writes_nothing(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "again.jsonl"
    shutil.copy(whole, path)
    with Journal(path) as journal:
        assert TrialSource(SWEEP, journal, seed=5).suggest() is None
    assert path.read_bytes() == whole.read_bytes()
