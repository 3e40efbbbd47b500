"""On Ray: a trial whose process or node dies goes on elsewhere from what it saved, and is told once."""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from fake_driver import SETTINGS, SWEEP
from ray.cluster_utils import Cluster

from sonar.search import tuner
from sonar.search.journal import Journal, read_journal
from sonar.search.prepare import Prepared
from sonar.search.searcher import TrialSource
from sonar.search.space import Sweep
from sonar.search.stopping import StopRequest
from sonar.search.tuner import MAX_DEATHS, Driver, TrialSlots, tune_trials

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]
SHORT = Sweep(**SWEEP.__dict__ | {"num_trials": 2})
STEPS = 4


def made_trial(step_s: float, victim: str, deaths: int) -> Callable[..., None]:
    """A trial that saves every step; `victim` kills its own process in its third one, so often.

    Nested, so that Ray takes it to its workers by value.
    """

    def trial(config: dict[str, Any], *, prepared: Prepared, folder: str, threads: int, is_stopping: Any) -> None:
        from ray import tune

        place = Path(folder) / "trials" / config["trial_id"]
        place.mkdir(parents=True, exist_ok=True)
        state, log = place / "state", place / "work.log"
        for step in range(1 + (int(state.read_text()) if state.exists() else 0), STEPS + 1):
            with log.open("a") as file:
                file.write(f"{step}\n")
            if config["trial_id"] == victim and step == 3 and log.read_text().split().count("3") <= deaths:
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(step_s)
            state.write_text(str(step))
            tune.report({"model/loss": 1.0 / step, "step": step})
        ratio = config["config"]["sampling"]["replay_ratio"]
        end = {"plasticity": 10 * ratio, "forgetting_rate": 20 * (1 - ratio), "checkpoint_path": str(place)}
        tune.report({"has_ended": True, **end})

    return trial


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "journal.jsonl") as journal:
        journal.append("sweep_created", **SETTINGS | {"num_trials": SHORT.num_trials})
        yield journal


def run(
    journal: Journal, trial: Callable[..., None], monkeypatch: pytest.MonkeyPatch, resources: dict[str, float]
) -> None:
    monkeypatch.setattr(tuner, "trainable", trial)
    folder = journal.path.parent
    driver = Driver(TrialSource(SHORT, journal, 5), journal, StopRequest(folder), lambda: None)
    tune_trials(driver, Prepared(*"abcde"), folder, TrialSlots(resources, 2, 1))


def steps_of(journal: Journal, trial_id: str) -> list[int]:
    return [int(step) for step in (journal.path.parent / "trials" / trial_id / "work.log").read_text().split()]


def ends(journal: Journal) -> Counter[tuple[str, str]]:
    events = read_journal(journal.path)
    return Counter((e.data["trial_id"], e.event) for e in events if e.event in ("told", "failed", "pruned"))


def test_a_killed_process_of_a_trial_is_started_again_from_its_state(
    local_ray: None, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(journal, made_trial(0.0, "trial-000", deaths=1), monkeypatch, {"CPU": 1.0})
    assert set(ends(journal).values()) == {1} and {event for _, event in ends(journal)} == {"told"}
    assert len(ends(journal)) == 4
    assert steps_of(journal, "trial-000") == [1, 2, 3, 3, 4]  # one interval of work is lost
    assert journal.state.trials["trial-000"].num_starts == 2
    assert steps_of(journal, "trial-001") == [1, 2, 3, 4]


def test_a_trial_whose_process_always_dies_fails_with_that_reason_and_the_others_go_on(
    local_ray: None, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(journal, made_trial(0.0, "anchor-dcpt", deaths=99), monkeypatch, {"CPU": 1.0})
    assert ends(journal)[("anchor-dcpt", "failed")] == 1
    assert str(journal.state.trials["anchor-dcpt"].reason).startswith(f"given up after {MAX_DEATHS + 1} starts: ")
    assert sum(event == "told" for _, event in ends(journal)) == 3
    assert steps_of(journal, "anchor-dcpt") == [1, 2, *[3] * (MAX_DEATHS + 1)]


def test_a_node_that_goes_away_takes_no_trial_with_it(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Both nodes have a slot; the second one is taken away while a trial runs there, which goes on on the first."""
    if ray.is_initialized():
        ray.shutdown()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "resources": {"slot": 1}})
    node = cluster.add_node(num_cpus=1, resources={"slot": 1})
    ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")

    def take_away() -> None:
        while sum(record.status == "started" and bool(record.reports) for record in journal.state.trials.values()) < 2:
            time.sleep(0.05)
        cluster.remove_node(node, allow_graceful=False)

    taker = threading.Thread(target=take_away, daemon=True)
    taker.start()
    try:
        run(journal, made_trial(1.0, "nobody", deaths=0), monkeypatch, {"CPU": 0.5, "slot": 1.0})
        taker.join()
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert len(ends(journal)) == 4 and set(ends(journal).values()) == {1}
    assert {event for _, event in ends(journal)} == {"told"}
    moved = [trial_id for trial_id, record in journal.state.trials.items() if record.num_starts > 1]
    assert len(moved) == 1
    assert len(steps_of(journal, moved[0])) <= STEPS + 1
