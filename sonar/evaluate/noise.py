"""Noise of the two axes: what another seed and other recordings would change, and what difference is above it.

The value of a run is modelled as mean + training + clips + both: `training` is what the seed changes on any clips,
`clips` what other recordings would change for all runs alike, `both` what they would change for this run alone. Runs
are compared on the same clips, so `clips` is not in a difference of two of them; `training` and `both` are, and shrink
with the number of runs; `both` shrinks with the number of clips too. Normal theory throughout.

Shapes: S runs, R resamples.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import chi2

from sonar.evaluate.bootstrap import Interval, Resampling
from sonar.evaluate.pairing import PairedAxes
from sonar.evaluate.record import Evaluation

NOISE_FILE = "noise.json"
AXES = ("plasticity", "forgetting_rate")
SIGNIFICANCE, POWER = 0.05, 0.80  # two-sided error of the first kind; chance to see a difference that is there
_REACH = NormalDist().inv_cdf(1.0 - SIGNIFICANCE / 2.0) + NormalDist().inv_cdf(POWER)  # in standard errors: 2.80


class AxisNoise(NamedTuple):
    """Of one axis; all in percent of the base's score.

    Attributes:
        values: (S,) of the runs, on all clips.
        mean: of them.
        sigma: their standard deviation: what another seed changes on these clips, `training` and `both`.
        sigma_interval: 95 % interval of sigma by chi-square: wide, as the runs are few.
        clip_sigma: standard deviation of one run's value over other recordings, `clips` and `both`.
        own_clip_sigma: of what other recordings change for one run and not for the others, `both`.
    """

    values: tuple[float, ...]
    mean: float
    sigma: float
    sigma_interval: Interval
    clip_sigma: float
    own_clip_sigma: float

    @property
    def training_variance(self) -> float:
        """Variance over seeds that no number of clips removes; 0 where the clips explain all of it."""
        return max(self.sigma**2 - self.own_clip_sigma**2, 0.0)

    @property
    def total_sigma(self) -> float:
        """Standard deviation of one run's value: of another seed and other recordings together."""
        return math.sqrt(self.training_variance + self.clip_sigma**2)

    def smallest_difference(self, num_runs: int = 1) -> float:
        """The difference of two configurations of `num_runs` each that is found in 80 % of cases on these clips."""
        return _REACH * math.sqrt(2.0 * (self.training_variance + self.own_clip_sigma**2) / num_runs)

    def runs_needed(self, difference: float) -> int:
        """Runs of each configuration that resolve a difference on these clips."""
        single = self.smallest_difference()
        return max(1, math.ceil((single / _positive(difference)) ** 2 - 1e-9))

    def clips_needed(self, difference: float, num_runs: int = 1) -> float:
        """How many times as many clips resolve a difference by that many runs each; infinite where seeds forbid it."""
        allowed = (_positive(difference) / _REACH) ** 2 * num_runs / 2.0
        left = allowed - self.training_variance
        return math.inf if left <= 0 else self.own_clip_sigma**2 / left


class Resolution(NamedTuple):
    """What it takes to see a difference of `epsilon` percent on an axis.

    Attributes:
        epsilon: the difference, percent.
        num_runs: that were audited.
        smallest_single: the smallest difference that one run against one resolves.
        smallest_audited: that `num_runs` against as many resolve.
        runs_needed: a side, on these clips.
        clips_needed: times these clips, for `num_runs` a side; None: no number is enough.
    """

    epsilon: float
    num_runs: int
    smallest_single: float
    smallest_audited: float
    runs_needed: int
    clips_needed: float | None


def resolution(axis: AxisNoise, epsilon: float) -> Resolution:
    """What one run and the audited runs can resolve, and what `epsilon` would take."""
    num_runs = len(axis.values)
    clips = axis.clips_needed(epsilon, num_runs)
    return Resolution(
        epsilon=epsilon,
        num_runs=num_runs,
        smallest_single=axis.smallest_difference(),
        smallest_audited=axis.smallest_difference(num_runs),
        runs_needed=axis.runs_needed(epsilon),
        clips_needed=None if math.isinf(clips) else clips,
    )


class Noise(NamedTuple):
    """Of one configuration.

    Attributes:
        plasticity: noise of the axis.
        forgetting_rate: noise of the axis.
        runs: names of the runs it was measured from.
        failed: name and reason of the runs that have no result; sigma says nothing of them.
    """

    plasticity: AxisNoise
    forgetting_rate: AxisNoise
    runs: tuple[str, ...]
    failed: dict[str, str]

    def axis(self, name: str) -> AxisNoise:
        """By name."""
        if name not in AXES:
            raise ValueError(f"no axis is called {name!r}; there are {' and '.join(AXES)}")
        return self.plasticity if name == "plasticity" else self.forgetting_rate


def resolves(noise: Noise, difference: float, axis: str = "forgetting_rate", num_runs: int = 1) -> bool:
    """Whether two configurations that far apart on an axis can be told apart by that many runs each, on these clips."""
    return abs(difference) >= noise.axis(axis).smallest_difference(num_runs)


def measure_noise(
    runs: Mapping[str, Evaluation], failed: Mapping[str, str], base: Evaluation, config: Resampling
) -> Noise:
    """Noise of a configuration from its runs under several seeds.

    Args:
        runs: evaluations by name, at least two, on the clips of the base's.
        failed: reasons of the runs without one.
        base: that they were adapted from.
        config: resamples and seed; the intervals are of 95 %.

    Raises:
        ValueError: fewer than two runs; other clips; or a base that scores 0.
    """
    if len(runs) < 2:
        reasons = "".join(f"; {name} failed: {reason}" for name, reason in failed.items())
        raise ValueError(f"noise needs two finished runs or more, and there are {len(runs)}{reasons}")
    axes = PairedAxes(base, config)
    values = [axes.values([run]) for run in runs.values()]
    plastic, forgot = (np.stack(rows) for rows in zip(*values, strict=True))  # (S, 1 + R) each
    return Noise(axis_noise(plastic), axis_noise(forgot), tuple(runs), dict(failed))


def axis_noise(values: np.ndarray) -> AxisNoise:
    """Noise from (S, 1 + R) values of the runs: on all clips, then on resamples that the runs share."""
    observed, drawn = values[:, 0], values[:, 1:]
    num_runs = len(observed)
    sigma = float(observed.std(ddof=1))
    own = (drawn - drawn.mean(axis=0)).var(axis=1).mean() * num_runs / (num_runs - 1)
    return AxisNoise(
        values=tuple(observed.tolist()),
        mean=float(observed.mean()),
        sigma=sigma,
        sigma_interval=sigma_interval(sigma, num_runs),
        clip_sigma=float(math.sqrt(drawn.var(axis=1).mean())),
        own_clip_sigma=float(math.sqrt(own)),
    )


def sigma_interval(sigma: float, num_runs: int, level: float = 0.95) -> Interval:
    """Where the true standard deviation lies, given that of `num_runs` normal values."""
    tails = ((1.0 + level) / 2.0, (1.0 - level) / 2.0)
    low, high = (sigma * math.sqrt((num_runs - 1) / chi2.ppf(tail, num_runs - 1)) for tail in tails)
    return Interval(float(low), float(high))


def verdict(name: str, axis: AxisNoise, epsilon: float) -> str:
    """One sentence: whether one run can tell a difference or keep a limit of `epsilon` percent; if not, what could."""
    found, shown = resolution(axis, epsilon), name.replace("_", " ")
    if found.runs_needed == 1:
        return f"{shown}: one run against one resolves {epsilon:g} % (the smallest is {found.smallest_single:.2g} %)"
    relation = "below" if epsilon < axis.total_sigma else "not far enough above"
    sentence = (
        f"{shown}: {epsilon:g} % is {relation} the noise of one run (sigma {axis.total_sigma:.2g}): "
        f"compare at least {found.runs_needed} seeds a side"
    )
    if found.num_runs >= found.runs_needed:
        return sentence
    if found.clips_needed is None:
        return f"{sentence}; more clips alone do not help {found.num_runs} seeds, as training itself varies too much"
    return f"{sentence}, or {found.num_runs} seeds a side on {found.clips_needed:.1f} times the clips"


def describe_noise(noise: Noise, epsilon: float, made_by: Mapping[str, Any]) -> dict[str, Any]:
    """What noise.json holds: the noise, what it resolves, and `made_by`, of what configuration it is."""
    axes = {name: noise.axis(name)._asdict() for name in AXES}
    resolutions = {name: resolution(noise.axis(name), epsilon)._asdict() for name in AXES}
    return {**axes, "runs": noise.runs, "failed": noise.failed, "resolution": resolutions, "made_by": dict(made_by)}


def read_noise(path: Path) -> Noise:
    """Read a noise.json: what `describe_noise` gave.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is not such a file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no noise audit at {path}; make one by `sonar noise`")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        plasticity, forgetting_rate = (_read_axis(content[name]) for name in AXES)
        return Noise(plasticity, forgetting_rate, tuple(content["runs"]), dict(content["failed"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} holds no noise audit: {error!r}; make one by `sonar noise`") from error


def _read_axis(row: dict[str, Any]) -> AxisNoise:
    return AxisNoise(**row | {"values": tuple(row["values"]), "sigma_interval": Interval(*row["sigma_interval"])})


def _positive(difference: float) -> float:
    if not difference > 0:
        raise ValueError(f"the difference to resolve is {difference}; give percent above 0, as 1.0")
    return difference
