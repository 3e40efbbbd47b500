"""The source of trials: its order, what is in the journal when, and a sweep cut anywhere that goes on the same."""

import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sonar.config import override, to_dict
from sonar.experiment import TrialConfig, apply_preset
from sonar.search.journal import Event, Journal, read_journal
from sonar.search.results import front, ranked_trials
from sonar.search.searcher import Suggestion, TrialSource
from sonar.search.space import Sweep, apply, choice, contains, int_uniform, log_uniform, uniform

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


def test_anchors_come_first_then_the_base_point_then_the_sampler(journal: Journal) -> None:
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


def test_a_base_outside_the_space_is_no_trial(journal: Journal) -> None:
    base = override(SWEEP.base, {"sampling.replay_ratio": 0.9})
    given = run_to_the_end(journal, Sweep(**SWEEP.__dict__ | {"base": base, "num_trials": 2}))
    assert len(given) == 4
    assert all(0.1 <= suggestion.params["sampling.replay_ratio"] <= 0.7 for suggestion in given[2:])


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
    """Every suggestion and every end, in order, without the times."""
    return [(event.event, event.data) for event in events if event.event != "started"]


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
