"""MLflow ends equal to the records, however often it is written and whatever fails in between."""

import logging
import math
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from sonar.mirror import MirrorThread, RunRecord, SeriesPoint, SweepSnapshot
from sonar.tracking import PARENT_TAG, SWEEP_TAG, TRIAL_TAG, MlflowMirror, sync_mlflow

pytestmark = pytest.mark.timeout(120)


def snapshot(
    num_steps: int = 3, ended: bool = False, pick: str | None = None, path: Path | None = None
) -> SweepSnapshot:
    status: Any = "FINISHED" if ended else "RUNNING"
    trials = [
        RunRecord(
            key=f"trial-{index}",
            name=f"trial <{index}>",
            params={"sampling.replay_ratio": 0.1 + index / 3, "sampling.retrieval": "knn"},
            metrics={"plasticity": 6.1 + index, "forgetting_rate": 0.2} if ended else {},
            series=[
                SeriesPoint(step, 1_700_000_000_000 + step, {"model/loss": 1 / (step + 3), "perplexity": math.nan})
                for step in range(num_steps)
            ],
            tags={"domain": "bio"} | ({"pareto.pick": "epsilon"} if pick == f"trial-{index}" else {}),
            status=status,
            start_ms=1_700_000_000_000,
            end_ms=1_700_000_100_000 if ended else None,
        )
        for index in range(2)
    ]
    sweep = RunRecord(key="bio", name="bio", metrics={"hypervolume": 0.4}, status=status, start_ms=1_700_000_000_000)
    return SweepSnapshot(sweep=sweep, trials=trials, artifacts=[path] if path else [])


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Bytes of a fresh store: its migrations take seconds, so they run once for all tests."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    mirror = MlflowMirror(f"sqlite:///{path}", "other")
    mirror.sync(SweepSnapshot(sweep=RunRecord(key="other", name="other")))
    return path.read_bytes()


@pytest.fixture
def uri(tmp_path: Path, empty_store: bytes) -> str:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mlflow.db").write_bytes(empty_store)
    return f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}"


def stored(uri: str) -> dict[str, Any]:
    """What a user of MLflow's own client finds, by trial id; the parent under the empty name."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("bio")
    assert experiment is not None
    found = {}
    for run in client.search_runs([experiment.experiment_id]):
        key = run.data.tags.get(TRIAL_TAG, "")
        assert key not in found, "a run was made twice"
        history = {
            name: [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, name)]
            for name in run.data.metrics
        }
        found[key] = (run, history)
    return found


def test_the_store_holds_exactly_the_records(uri: str) -> None:
    sync_mlflow(snapshot(ended=True), uri=uri, experiment="bio")
    found = stored(uri)
    assert set(found) == {"", "trial-0", "trial-1"}
    parent, _ = found[""]
    assert parent.info.run_name == "bio" and parent.info.status == "FINISHED"
    for record in snapshot(ended=True).trials:
        run, history = found[record.key]
        assert run.data.tags[PARENT_TAG] == parent.info.run_id
        assert run.data.tags[SWEEP_TAG] == "bio" and run.data.tags["domain"] == "bio"
        assert run.data.params == {name: str(value) for name, value in record.params.items()}
        assert (run.info.run_name, run.info.status) == (record.name, "FINISHED")
        assert (run.info.start_time, run.info.end_time) == (record.start_ms, record.end_ms)
        assert {name: run.data.metrics[name] for name in record.metrics} == record.metrics
        assert history["model/loss"] == [(step, 1 / (step + 3)) for step in range(3)]
        assert "perplexity" not in history


def test_repeated_and_restarted_mirrors_write_nothing_twice(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = MlflowMirror(uri, "bio")
    mirror.sync(snapshot(1))
    mirror.sync(snapshot(2))
    MlflowMirror(uri, "bio").sync(snapshot(3))
    again = MlflowMirror(uri, "bio")
    again.sync(snapshot(3, ended=True, pick="trial-1"))
    for _, history in stored(uri).values():
        for points in history.values():
            assert len(points) == len(set(points))
    assert len(stored(uri)["trial-0"][1]["model/loss"]) == 3

    from mlflow.tracking import MlflowClient

    for name in ("log_batch", "create_run", "set_terminated", "update_run", "delete_tag"):
        monkeypatch.setattr(MlflowClient, name, lambda *a, **k: pytest.fail("written again"))
    again.sync(snapshot(3, ended=True, pick="trial-1"))
    MlflowMirror(uri, "bio").sync(snapshot(3, ended=True, pick="trial-1"))


def test_the_pick_moves_from_run_to_run(uri: str) -> None:
    mirror = MlflowMirror(uri, "bio")
    mirror.sync(snapshot(1, pick="trial-0"))
    MlflowMirror(uri, "bio").sync(snapshot(1, pick="trial-1"))
    found = stored(uri)
    assert "pareto.pick" not in found["trial-0"][0].data.tags
    assert found["trial-1"][0].data.tags["pareto.pick"] == "epsilon"


def test_artifacts_lie_on_the_parent_and_beside_the_store(uri: str, tmp_path: Path) -> None:
    path = tmp_path / "front.csv"
    path.write_text("a\n1\n")
    mirror = MlflowMirror(uri, "bio")
    mirror.sync(snapshot(1, path=path))
    path.write_text("a\n1\n2\n")
    mirror.sync(snapshot(1, path=path))
    parent, _ = stored(uri)[""]
    assert parent.info.artifact_uri.startswith((tmp_path / "runs").resolve().as_uri())
    (kept,) = (tmp_path / "runs").rglob("front.csv")
    assert kept.read_text() == "a\n1\n2\n"


def test_a_changed_param_is_told_once_and_hurts_nothing_else(uri: str, caplog: pytest.LogCaptureFixture) -> None:
    record = RunRecord(key="t", name="t", params={"a": 1})
    changed = RunRecord(key="t", name="t", params={"a": 2, "b": 3}, metrics={"x": 1.0})
    sweep = RunRecord(key="bio", name="bio")
    mirror = MlflowMirror(uri, "bio")
    mirror.sync(SweepSnapshot(sweep=sweep, trials=[record]))
    with caplog.at_level(logging.WARNING, "sonar.tracking"):
        mirror.sync(SweepSnapshot(sweep=sweep, trials=[changed]))
        mirror.sync(SweepSnapshot(sweep=sweep, trials=[changed]))
    assert [record.getMessage() for record in caplog.records] == ["MLflow keeps a = 1 of run 't', not 2"]
    run, _ = stored(uri)["t"]
    assert run.data.params == {"a": "1", "b": "3"} and run.data.metrics == {"x": 1.0}


def test_more_values_than_one_call_may_carry_all_arrive(uri: str) -> None:
    series = [SeriesPoint(step, step, {f"m{i}": float(step) for i in range(30)}) for step in range(40)]
    record = RunRecord(key="t", name="t", params={f"p{i}": i for i in range(250)}, series=series)
    sync_mlflow(SweepSnapshot(sweep=RunRecord(key="bio", name="bio"), trials=[record]), uri=uri, experiment="bio")
    run, history = stored(uri)["t"]
    assert len(run.data.params) == 250
    assert sum(len(points) for points in history.values()) == 1200


@pytest.mark.parametrize("failing", ["create_run", "log_batch", "set_terminated"])
def test_what_a_failing_store_missed_is_written_later_and_once(
    uri: str, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    from mlflow.tracking import MlflowClient

    mirror = MlflowMirror(uri, "bio")
    works = getattr(MlflowClient, failing)
    calls = 0

    def lost_answer(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        result = works(*args, **kwargs)  # it arrives, but the answer does not
        if calls == 2:
            raise ConnectionError("gone")
        return result

    monkeypatch.setattr(MlflowClient, failing, lost_answer)
    with pytest.raises(ConnectionError):
        mirror.sync(snapshot(ended=True))
    mirror.sync(snapshot(ended=True))
    found = stored(uri)
    assert set(found) == {"", "trial-0", "trial-1"}
    for run, history in found.values():
        assert run.info.status == "FINISHED"
        assert all(len(points) == len(set(points)) for points in history.values())
    assert len(found["trial-1"][1]["model/loss"]) == 3


def test_a_thread_writes_the_latest_snapshot_and_never_makes_the_caller_wait() -> None:
    seen, gate = [], threading.Event()

    def slow(one: SweepSnapshot) -> None:
        gate.wait(10)
        seen.append(len(one.trials[0].series))

    mirror = MirrorThread(slow)
    began = time.monotonic()
    for steps in range(1, 50):
        mirror.submit(snapshot(steps))
    assert time.monotonic() - began < 5
    gate.set()
    assert mirror.close(10)
    assert seen[-1] == 49 and len(seen) <= 2
    with pytest.raises(RuntimeError, match="closed"):
        mirror.submit(snapshot())


def test_failures_are_told_once_and_made_good(caplog: pytest.LogCaptureFixture) -> None:
    calls: list[int] = []
    done = threading.Semaphore(0)

    def breaks_twice(one: SweepSnapshot) -> None:
        calls.append(len(one.trials[0].series))
        done.release()
        if len(calls) <= 2:
            raise ConnectionError("no route")

    mirror = MirrorThread(breaks_twice)
    for steps in (1, 2):
        mirror.submit(snapshot(steps))
        assert done.acquire(timeout=10)
    assert mirror.close(10)
    assert calls == [1, 2, 2]
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 1 and "2 trials of sweep 'bio' wait: ConnectionError: no route" in messages[0]


def test_a_tracker_that_never_works_is_reported_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    def broken(one: SweepSnapshot) -> None:
        raise ConnectionError("no route")

    mirror = MirrorThread(broken)
    mirror.submit(snapshot())
    assert not mirror.close(10)
    assert "misses part of sweep 'bio' (2 trials)" in caplog.records[-1].getMessage()


def test_a_tracker_that_hangs_does_not_hold_the_end_up(caplog: pytest.LogCaptureFixture) -> None:
    gate = threading.Event()

    def hangs(one: SweepSnapshot) -> None:
        gate.wait(10)

    mirror = MirrorThread(hangs)
    mirror.submit(snapshot())
    assert not mirror.close(0.1)
    assert "did not answer within 0.1 s" in caplog.records[-1].getMessage()
    gate.set()


def test_a_dead_server_costs_seconds(uri: str) -> None:
    began = time.monotonic()
    mirror = MirrorThread(MlflowMirror("http://127.0.0.1:9", "bio").sync)
    mirror.submit(snapshot())
    assert not mirror.close(60)
    assert time.monotonic() - began < 30
