"""Scores of resampled recordings, and the intervals that follow: numpy only.

Clips of one recording are alike, so whole recording groups are drawn with replacement and not clips. A resample is how
often each group was drawn: a row of weights. All scores are functions of weights, so that thousands of resamples are a
few products of matrices, and runs and their base are scored on the same ones.

Shapes: R resamples, G groups, N clips, C classes, K positive clips of a class.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from sonar.evaluate.predictions import Predictions
from sonar.evaluate.scores import Metric, check_predictions, decided

BLOCK = 1 << 20  # numbers that are held at a time where clips are ranked: what a processor's cache takes
_NORMAL = NormalDist()


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """How uncertainty is measured.

    Attributes:
        num: resamples.
        seed: of all draws.
        level: of the intervals, a share.
    """

    num: int = 2000
    seed: int = 0
    level: float = 0.95

    def __post_init__(self) -> None:
        """Refuse numbers that give no interval."""
        if self.num < 100:
            raise ValueError(f"{self.num} resamples give no tail to read an interval from; ask for 100 or more")
        if not 0 < self.level < 1:
            raise ValueError(f"level is {self.level}; give a share between 0 and 1, as 0.95")


class Interval(NamedTuple):
    """From `low` to `high`; NaN where nothing could be resampled."""

    low: float
    high: float

    def excludes(self, value: float) -> bool:
        """Whether the whole interval lies on one side of a value; one that is NaN excludes nothing."""
        return self.low > value or self.high < value


class WeightedScores(NamedTuple):
    """Percent, of R rows of weights.

    Attributes:
        score: (R,) mean over the classes that have a clip in the resample; of accuracy, over all clips.
        classes: (R, C) F1, recall (of accuracy) or average precision; NaN where a resample has no clip of the class.
    """

    score: np.ndarray
    classes: np.ndarray


def units(predictions: Predictions) -> np.ndarray:
    """(N,) what is drawn as one: the recording of a clip; the clip itself where all are of a single recording."""
    return predictions.groups if len(np.unique(predictions.groups)) > 1 else predictions.clip_ids


class WeightedScorer:
    """The score of one task as a function of the weights of its recording groups (see `units`)."""

    def __init__(self, predictions: Predictions, metric: Metric) -> None:
        """Count what the scores need; raises ValueError where `score_predictions` does."""
        check_predictions(predictions, metric)
        self.metric = metric
        self.groups, self._member = np.unique(units(predictions), return_inverse=True)
        self._truth, self._scores = predictions.truth, predictions.scores
        said = decided(predictions)
        self._true, self._said, self._hit = map(self._per_group, (self._truth, said, self._truth & said))

    def __call__(self, weights: np.ndarray) -> WeightedScores:
        """Scores under (R, G) weights >= 0, in order of `groups`, that leave at least one labelled clip."""
        weights = np.asarray(weights, dtype=np.float64)
        true = weights @ self._true  # (R, C)
        if self.metric == "map":
            classes = self._average_precision(weights)
        else:
            hit = weights @ self._hit
            of = true if self.metric == "accuracy" else (true + weights @ self._said) / 2.0
            classes = hit / np.where(of > 0, of, 1.0)
        classes = np.where(true > 0, 100.0 * classes, np.nan)
        if self.metric == "accuracy":
            return WeightedScores(100.0 * hit.sum(1) / true.sum(1), classes)
        return WeightedScores(np.nanmean(classes, axis=1), classes)

    def point(self) -> WeightedScores:
        """The scores of the clips as they are: one row."""
        return self(np.ones((1, len(self.groups))))

    def leave_one_out(self) -> WeightedScores:
        """The scores without each of the groups: G rows."""
        return self(1.0 - np.eye(len(self.groups)))

    def _per_group(self, table: np.ndarray) -> np.ndarray:
        sums = np.zeros((len(self.groups), table.shape[1]))
        np.add.at(sums, self._member, table)
        return sums

    def _average_precision(self, weights: np.ndarray) -> np.ndarray:
        """(R, C): precision at each positive clip, averaged by weight; clips of equal score count as one threshold."""
        values = np.empty((len(weights), self._truth.shape[1]))
        rows = max(1, BLOCK // len(self._member))
        for column in range(values.shape[1]):
            ranking = _rank(self._scores[:, column], self._truth[:, column])
            groups = self._member[ranking.order]
            for begin in range(0, len(weights), rows):
                block = weights[begin : begin + rows, groups]
                values[begin : begin + rows, column] = _weighted_average_precision(block, ranking)
        return values


class _Ranking(NamedTuple):
    """Clips by falling score.

    Attributes:
        order: (N,) rows.
        positive: (K,) places of the positives in the order.
        last: (K,) place of the last clip that has the score of that positive.
        last_positive: (K,) the same among the positives.
    """

    order: np.ndarray
    positive: np.ndarray
    last: np.ndarray
    last_positive: np.ndarray


def _rank(scores: np.ndarray, truth: np.ndarray) -> _Ranking:
    order = np.argsort(-scores, kind="stable")
    falling = -scores[order]
    positive = np.flatnonzero(truth[order])
    last = np.searchsorted(falling, falling[positive], side="right") - 1
    return _Ranking(order, positive, last, np.searchsorted(positive, last, side="right") - 1)


def _weighted_average_precision(weights: np.ndarray, ranking: _Ranking) -> np.ndarray:
    """(R,) of (R, N) weights in the order of the ranking; 0 where no positive has weight."""
    above = np.cumsum(weights, axis=1)[:, ranking.last]  # (R, K)
    positive = weights[:, ranking.positive]
    hit = np.cumsum(positive, axis=1)
    precision = hit[:, ranking.last_positive] / np.where(above > 0, above, 1.0)
    total = hit[:, -1]
    return np.einsum("rk,rk->r", positive, precision) / np.where(total > 0, total, 1.0)


def draw_weights(num_groups: int, num: int, rng: np.random.Generator) -> np.ndarray:
    """(num, G) float64: how often each group was drawn in `num` draws of G groups with replacement."""
    return rng.multinomial(num_groups, np.full(num_groups, 1.0 / num_groups), size=num).astype(np.float64)


def percentile_interval(draws: np.ndarray, level: float) -> Interval:
    """Quantiles of resampled values, for differences; NaN (no clip of the class) is left out.

    Raises:
        ValueError: no draw is finite.
    """
    return _quantiles(draws, np.asarray([(1.0 - level) / 2.0, (1.0 + level) / 2.0]))


def bca_interval(draws: np.ndarray, point: float, left_out: np.ndarray, level: float) -> Interval:
    """Quantiles of resampled values, corrected for bias and skewness: for scores, which are bounded.

    Args:
        draws: (R,) of the resamples; NaN is left out.
        point: of all clips.
        left_out: (G,) without each group; NaN is left out.
        level: share.

    Raises:
        ValueError: no draw is finite.

    Source: Efron, Better bootstrap confidence intervals, 1987.
    """
    finite = draws[np.isfinite(draws)]
    below = (np.mean(finite < point) + np.mean(finite <= point)) / 2.0 if len(finite) else 0.5  # equal ones count half
    edge = 1.0 / (len(finite) + 1)
    bias = _NORMAL.inv_cdf(float(np.clip(below, edge, 1.0 - edge)))
    left_out = left_out[np.isfinite(left_out)]
    influence = left_out.mean() - left_out if len(left_out) else np.zeros(1)
    spread = float(np.sum(influence**2)) ** 1.5
    acceleration = float(np.sum(influence**3)) / (6.0 * spread) if spread > 0 else 0.0
    shifted = [bias + _NORMAL.inv_cdf(share) for share in ((1.0 - level) / 2.0, (1.0 + level) / 2.0)]
    return _quantiles(draws, np.asarray([_NORMAL.cdf(bias + z / (1.0 - acceleration * z)) for z in shifted]))


class ScoreInterval(NamedTuple):
    """A score in percent with its interval over recordings, and the same of every class."""

    score: float
    interval: Interval
    classes: dict[str, tuple[float, Interval]]


def score_interval(predictions: Predictions, metric: Metric, config: Resampling | None = None) -> ScoreInterval:
    """BCa intervals of a model's score on a task, by default of 95 %; raises ValueError as `WeightedScorer` does."""
    config = config or Resampling()
    scorer = WeightedScorer(predictions, metric)
    point, left_out = scorer.point(), scorer.leave_one_out()
    drawn = scorer(draw_weights(len(scorer.groups), config.num, np.random.default_rng(config.seed)))
    classes = {
        name: (
            float(point.classes[0, c]),
            bca_interval(drawn.classes[:, c], point.classes[0, c], left_out.classes[:, c], config.level),
        )
        for c, name in enumerate(predictions.classes)
    }
    whole = bca_interval(drawn.score, point.score[0], left_out.score, config.level)
    return ScoreInterval(float(point.score[0]), whole, classes)


def _quantiles(draws: np.ndarray, shares: np.ndarray) -> Interval:
    finite = draws[np.isfinite(draws)]
    if not len(finite):
        raise ValueError("no resample has a clip to score; the task has too few labelled recordings for an interval")
    low, high = np.quantile(finite, shares)
    return Interval(float(low), float(high))
