"""Which running trials are not worth finishing: successive halving for two objectives; pure.

Asynchronous: a trial is judged against all that came as far, whenever it arrives at a rung. A rung orders its trials by
front (non-dominated rank) and, within a front, by an epsilon-net, so that what is kept is spread along the front.
Source: Schmucker et al., arXiv:2106.12639. Added to it: a grace period that outlasts the stability gap, smoothed
forgetting, trials that no rung may stop, and reasons to stop at once. Every decision is a function of what was reported
before it, so that the scheduler rebuilds it from a journal.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

from sonar.evaluate.curve import CurveSummary
from sonar.search.dominance import Direction, front_order

DIRECTIONS: tuple[Direction, Direction] = ("max", "min")  # of plasticity and forgetting
STAGE = "model"  # the only one that changes the encoder; its steps are the clock of rungs and grace
HEALTH = {"codebook/perplexity": "collapse_perplexity", "codebook/coverage": "collapse_coverage"}
NO_POINTS = (
    "trials are judged by the points of their curves, and evaluation.every is 0, so there are none; "
    "set evaluation.every to some steps, or leave halving out"
)


@dataclass(frozen=True, kw_only=True)
class HalvingConfig:
    """When a trial is stopped early. All defaults are inferred; bench/search.py shows what they give.

    Attributes:
        eta: of the trials at a rung, one in `eta` goes on, and the first `eta` always do.
        growth: ratio of the steps of a rung to those of the one before.
        num_rungs: the first lies at the end of the grace period.
        grace_points: points of a trial's curve before its first rung, at least; the measured stability gap makes it
            more.
        least_gap: percent of forgetting; a smaller stability gap is taken for noise and measures nothing.
        smoothing_points: points whose median is taken for the forgetting at the last of them.
        margin: percent by which forgetting may lie above the sweep's limit after the grace period; a trial beyond is
            stopped at once.
        collapse_perplexity: of a step's codes; a codebook below it has collapsed.
        collapse_coverage: share of the codes that a step used; the same.
        collapse_reports: reports in a row that must say so.
    """

    eta: float = 3.0
    growth: float = 2.0
    num_rungs: int = 1
    grace_points: int = 4
    least_gap: float = 3.0
    smoothing_points: int = 3
    margin: float = 10.0
    collapse_perplexity: float = 2.0
    collapse_coverage: float = 0.002
    collapse_reports: int = 3

    def __post_init__(self) -> None:
        """Refuse what halves nothing."""
        for name in ("eta", "growth"):
            if not 1 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed: a finite number above 1")
        for name in ("num_rungs", "grace_points", "smoothing_points", "collapse_reports"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed: 1 or more")
        for name in ("least_gap", "margin", "collapse_perplexity", "collapse_coverage"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed: a finite number, 0 or more")


class Decision(NamedTuple):
    """Whether a trial is to stop, and why in words with numbers; empty where it goes on."""

    stop: bool
    reason: str


GO_ON = Decision(False, "")


class Standing(NamedTuple):
    """A trial at a rung: its id and objectives there, forgetting smoothed."""

    trial_id: str
    plasticity: float
    forgetting: float


class FrontHalving:
    """Halving over the trials of one sweep.

    Attributes:
        stopped: the reason by trial; a trial stays stopped, whatever it still reports.
    """

    def __init__(self, config: HalvingConfig, *, every: int, forgetting_limit: float) -> None:
        """Of a sweep whose trials report a point of their curve `every` steps.

        Raises:
            ValueError: there are no points to judge by.
        """
        if every < 1:
            raise ValueError(NO_POINTS)
        self._config, self._every, self._limit = config, every, forgetting_limit
        self._curves: dict[str, dict[int, tuple[float, float]]] = {}
        self._collapsed: dict[str, int] = {}
        self._gaps: list[int] = []
        self.stopped: dict[str, str] = {}

    @property
    def grace_steps(self) -> int:
        """No rank stops a trial before this step: the median end of the measured gaps, or the floor until one is."""
        floor = self._config.grace_points * self._every
        return max(floor, math.ceil(median(self._gaps))) if self._gaps else floor

    def rungs(self) -> list[int]:
        """Steps at which trials are compared."""
        return [round(self.grace_steps * self._config.growth**level) for level in range(self._config.num_rungs)]

    def on_report(self, trial_id: str, metrics: Mapping[str, float], *, may_stop: bool) -> Decision:
        """Take what a running trial reports: health of its codebook, a point of its curve, or neither.

        Args:
            trial_id: of the trial.
            metrics: named `STAGE/NAME`, as trials report them.
            may_stop: False for an anchor or a repeated trial, which only others are compared to.
        """
        if trial_id not in self.stopped and may_stop and (reason := self._illness(trial_id, metrics)):
            self.stopped[trial_id] = reason
        step = int(metrics.get(f"{STAGE}/steps", 0))
        values = [metrics.get(f"{STAGE}/{name}") for name in ("plasticity", "forgetting_rate")]
        plasticity, forgetting = values
        # Several workers report the last known value of everything, so the step must be one that is watched.
        if plasticity is None or forgetting is None or step == 0 or step % self._every:
            return self._decision(trial_id)
        return self.on_point(trial_id, step, plasticity, forgetting, may_stop=may_stop)

    def on_point(
        self, trial_id: str, step: int, plasticity: float, forgetting_rate: float, *, may_stop: bool = True
    ) -> Decision:
        """Take a point of a trial's curve. One that was given before changes nothing: a resumed trial repeats steps.

        Args:
            trial_id: of the trial.
            step: steps of the model stage done; the other stages do not change the encoder.
            plasticity: percent.
            forgetting_rate: percent, as measured.
            may_stop: as `on_report`.
        """
        curve = self._curves.setdefault(trial_id, {})
        if trial_id in self.stopped or step in curve:
            return self._decision(trial_id)
        if not (math.isfinite(plasticity) and math.isfinite(forgetting_rate)):
            reason = f"step {step}: plasticity is {plasticity}, forgetting is {forgetting_rate}"
        else:
            curve[step] = (plasticity, forgetting_rate)
            reason = self._broken_limit(trial_id, step) or self._halved(trial_id, step)
        if reason and may_stop:
            self.stopped[trial_id] = reason
        return self._decision(trial_id)

    def on_curve(self, summary: CurveSummary) -> None:
        """Learn from a whole curve how long forgetting takes to come back from its worst."""
        if summary.stability_gap >= self._config.least_gap:
            self._gaps.append(summary.forgetting_max_step + summary.recovery_steps)

    def on_told(self, metrics: Mapping[str, float]) -> None:
        """Take the metrics that a trial was told with; its curve is among them where it was watched."""
        if "curve/stability_gap" in metrics:
            named = {name: metrics[f"curve/{name}"] for name in CurveSummary._fields}
            self.on_curve(CurveSummary(**named))  # type: ignore[arg-type]  # whole numbers, told as floats

    def _decision(self, trial_id: str) -> Decision:
        return Decision(True, self.stopped[trial_id]) if trial_id in self.stopped else GO_ON

    def _illness(self, trial_id: str, metrics: Mapping[str, float]) -> str:
        """Why the codebook has collapsed, or nothing; a single bad step is no collapse."""
        seen = {name: metrics[key] for name in HEALTH if (key := f"tokenizer/{name}") in metrics}
        if not seen:
            return ""
        low = {name: value for name, value in seen.items() if not value >= getattr(self._config, HEALTH[name])}
        self._collapsed[trial_id] = self._collapsed.get(trial_id, 0) + 1 if low else 0
        if self._collapsed[trial_id] < self._config.collapse_reports:
            return ""
        limits = {name: getattr(self._config, HEALTH[name]) for name in low}
        words = ", ".join(f"{name} {value:.3g} is below {limits[name]:g}" for name, value in low.items())
        return f"the codebook has collapsed: {words}, in {self._config.collapse_reports} reports in a row"

    def _broken_limit(self, trial_id: str, step: int) -> str:
        standing, most = self._standing(trial_id, step), self._limit + self._config.margin
        if step < self.grace_steps or standing is None or standing.forgetting <= most:
            return ""
        return (
            f"step {step}: forgetting {standing.forgetting:.2f} % is above the limit of {self._limit:g} % by more than "
            f"{self._config.margin:g}, after the grace of {self.grace_steps} steps"
        )

    def _halved(self, trial_id: str, step: int) -> str:
        """Why the trial does not go on from the rung that it has just come to, or nothing."""
        before = max((earlier for earlier in self._curves[trial_id] if earlier < step), default=0)
        rungs = self.rungs()
        level = next((level for level, rung in enumerate(rungs) if before < rung <= step), None)
        if level is None:
            return ""
        found = [self._standing(other, rungs[level]) for other in sorted(self._curves)]
        peers = [standing for standing in found if standing is not None]
        if len(peers) <= self._config.eta or trial_id in protected(peers, self._limit):
            return ""
        order = front_order([(peer.plasticity, peer.forgetting) for peer in peers], DIRECTIONS)
        names = [peers[row].trial_id for row in order]
        num_kept, place = math.ceil(len(peers) / self._config.eta), names.index(trial_id)
        if place < num_kept:
            return ""
        own = next(peer for peer in peers if peer.trial_id == trial_id)
        return (
            f"step {step}, rung {level + 1} of {len(rungs)}: plasticity {own.plasticity:+.2f} %, forgetting "
            f"{own.forgetting:.2f} % is place {place + 1} of {len(peers)}; the first {num_kept} go on"
        )

    def _standing(self, trial_id: str, rung: int) -> Standing | None:
        """Objectives at the first point that is not before `rung`; None: the trial has not come so far."""
        curve = self._curves[trial_id]
        at = min((step for step in curve if step >= rung), default=None)
        if at is None:
            return None
        until = sorted(step for step in curve if step <= at)[-self._config.smoothing_points :]
        return Standing(trial_id, curve[at][0], median(curve[step][1] for step in until))


def protected(peers: Sequence[Standing], limit: float) -> set[str]:
    """Trials that no rung stops: the most plastic, the least forgetful, the most plastic within the limit."""
    most_plastic = max(peer.plasticity for peer in peers)
    least_forgetful = min(peer.forgetting for peer in peers)
    best_within = max((peer.plasticity for peer in peers if peer.forgetting <= limit), default=math.inf)
    return {
        peer.trial_id
        for peer in peers
        if peer.plasticity == most_plastic
        or peer.forgetting == least_forgetful
        or (peer.forgetting <= limit and peer.plasticity == best_within)
    }
