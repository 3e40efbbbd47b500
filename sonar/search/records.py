"""What a sweep has: its trials and the encoders that they scored, as records; pure."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

KINDS = ("anchor", "search", "audit", "reeval")
FINISHED = ("told", "failed", "pruned")
LAST_STEP = "model/steps"  # metric of a told trial: steps that its model stage had


class CandidateKey(NamedTuple):
    """Which encoder: theta0 + alpha (theta - theta0), theta as the trial's model stage had it after `step` steps."""

    trial_id: str
    step: int
    alpha: float


class Report(NamedTuple):
    """Metrics of a running trial; unlike those of a finished one they may be NaN or infinite."""

    step: int
    time_s: float
    metrics: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """What the journal knows of one trial.

    Attributes:
        trial_id: unique in the sweep.
        kind: "anchor" or "search"; "audit" of the base configuration or "reeval" of a trial, under another seed.
        name: for people; the id where none was given.
        params: the suggested point of the space; empty for an anchor.
        config: the whole of the trial's config as plain values, where it was recorded.
        of: the trial that a "reeval" repeats.
        seed: of an "audit" or "reeval".
        status: the last of suggested, started, paused, told, failed, pruned.
        metrics: finite; only a told trial has them.
        reports: while it ran, in the order in which they came.
        reason: why it failed, was pruned or is paused.
        checkpoint: folder of its last checkpoint, None where there is none.
        num_starts: 2 or more for a trial that was resumed.
        started_s: Unix time of its first start.
        ended_s: Unix time of its end.
    """

    trial_id: str
    kind: str
    name: str
    params: dict[str, Any]
    config: dict[str, Any] = field(default_factory=dict)
    of: str | None = None
    seed: int | None = None
    status: str = "suggested"
    metrics: dict[str, float] = field(default_factory=dict)
    reports: tuple[Report, ...] = ()
    reason: str | None = None
    checkpoint: str | None = None
    num_starts: int = 0
    started_s: float | None = None
    ended_s: float | None = None

    @property
    def is_finished(self) -> bool:
        """Whether the trial has ended, well or not."""
        return self.status in FINISHED

    @property
    def last_step(self) -> int | None:
        """Steps of the encoder that a told trial left; None where there is none."""
        return int(self.metrics.get(LAST_STEP, 0)) if self.status == "told" else None

    def ends_with(self, key: CandidateKey) -> bool:
        """Whether a candidate of this trial is what it was told with."""
        return key.alpha == 1 and key.step == self.last_step


class CandidateRecord(NamedTuple):
    """An encoder that was scored, and that can be taken as long as it is not discarded.

    Attributes:
        key: which one.
        metrics: finite, the objectives among them.
        checkpoint: folder of theta, which several candidates of different alpha share; None: it was not saved.
        discarded: why its claim on the checkpoint was given up, None while it has one.
    """

    key: CandidateKey
    metrics: dict[str, float]
    checkpoint: str | None
    discarded: str | None = None
