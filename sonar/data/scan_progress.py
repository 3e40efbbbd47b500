"""How far long work is: lines at intervals, with pace and what is left; of a scan, in words."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from sonar.data.scan import ScanProgress

INTERVAL_S = 10.0


class Lines:
    """Says a line if the last one is an interval old."""

    def __init__(self, say: Callable[[str], None], interval_s: float = INTERVAL_S) -> None:
        """`say` hears the lines; work that is shorter than the interval says nothing."""
        self._say, self._interval_s = say, interval_s
        self._said = time.monotonic()

    def __call__(self, line: str) -> None:
        """Take a line."""
        now = time.monotonic()
        if now - self._said >= self._interval_s:
            self._said = now
            self._say(line)


class ScanLines:
    """The `Lines` of a scan: files, hours, pace, bad files, and when it will be done."""

    def __init__(self, say: Callable[[str], None], interval_s: float = INTERVAL_S) -> None:
        """As `Lines`."""
        self._lines, self._began = Lines(say, interval_s), time.monotonic()

    def __call__(self, progress: ScanProgress) -> None:
        """Take the progress after one file."""
        self._lines(describe(progress, time.monotonic() - self._began))


class Pace(NamedTuple):
    """Items a second, and seconds until all are done."""

    per_s: float
    left_s: float

    @classmethod
    def of(cls, done: int, total: int, elapsed_s: float) -> Pace:
        """After `done` of `total` items."""
        per_s = done / max(elapsed_s, 1e-9)
        return cls(per_s, (total - done) / max(per_s, 1e-9))


def describe(progress: ScanProgress, elapsed_s: float) -> str:
    """`1200/4000 files (300 read) | 1.43 h | 410 files/s | 2 bad | ETA 7 s`."""
    pace = Pace.of(progress.done, progress.total, elapsed_s)
    return (
        f"{progress.done}/{progress.total} files ({progress.read} read) | {progress.seconds / 3600:.2f} h | "
        f"{pace.per_s:.3g} files/s | {progress.bad} bad | ETA {pace.left_s:.0f} s"
    )
