"""Early stopping on Tune: what stops is pruned in the journal, what does not is told, and nothing is both."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sonar.config import ConfigError, override, to_dict
from sonar.experiment import TrialConfig
from sonar.search import tuner
from sonar.search.halving import HalvingConfig
from sonar.search.journal import Journal, read_journal
from sonar.search.prepare import Prepared
from sonar.search.scheduler import scheduler_of
from sonar.search.searcher import TrialSource
from sonar.search.space import Sweep, describe_space, uniform
from sonar.search.stopping import StopRequest
from sonar.search.tuner import Driver, TrialSlots, tune_trials

POINTS, EVERY = 8, 10
SWEEP = Sweep(
    domain="bio",
    base=override(TrialConfig(), {"evaluation.every": EVERY}),
    space={"sampling.replay_ratio": uniform(0.1, 0.7)},
    objectives={"plasticity": "max", "forgetting_rate": "min"},
    num_trials=10,
    halving=HalvingConfig(eta=2.0, grace_points=2, num_rungs=2, margin=4.0),
)


def settings(sweep: Sweep) -> dict[str, Any]:
    return {
        "config": to_dict(sweep.base),
        "space": describe_space(sweep.space),
        "objectives": sweep.objectives,
        "forgetting_limit": sweep.forgetting_limit,
        "anchors": sweep.anchors,
        "halving": None if sweep.halving is None else to_dict(sweep.halving),
        "seed": 3,
    }


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "journal.jsonl") as journal:
        journal.append("sweep_created", **settings(SWEEP))
        yield journal


def made_trial() -> Callable[..., None]:
    """In place of a trial: no training; nested, so that Ray takes it to its workers by value."""

    def trial(config: dict[str, Any], *, prepared: Prepared, folder: str, threads: int, is_stopping: Any) -> None:
        from ray import tune

        ratio = config["config"]["sampling"]["replay_ratio"]
        trial_id, points, every = config["trial_id"], 8, 10
        # The less replay, the more it forgets; more than 9 % is more than the limit and its margin allow.
        plasticity, forgetting = 10 * ratio, 20 * (0.7 - ratio)
        path = Path(folder) / f"{trial_id}.steps"
        for step in range(every, points * every, every):
            path.write_text(str(step))
            value = float("nan") if trial_id == "trial-004" else plasticity
            tune.report(
                {"model/plasticity": value, "model/forgetting_rate": forgetting, "model/steps": step, "step": step}
            )
        told = {"plasticity": plasticity, "forgetting_rate": forgetting, "checkpoint_path": f"{trial_id}/c"}
        tune.report({"has_ended": True, **told})

    return trial


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_on_ray_bad_trials_are_pruned_with_reason_and_last_report_and_all_others_told(
    local_ray: None, journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuner, "trainable", made_trial())
    source = TrialSource(SWEEP, journal, seed=3)
    driver = Driver(source, journal, StopRequest(tmp_path), lambda: None)
    tune_trials(driver, Prepared(*"abcde"), tmp_path, TrialSlots({"CPU": 1.0}, 2, 1))
    trials = journal.state.trials
    assert len(trials) == SWEEP.num_trials + 2
    pruned = {trial_id: record for trial_id, record in trials.items() if record.status == "pruned"}
    assert {record.status for record in trials.values()} == {"pruned", "told"}
    assert trials["anchor-base"].status == trials["anchor-dcpt"].status == "told"
    assert pruned.pop("trial-004").reason == "step 10: plasticity is nan, forgetting is " + str(
        20 * (0.7 - trials["trial-004"].params["sampling.replay_ratio"])
    )
    for trial_id, record in trials.items():
        ratio = record.config["sampling"]["replay_ratio"]
        came_to = int((tmp_path / f"{trial_id}.steps").read_text())
        if trial_id in pruned:
            assert record.reports[-1].step == came_to < (POINTS - 1) * EVERY, "it went on after it was stopped"
            assert record.reason is not None and record.reason.startswith(f"step {came_to}")
            last = next(e for e in read_journal(journal.path) if e.event == "pruned" and e.data["trial_id"] == trial_id)
            assert last.data["metrics"]["model/steps"] == came_to
            assert math.isclose(last.data["metrics"]["model/plasticity"], 10 * ratio)
        broke = 20 * (0.7 - ratio) > 9
        assert not broke or trial_id in pruned or trial_id == "trial-004" or trial_id.startswith("anchor")
    assert pruned, "the seed draws no bad trial; choose another"


def prune_one(journal: Journal, source: TrialSource) -> str:
    """Tell all trials but the last one, which is stopped."""
    ids = []
    while (suggestion := source.suggest()) is not None:
        ids.append(suggestion.trial_id)
        journal.append("started", trial_id=suggestion.trial_id)
        if suggestion.trial_id == "trial-009":
            source.prune(suggestion.trial_id, "place 9 of 9", {"model/plasticity": math.nan, "model/steps": 20.0})
        else:
            ratio = suggestion.config.sampling.replay_ratio
            source.tell(suggestion.trial_id, {"plasticity": 10 * ratio, "forgetting_rate": 20 * (1 - ratio)}, "c")
    return ids[-1]


def test_the_sampler_hears_of_a_stopped_trial_as_pruned_and_of_no_values(journal: Journal) -> None:
    source = TrialSource(SWEEP, journal, seed=3)
    stopped = prune_one(journal, source)
    record = journal.state.trials[stopped]
    assert (record.status, record.reason, record.metrics) == ("pruned", "place 9 of 9", {})
    for told in (source, TrialSource(SWEEP, journal, seed=3)):  # live, and rebuilt from the journal
        *others, last = told.observed()
        assert [seen.status for seen in others] == ["told"] * 9
        assert (last.params, last.status, last.values) == (record.params, "pruned", ())
    longer = Sweep(**SWEEP.__dict__ | {"num_trials": 12})
    assert TrialSource(longer, journal, seed=3).suggest() is not None  # and it goes on


def test_a_scheduler_made_from_a_journal_knows_whom_an_earlier_driver_had_stopped(journal: Journal) -> None:
    for trial_id, kind in (("anchor-base", "anchor"), ("trial-000", "search")):
        journal.append("suggested", trial_id=trial_id, kind=kind, params={})
        journal.append("started", trial_id=trial_id)
        metrics = {"model/plasticity": 1.0, "model/forgetting_rate": 30.0, "model/steps": 20.0}
        journal.append("reported", trial_id=trial_id, step=20, metrics=metrics)
    scheduler = scheduler_of(journal, tuner._numbers)
    assert scheduler is not None
    assert scheduler.reason("anchor-base") is None
    assert "above the limit of 5 % by more than 4" in str(scheduler.reason("trial-000"))


def test_without_halving_there_is_no_scheduler_also_in_a_journal_that_does_not_know_the_word(tmp_path: Path) -> None:
    for number, known in enumerate((settings(SWEEP) | {"halving": None}, settings(SWEEP))):
        if number:
            del known["halving"]
        with Journal(tmp_path / f"{number}.jsonl") as journal:
            journal.append("sweep_created", **known)
            assert scheduler_of(journal, tuner._numbers) is None


def test_a_sweep_that_asks_for_halving_without_points_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"halving: trials are judged by .*; set evaluation.every to some steps, or"):
        Sweep(**SWEEP.__dict__ | {"base": TrialConfig()})
