"""One journal, four views: what the sampler knows, MLflow, the tables and the front say the same of every trial."""

import csv
import math
from pathlib import Path
from typing import NamedTuple

import pytest
from fake_driver import SEED, SETTINGS, SWEEP

from sonar.search.journal import Journal, SweepState, read_journal, replay
from sonar.search.results import front, write_front_csv, write_trials_csv
from sonar.search.samplers import Proposer
from sonar.search.searcher import TrialSource
from sonar.search.snapshot import snapshot
from sonar.search.space import describe_space
from sonar.tracking import sync_mlflow

AXES = ("plasticity", "forgetting_rate")


class View(NamedTuple):
    """What one of them says: status by trial, both axes of the told ones, and the ids of the front."""

    statuses: dict[str, str]
    axes: dict[str, tuple[float, ...]]
    front: set[str]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The journal of a sweep with trials that were told, failed, pruned, that wait and that run."""
    path = tmp_path / "bio" / "journal.jsonl"
    with Journal(path) as journal:
        made_of = {"name": "bio", "domain": "bio", "space": describe_space(SWEEP.space)}
        journal.append("sweep_created", **SETTINGS | made_of)
        source, number = TrialSource(SWEEP, journal, SEED), 0
        while (one := source.suggest()) is not None:
            journal.append("started", trial_id=one.trial_id)
            journal.append("reported", trial_id=one.trial_id, step=1, metrics={"model/loss": 2.0, "x": math.nan})
            number += 1
            if number == 4:
                source.fail(one.trial_id, "loss is nan")
            elif number == 6:
                source.tell(one.trial_id, {"plasticity": math.inf, "forgetting_rate": 0.0}, "c")
            elif number in (5, 9):
                source.prune(one.trial_id, "step 20: place 9 of 9", {"model/plasticity": 0.5})
            elif number == 12:
                journal.append("paused", trial_id=one.trial_id, reason="stopped after step 1 of model")
            elif number < 12:
                forgetting = 0.37 * (number - 5) ** 2 - 1
                source.tell(one.trial_id, {"plasticity": 1.1 * number, "forgetting_rate": forgetting}, one.trial_id)
    return path


@pytest.fixture
def state(path: Path) -> SweepState:
    return replay(read_journal(path))


def by_definition(axes: dict[str, tuple[float, ...]]) -> set[str]:
    """The told trials that no other one dominates, from the numbers of a view itself."""

    def dominates(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
        return a[0] >= b[0] and a[1] <= b[1] and a != b

    return {name for name, mine in axes.items() if not any(dominates(other, mine) for other in axes.values())}


def of_the_journal(state: SweepState) -> View:
    axes = {r.trial_id: tuple(r.metrics[a] for a in AXES) for r in state.trials.values() if r.status == "told"}
    members = {ranked.record.trial_id for ranked in front(state)}
    return View({r.trial_id: r.status for r in state.trials.values()}, axes, members)


def of_the_study(path: Path) -> dict[tuple[object, ...], tuple[str, tuple[float, ...] | None]]:
    """State and values of every trial that the study rebuilt from the journal holds, by its point."""
    with Journal(path) as journal:
        observed = TrialSource(SWEEP, journal, SEED).observed()
    trials = Proposer("tpe", SWEEP.space, ["max", "min"], SEED)._frozen(observed)
    return {
        tuple(trial.params.items()): (trial.state.name, tuple(trial.values) if trial.values else None)
        for trial in trials
    }


def of_mlflow(state: SweepState, folder: Path) -> View:
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{folder}/mlflow.db"
    sync_mlflow(snapshot(state, finished=False), uri=uri, experiment="bio")
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("bio")
    assert experiment is not None
    runs = {r.data.tags.get("sonar.trial_id"): r for r in client.search_runs([experiment.experiment_id])}
    trials = {name: run for name, run in runs.items() if name is not None}
    axes = {n: tuple(r.data.metrics[a] for a in AXES) for n, r in trials.items() if r.info.status == "FINISHED"}
    members = {n for n, r in trials.items() if r.data.tags.get("pareto.rank") == "1"}
    return View({name: run.info.status for name, run in trials.items()}, axes, members)


def of_the_tables(state: SweepState, folder: Path) -> View:
    write_trials_csv(state, folder / "trials.csv")
    write_front_csv(state, folder / "front.csv")
    tables = []
    for name in ("trials.csv", "front.csv"):
        with (folder / name).open(newline="", encoding="utf-8") as file:
            tables.append(list(csv.DictReader(file)))
    axes = {row["trial_id"]: tuple(float(row[a]) for a in AXES) for row in tables[0] if row["status"] == "told"}
    return View({row["trial_id"]: row["status"] for row in tables[0]}, axes, {row["trial_id"] for row in tables[1]})


def test_study_mlflow_tables_and_front_are_equal(path: Path, state: SweepState, tmp_path: Path) -> None:
    journal = of_the_journal(state)
    assert set(journal.statuses.values()) == {"told", "failed", "pruned", "paused", "started"}
    assert journal.front == by_definition(journal.axes) and len(journal.front) >= 3

    tables, mlflow = of_the_tables(state, tmp_path), of_mlflow(state, tmp_path)
    assert tables == journal
    words = {"told": "FINISHED", "failed": "FAILED", "pruned": "KILLED", "paused": "SCHEDULED", "started": "RUNNING"}
    assert mlflow.statuses == {name: words[status] for name, status in journal.statuses.items()}
    assert (mlflow.axes, mlflow.front) == (journal.axes, journal.front)

    study, points = of_the_study(path), {}
    words = {"told": "COMPLETE", "pruned": "PRUNED", "paused": "RUNNING", "started": "RUNNING"}
    for record in state.trials.values():
        if record.kind == "search" and record.status in words:  # a failed trial tells a sampler nothing
            values = journal.axes.get(record.trial_id)
            points[tuple((key, record.params[key]) for key in SWEEP.space)] = (words[record.status], values)
    assert {point: seen for point, seen in study.items() if point in points} == points
    anchors = {journal.axes[r.trial_id] for r in state.trials.values() if r.kind == "anchor"}
    assert {seen[1] for point, seen in study.items() if point not in points} <= anchors
