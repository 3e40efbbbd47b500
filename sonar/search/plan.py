"""What a sweep will cost, before it runs: from the steps of an earlier sweep or of a short probe, as an interval."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sonar.experiment import TrialConfig
from sonar.search.disk import ModelBytes, model_bytes
from sonar.search.journal import Journal, SweepState, read_journal, replay
from sonar.search.searcher import ANCHOR, TrialSource
from sonar.search.settings import RunOptions, settings_of
from sonar.search.source import Suggestion
from sonar.search.space import Sweep
from sonar.search.tuner import TrialSlots

STAGES = {"tokenizer": "tokenizer_steps", "predictor": "predictor_steps", "model": "model_steps"}
QUANTILES = (0.1, 0.5, 0.9)


class Interval(NamedTuple):
    """Quantiles of 10, 50 and 90 % of what was measured, and what follows from them."""

    low: float
    typical: float
    high: float

    def __add__(self, other: object) -> Interval:
        """Both one after the other; as wide as if they were far off together."""
        assert isinstance(other, Interval)
        return Interval(*(a + b for a, b in zip(self, other, strict=True)))

    def times(self, factor: float) -> Interval:
        """So many of it."""
        return Interval(*(factor * value for value in self))


NOTHING = Interval(0.0, 0.0, 0.0)


class Measured(NamedTuple):
    """What a plan rests on.

    Attributes:
        basis: where it was measured.
        step_s: seconds of a step by stage.
        rest_s: seconds of a trial beside its steps: start, evaluation, saving; None where nobody has measured it.
        size: of what a trial leaves.
        num_steps: by stage, where the steps follow from epochs.
        base_s: seconds of building the base once; None where it was not measured.
    """

    basis: str
    step_s: Mapping[str, Interval]
    rest_s: Interval | None
    size: ModelBytes
    num_steps: Mapping[str, int]
    base_s: float | None = None


class Cost(NamedTuple):
    """Of a whole sweep: seconds that devices are held, and seconds on the clock."""

    device_s: Interval
    clock_s: Interval


def measured_before(storage: Path, sweep: Sweep, options: RunOptions) -> Measured | None:
    """From the newest sweep of the storage that trained the same audio in the same way; None where there is none."""
    found = []
    for path in storage.glob("*/journal.jsonl"):
        state = replay(read_journal(path))
        if state.settings and _trains_alike(state, sweep, options):
            found.append((state.created_s or 0.0, path.parent, state))
    for _, folder, state in sorted(found, key=lambda one: one[0], reverse=True):
        measured = measured_in(folder, state)
        if measured is not None:
            return measured
    return None


def measured_in(folder: Path, state: SweepState) -> Measured | None:
    """From one sweep; None where no searched trial ended well in one go and still has its checkpoint."""
    records = [r for r in state.trials.values() if r.status == "told" and r.kind != ANCHOR and r.num_starts == 1]
    kept = [folder / "trials" / record.trial_id / "checkpoint" for record in records]
    sizes = [model_bytes(checkpoint) for checkpoint in kept if checkpoint.is_dir()]
    if not sizes:
        return None
    shown = [metrics for record in records for metrics in (*(r.metrics for r in record.reports), record.metrics)]
    steps = {stage: [m[key] for m in shown if (key := f"{stage}/step_seconds") in m] for stage in STAGES}
    lasted = [(r.ended_s or 0.0) - (r.started_s or 0.0) - r.metrics["train_seconds"] for r in records]
    last = records[-1].metrics
    return Measured(
        basis=f"{len(records)} trials of {folder}",
        step_s={stage: quantiles(seconds) for stage, seconds in steps.items() if seconds},
        rest_s=quantiles(np.maximum(lasted, 0.0)),
        size=sizes[-1],
        num_steps={stage: int(last[key]) for stage in STAGES if (key := f"{stage}/steps") in last},
    )


def first_suggestions(sweep: Sweep, options: RunOptions, count: int) -> list[Suggestion]:
    """The anchors and the first `count` searched configurations, as a run with this seed begins; nothing is kept."""
    with tempfile.TemporaryDirectory() as folder, Journal(Path(folder) / "journal.jsonl") as journal:
        journal.append("sweep_created", **settings_of(sweep, options))
        source = TrialSource(sweep, journal, options.seed)
        wanted = len(sweep.anchors) + min(count, sweep.num_trials)
        return [suggestion for _ in range(wanted) if (suggestion := source.suggest()) is not None]


def cost_of(sweep: Sweep, first: Sequence[Suggestion], slots: TrialSlots, measured: Measured) -> Cost:
    """Cost of the audit, the anchors, and `num_trials` trials like the mean of the first searched ones.

    Raises:
        ValueError: the number of steps follows from epochs and nobody has counted them.
    """
    anchors = [seconds_of(one.config, measured) for one in first if one.kind == ANCHOR]
    searched = [seconds_of(one.config, measured) for one in first if one.kind != ANCHOR]
    trials = sum(searched, NOTHING).times(sweep.num_trials / len(searched))
    held_s = sum(anchors, seconds_of(sweep.base, measured).times(sweep.audit_seeds)) + trials
    devices = max(slots.threads, sweep.base.training.num_workers)
    parts = (sweep.audit_seeds, sweep.num_runs - sweep.audit_seeds)  # the audit ends before the search begins
    rounds = sum(-(-part // slots.num_concurrent) for part in parts)  # the last one of a part may leave slots empty
    return Cost(held_s.times(devices), held_s.times(rounds / sweep.num_runs))


def seconds_of(config: TrialConfig, measured: Measured) -> Interval:
    """Of one trial; stages of no steps cost nothing."""
    total = measured.rest_s or NOTHING
    for stage, num_steps in _steps_of(config, measured):
        if num_steps:
            total += measured.step_s[stage].times(num_steps)
    return total


def quantiles(values: Sequence[float] | np.ndarray) -> Interval:
    """The interval of some measurements."""
    return Interval(*(float(value) for value in np.quantile(np.asarray(values, dtype=np.float64), QUANTILES)))


def _steps_of(config: TrialConfig, measured: Measured) -> Iterator[tuple[str, int]]:
    for stage, key in STAGES.items():
        num_steps = getattr(config.training, key)
        if num_steps is None and stage not in measured.num_steps:
            raise ValueError(
                f"training.{key} follows from training.epochs and the corpus, which a plan does not read; give "
                f"--set training.{key}=N, or plan again when a sweep over this audio has run"
            )
        yield stage, measured.num_steps[stage] if num_steps is None else num_steps


def _trains_alike(state: SweepState, sweep: Sweep, options: RunOptions) -> bool:
    """Whether a step of that sweep is like one of this: same audio, base, batch, crop and workers."""
    settings = settings_of(sweep, options)
    mine, theirs = settings["config"], state.settings["config"]
    keys = ("batch_size", "clip_seconds", "num_workers", "accumulation", "precision")
    try:
        same = all(mine["training"][key] == theirs["training"][key] for key in keys)
        audio = state.settings["provenance"]["sources"] == settings["provenance"]["sources"]
        return same and audio and mine["base"] == theirs["base"]
    except KeyError:  # a journal of another version, or one that nobody trained
        return False
