"""What a tracker is told of a sweep, as plain records, and the thread that tells it."""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

log = logging.getLogger(__name__)

Status: TypeAlias = Literal["SCHEDULED", "RUNNING", "FINISHED", "FAILED", "KILLED"]


class SeriesPoint(NamedTuple):
    """Metrics of one step; values that are not finite are left out of MLflow, which would change them."""

    step: int
    time_ms: int
    metrics: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """All that MLflow is told of one run.

    Attributes:
        key: unique among the trials of a sweep; for the sweep itself its name.
        name: as people read it.
        params: never change once written.
        metrics: at the end of the run; written as a last point of the series.
        series: in the order of time.
        tags: those that start with `pareto.` are taken back when they are no longer given.
        status: SCHEDULED, RUNNING, FINISHED, FAILED or KILLED.
        start_ms: Unix time in milliseconds.
        end_ms: of a run that has ended.
    """

    key: str
    name: str
    params: Mapping[str, str | float] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    series: Sequence[SeriesPoint] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    status: Status = "RUNNING"
    start_ms: int = 0
    end_ms: int | None = None


@dataclass(frozen=True, kw_only=True)
class SweepSnapshot:
    """A sweep at one moment: its own record, those of its trials, and files to show on the parent run."""

    sweep: RunRecord
    trials: Sequence[RunRecord] = ()
    artifacts: Sequence[Path] = ()


class MirrorThread:
    """Writes snapshots in a thread of its own; the latest one wins, and no failure reaches the caller.

    A failure is logged once and made good by the next snapshot or at the end, since each snapshot holds all.
    """

    def __init__(self, sync: Callable[[SweepSnapshot], None]) -> None:
        """Start the thread; `sync` writes one snapshot and may be slow or raise."""
        self._sync = sync
        self._changed = threading.Condition()
        self._pending: SweepSnapshot | None = None
        self._missed: SweepSnapshot | None = None
        self._closing = self._retried = False
        self._thread = threading.Thread(target=self._run, name="sonar-mirror", daemon=True)
        self._thread.start()

    def submit(self, snapshot: SweepSnapshot) -> None:
        """Ask for a snapshot to be written; returns at once.

        Raises:
            RuntimeError: the mirror is closed.
        """
        with self._changed:
            if self._closing:
                raise RuntimeError("the mirror is closed; make another one")
            self._pending = snapshot
            self._changed.notify()

    def close(self, timeout_s: float = 30.0) -> bool:
        """Write what is left, trying once more what failed; whether all was written in time.

        Args:
            timeout_s: longest wait; the thread dies with the process if it needs longer.
        """
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout_s)
        missed = self._missed
        if self._thread.is_alive():
            log.warning("The tracker did not answer within %g s; it misses what came last", timeout_s)
        elif missed is not None:
            log.warning("The tracker misses part of sweep %r (%d trials)", missed.sweep.key, len(missed.trials))
        return not self._thread.is_alive() and missed is None

    def _run(self) -> None:
        while (snapshot := self._next()) is not None:
            try:
                self._sync(snapshot)
            except Exception as error:  # any failure of a tracker: told once, kept in _missed, never raised
                if self._missed is None:
                    log.warning(
                        "The tracker failed and will be tried again; training goes on. "
                        "%d trials of sweep %r wait: %s: %s",
                        len(snapshot.trials),
                        snapshot.sweep.key,
                        type(error).__name__,
                        error,
                    )
                self._missed = snapshot
            else:
                self._missed = None

    def _next(self) -> SweepSnapshot | None:
        """Wait for a snapshot; when closing, the last failed one gets one more try; None ends the thread."""
        with self._changed:
            self._changed.wait_for(lambda: self._pending is not None or self._closing)
            snapshot, self._pending = self._pending, None
            if snapshot is None and not self._retried:
                snapshot, self._retried = self._missed, True
            return snapshot
