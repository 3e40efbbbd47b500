"""The sweep in MLflow: a parent run for the sweep, a child run for each trial, one writer, in batches.

The only file that imports MLflow. It mirrors plain records that the journal can rebuild at any time, so it
may be late, restarted or repeated: what the store already has is not written again.
"""

import logging
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sonar.mirror import MirrorThread, RunRecord, SeriesPoint, SweepSnapshot

if TYPE_CHECKING:
    from mlflow.entities import Metric, Run
    from mlflow.tracking import MlflowClient

__all__ = [
    "DEFAULT_URI",
    "MirrorThread",
    "MlflowMirror",
    "RunRecord",
    "SeriesPoint",
    "SweepSnapshot",
    "sync_mlflow",
]

log = logging.getLogger(__name__)

DEFAULT_URI = "sqlite:///runs/mlflow.db"
SWEEP_TAG, TRIAL_TAG, PARENT_TAG = "sonar.sweep", "sonar.trial_id", "mlflow.parentRunId"
BATCH_METRICS, BATCH_OTHERS = 500, 100  # MLflow takes at most 1000 and 100 a call
PARETO_PREFIX = "pareto."

# A dead server must cost seconds, not the minutes of MLflow's defaults; telemetry is nobody's business.
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


def sync_mlflow(snapshot: SweepSnapshot, *, uri: str = DEFAULT_URI, experiment: str) -> None:
    """Bring MLflow up to a snapshot, once; a second time writes nothing new.

    Raises:
        mlflow.exceptions.MlflowException: the store cannot be reached or refuses a value.
    """
    MlflowMirror(uri, experiment).sync(snapshot)


class _Known:
    """What the store already has of one run; points as (metric, step, value)."""

    def __init__(self, run: "Run", points: set[tuple[str, int, float]]) -> None:
        self.run_id: str = run.info.run_id
        self.status: str = run.info.status
        self.params: dict[str, str] = dict(run.data.params)
        self.tags: dict[str, str] = dict(run.data.tags)
        self.points = points


class MlflowMirror:
    """Keeps one experiment of one MLflow store equal to snapshots of a sweep.

    Runs are found by their tags, so a new mirror continues where another one ended. `sync` connects.
    """

    def __init__(self, uri: str = DEFAULT_URI, experiment: str = "sonar") -> None:
        """Mirror into `experiment` of the store at `uri`; nothing is read or written yet."""
        self.uri, self.experiment = uri, experiment
        self._client: MlflowClient | None = None
        self._experiment_id = ""
        self._runs: dict[str, _Known] = {}
        self._artifacts: dict[Path, tuple[int, int]] = {}

    def sync(self, snapshot: SweepSnapshot) -> None:
        """Write what the store does not have yet.

        Raises:
            mlflow.exceptions.MlflowException: the store cannot be reached or refuses a value; what was
                written stays, and the next call goes on from there.
        """
        try:
            self._write(self._connect(snapshot.sweep.key), snapshot)
        except BaseException:
            self._client = None  # unknown what arrived: look it up again
            raise

    def _write(self, client: "MlflowClient", snapshot: SweepSnapshot) -> None:
        parent_tags = {SWEEP_TAG: snapshot.sweep.key}
        parent = self._sync_run(client, "", snapshot.sweep, parent_tags)
        for trial in snapshot.trials:
            tags = {SWEEP_TAG: snapshot.sweep.key, TRIAL_TAG: trial.key, PARENT_TAG: parent.run_id}
            self._sync_run(client, trial.key, trial, tags)
        for path in snapshot.artifacts:
            self._sync_artifact(client, parent.run_id, path)
        _sync_status(client, parent, snapshot.sweep)

    def _connect(self, sweep: str) -> "MlflowClient":
        """The client; the first time, the store and experiment are made and the sweep's runs looked up."""
        if self._client is not None:
            return self._client
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        from mlflow.tracking import MlflowClient  # after the environment, which it reads when imported

        logging.getLogger("mlflow.store.db").setLevel(logging.WARNING)  # it tells of every migration
        database = sqlite_path(self.uri)
        if database is not None:
            database.parent.mkdir(parents=True, exist_ok=True)
        client = MlflowClient(tracking_uri=self.uri)
        found = client.get_experiment_by_name(self.experiment)
        if found is not None and found.lifecycle_stage != "active":
            raise RuntimeError(f"the experiment {self.experiment!r} is deleted in {self.uri}; restore or rename it")
        place = None if database is None else (database.parent / "mlartifacts").resolve().as_uri()
        self._experiment_id = (
            client.create_experiment(self.experiment, artifact_location=place) if found is None else found.experiment_id
        )
        self._runs = {
            run.data.tags.get(TRIAL_TAG, ""): _Known(run, _written_points(client, run))
            for run in _all_runs(client, self._experiment_id)
            if run.data.tags.get(SWEEP_TAG) == sweep
        }
        self._client = client
        return client

    def _sync_run(self, client: "MlflowClient", key: str, record: RunRecord, tags: dict[str, str]) -> _Known:
        """One run, made if need be; the parent's status comes last, in `sync`."""
        known = self._runs.get(key)
        if known is None:
            run = client.create_run(self._experiment_id, record.start_ms, tags, run_name=record.name)
            known = self._runs[key] = _Known(run, set())
        _write_values(client, known, record, {**tags, **record.tags})
        if TRIAL_TAG in tags:
            _sync_status(client, known, record)
        return known

    def _sync_artifact(self, client: "MlflowClient", run_id: str, path: Path) -> None:
        stat = path.stat()
        version = (stat.st_mtime_ns, stat.st_size)
        if self._artifacts.get(path) != version:
            client.log_artifact(run_id, str(path))
            self._artifacts[path] = version


def sqlite_path(uri: str) -> Path | None:
    """The file of a SQLite store's address, None for any other address."""
    prefix = "sqlite:///"
    return Path(uri[len(prefix) :]) if uri.startswith(prefix) else None


def _all_runs(client: "MlflowClient", experiment_id: str) -> Iterator["Run"]:
    token: str | None = None
    while True:
        page = client.search_runs([experiment_id], page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _written_points(client: "MlflowClient", run: "Run") -> set[tuple[str, int, float]]:
    return {
        (metric.key, metric.step, metric.value)
        for name in run.data.metrics
        for metric in client.get_metric_history(run.info.run_id, name)
    }


def _write_values(client: "MlflowClient", known: _Known, record: RunRecord, tags: Mapping[str, str]) -> None:
    """New metrics, params and tags of one run, and tags of the front that are no longer true."""
    from mlflow.entities import Param, RunTag

    metrics = _new_metrics(known, record)
    for start in range(0, len(metrics), BATCH_METRICS):
        batch = metrics[start : start + BATCH_METRICS]
        client.log_batch(known.run_id, metrics=batch)
        known.points.update((metric.key, metric.step, metric.value) for metric in batch)
    params = _new_params(known, record)
    changed = {name: value for name, value in tags.items() if known.tags.get(name) != value}
    for some in _chunks(params):
        client.log_batch(known.run_id, params=[Param(name, value) for name, value in some.items()])
        known.params.update(some)
    for some in _chunks(changed):
        client.log_batch(known.run_id, tags=[RunTag(name, value) for name, value in some.items()])
        known.tags.update(some)
    for name in [name for name in known.tags if name.startswith(PARETO_PREFIX) and name not in tags]:
        client.delete_tag(known.run_id, name)
        del known.tags[name]


def _new_metrics(known: _Known, record: RunRecord) -> list["Metric"]:
    from mlflow.entities import Metric

    points = list(record.series)
    if record.metrics:
        last_step = max((point.step for point in points), default=0)
        points.append(SeriesPoint(last_step, record.end_ms or record.start_ms, record.metrics))
    return [
        Metric(name, float(value), point.time_ms, point.step)
        for point in points
        for name, value in point.metrics.items()
        if math.isfinite(value) and (name, point.step, float(value)) not in known.points
    ]


def _new_params(known: _Known, record: RunRecord) -> dict[str, str]:
    """Params that the store lacks; MLflow refuses to change one, so a change is only told."""
    wanted = {name: str(value) for name, value in record.params.items()}
    for name, value in wanted.items():
        if known.params.get(name, value) != value:
            log.warning("MLflow keeps %s = %s of run %r, not %s", name, known.params[name], record.key, value)
            known.params[name] = value  # told once
    return {name: value for name, value in wanted.items() if name not in known.params}


def _chunks(values: Mapping[str, str]) -> Iterator[dict[str, str]]:
    items = list(values.items())
    for start in range(0, len(items), BATCH_OTHERS):
        yield dict(items[start : start + BATCH_OTHERS])


def _sync_status(client: "MlflowClient", known: _Known, record: RunRecord) -> None:
    if known.status == record.status:
        return
    if record.status in ("FINISHED", "FAILED", "KILLED"):
        client.set_terminated(known.run_id, record.status, record.end_ms)
    else:
        client.update_run(known.run_id, record.status)
    known.status = record.status
