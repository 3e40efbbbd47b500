"""The progress of a sweep as one line."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from sonar.search.journal import SweepState
from sonar.search.results import front_hypervolume, ranked_trials


class ProgressLine:
    """Says the sweep's progress when a trial has ended, and at intervals while none does."""

    def __init__(self, total: int, say: Callable[[str], None], interval_s: float = 30.0) -> None:
        """`total` counts searched trials and anchors."""
        self._total, self._say, self._interval_s = total, say, interval_s
        self._began = self._said = time.monotonic()
        self._ended = self._ended_before = -1

    def update(self, state: SweepState) -> None:
        """Say a line if there is something new or the interval has passed."""
        ended = sum(record.is_finished for record in state.trials.values())
        if self._ended < 0:
            self._ended = self._ended_before = ended
        if ended == self._ended and time.monotonic() - self._said < self._interval_s:
            return
        self._ended, self._said = ended, time.monotonic()
        self._say(f"{describe(state, self._total)} | {self._eta()}")

    def _eta(self) -> str:
        done_here = self._ended - self._ended_before
        if done_here == 0:
            return "ETA unknown"
        left_s = (self._total - self._ended) * (time.monotonic() - self._began) / done_here
        return f"ETA {int(left_s // 3600)}h{int(left_s % 3600 // 60):02d}m{int(left_s % 60):02d}s"


def describe(state: SweepState, total: int) -> str:
    """`12/40 done 4 run 1 fail | HV 41.2 | best within limit: P +6.1 F +0.2 | running: trial-003 model 20/120`."""
    counts = Counter(record.status for record in state.trials.values())
    parts = [f"{counts['told']}/{total} done {counts['started']} run {counts['failed']} fail"]
    volume = front_hypervolume(state)
    if volume is not None:
        parts.append(f"HV {volume:.1f}")
    limit = state.settings["forgetting_limit"]
    within = [r.point for r in ranked_trials(state) if r.point.forgetting_rate <= limit]
    if within:
        best = max(within, key=lambda point: point.plasticity)
        parts.append(f"best within limit: P {best.plasticity:+.1f} F {best.forgetting_rate:+.1f} ({best.name})")
    return " | ".join(parts)
