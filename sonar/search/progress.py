"""The progress of a sweep as one line."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from sonar.search.journal import SweepState, TrialRecord
from sonar.search.results import front, front_hypervolume
from sonar.search.standing import num_expected

if TYPE_CHECKING:
    from sonar.train.loop import StepReport

Say = Callable[[str], None]


class ProgressLine:
    """Says the sweep's progress when a trial has ended, and at intervals while none does."""

    def __init__(self, say: Say, interval_s: float = 30.0) -> None:
        """`say` hears the lines."""
        self._say, self._interval_s = say, interval_s
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
        self._say(f"{describe(state)} | {self._eta(num_expected(state))}")

    def _eta(self, total: int) -> str:
        done_here = self._ended - self._ended_before
        if done_here == 0:
            return "ETA unknown"
        left_s = (total - self._ended) * (time.monotonic() - self._began) / done_here
        return f"ETA {duration(left_s)}"


class StepLines:
    """Says the steps of one run: a line per stage's end and at intervals, with its terms, pace and ETA.

    Pace and ETA are means over the stage's steps so far, by the clock: where two stages take turns, so is their time.
    """

    def __init__(self, say: Say, interval_s: float = 5.0) -> None:
        """`say` hears the lines."""
        self._say, self._interval_s, self._said = say, interval_s, -interval_s
        self._begins: dict[str, tuple[float, int]] = {}  # of each stage: when, and after how many steps

    def __call__(self, step: StepReport) -> None:
        """Take the report of one step."""
        now, metrics = time.monotonic(), dict(step.metrics)
        last_s = metrics.pop("step_seconds")
        num_clips = metrics.pop("clips_per_second") * last_s
        began, before = self._begins.setdefault(step.stage, (now - last_s, step.step - 1))
        if now - self._said < self._interval_s and step.step < step.num_steps:
            return
        self._said = now
        step_s = max(now - began, 1e-9) / (step.step - before)
        terms = " ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        left_s = (step.num_steps - step.step) * step_s
        self._say(
            f"  {step.stage} {step.step}/{step.num_steps} | {terms} | {num_clips / step_s:.3g} clips/s | "
            f"stage ends in {left_s:.0f} s"
        )


def duration(seconds: float) -> str:
    """As in 3h10m00s."""
    return f"{int(seconds // 3600)}h{int(seconds % 3600 // 60):02d}m{int(seconds % 60):02d}s"


def describe(state: SweepState) -> str:
    """`12/40 done 2 run 1 fail | HV 41.2 | best within limit: P +6.1 F +0.2 (trial-7) | running: trial-12 model 20`."""
    counts = Counter(record.status for record in state.trials.values())
    parts = [f"{counts['told']}/{num_expected(state)} done {counts['started']} run {counts['failed']} fail"]
    for status, word in (("pruned", "stopped"), ("paused", "paused")):
        if counts[status]:
            parts[0] += f" {counts[status]} {word}"
    volume = front_hypervolume(state)
    if volume is not None:
        parts.append(f"HV {volume:.1f}")
    limit = state.settings["forgetting_limit"]
    within = [r.point for r in front(state) if r.point.bound <= limit]
    if within:
        best = max(within, key=lambda point: point.plasticity)
        parts.append(f"best within limit: P {best.plasticity:+.1f} F {best.forgetting_rate:+.1f} ({best.name})")
    running = [_where(record) for record in state.trials.values() if record.status == "started" and record.reports]
    if running:
        parts.append(f"running: {', '.join(running)}")
    return " | ".join(parts)


def _where(record: TrialRecord) -> str:
    """Trial, stage and step of its last report, whose metrics are named `stage/term`."""
    last = record.reports[-1]
    stage = next(iter(last.metrics)).partition("/")[0]
    return f"{record.trial_id} {stage} {last.step}"
