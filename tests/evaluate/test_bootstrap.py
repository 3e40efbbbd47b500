"""Scores under resampled recordings: equal to scikit-learn's, and intervals that cover a known truth."""

from __future__ import annotations

import time
from statistics import NormalDist

import numpy as np
import pytest
from evaluated import make_predictions, noisier
from scipy.stats import bootstrap
from sklearn.metrics import accuracy_score, average_precision_score, f1_score

from sonar.evaluate.bootstrap import (
    Interval,
    Resampling,
    WeightedScorer,
    bca_interval,
    draw_weights,
    percentile_interval,
    score_interval,
)
from sonar.evaluate.predictions import Predictions
from sonar.evaluate.scores import score_predictions

METRICS = ("macro_f1", "accuracy", "map")


def of_scikit_learn(predictions: Predictions, metric: str, weight: np.ndarray) -> tuple[float, np.ndarray]:
    """Score and class scores in percent, by sample_weight, over the classes that have weight."""
    truth, scores = predictions.truth, predictions.scores
    present = truth.T @ weight > 0
    if metric == "map":
        columns = np.flatnonzero(present)
        each = np.asarray([average_precision_score(truth[:, c], scores[:, c], sample_weight=weight) for c in columns])
        return 100 * float(each.mean()), 100 * each
    if (truth.sum(1) != 1).any():
        said = scores > 0
        each = np.asarray([f1_score(truth[:, c], said[:, c], sample_weight=weight) for c in np.flatnonzero(present)])
        return 100 * float(each.mean()), 100 * each
    true, said = truth.argmax(1), scores.argmax(1)
    labels = np.flatnonzero(present)
    if metric == "accuracy":
        each = np.asarray([weight[(true == c) & (said == c)].sum() / weight[true == c].sum() for c in labels])
        return 100 * float(accuracy_score(true, said, sample_weight=weight)), 100 * each
    each = f1_score(true, said, average=None, labels=labels, sample_weight=weight, zero_division=0.0)
    return 100 * float(each.mean()), 100 * each


def repeated(predictions: Predictions, times: np.ndarray) -> Predictions:
    rows = np.repeat(np.arange(len(times)), times)
    fields = {name: getattr(predictions, name)[rows] for name in ("clip_ids", "groups", "truth", "scores")}
    return predictions._replace(**fields)


def multi_label(seed: int = 0) -> Predictions:
    """Some clips with no label, some with several; scores in steps, so that many are equal."""
    rng = np.random.default_rng(seed)
    truth = rng.random((60, 4)) < 0.3
    return Predictions(
        clip_ids=np.asarray([f"c{row}" for row in range(60)]),
        groups=np.asarray([f"r{row // 3}" for row in range(60)]),
        classes=("a", "b", "c", "d"),
        truth=truth,
        scores=np.round(truth + rng.standard_normal(truth.shape)).astype(np.float32),
    )


@pytest.mark.parametrize("metric", METRICS)
def test_weighted_scores_are_those_of_scikit_learn(metric: str) -> None:
    rng = np.random.default_rng(0)
    for predictions in (
        make_predictions(1),
        make_predictions(2, skill=0.1) if metric == "accuracy" else multi_label(1),
    ):
        scorer = WeightedScorer(predictions, metric)
        weights = rng.random((5, len(scorer.groups)))
        found = scorer(weights)
        member = np.searchsorted(scorer.groups, predictions.groups)
        for row, weight in enumerate(weights):
            score, classes = of_scikit_learn(predictions, metric, weight[member])
            assert found.score[row] == pytest.approx(score)
            np.testing.assert_allclose(found.classes[row], classes)


@pytest.mark.parametrize("metric", METRICS)
def test_a_resample_scores_as_its_recordings_literally_repeated(metric: str) -> None:
    predictions = multi_label() if metric == "map" else make_predictions(3, num_classes=4, recordings=2)
    scorer = WeightedScorer(predictions, metric)
    weights = draw_weights(len(scorer.groups), 40, np.random.default_rng(0))
    found = scorer(weights)
    member = np.searchsorted(scorer.groups, predictions.groups)
    absent = 0
    for row, weight in enumerate(weights):
        drawn = repeated(predictions, weight[member].astype(int))
        score, classes = of_scikit_learn(drawn, metric, np.ones(len(drawn.truth)))
        assert found.score[row] == pytest.approx(score)
        np.testing.assert_allclose(found.classes[row][drawn.truth.any(axis=0)], classes)
        absent += np.isnan(found.classes[row]).sum() > 0
    assert metric == "map" or absent > 0  # so that the rule of absent classes was tried


@pytest.mark.parametrize("metric", METRICS)
def test_all_clips_once_is_the_score_that_is_reported(metric: str) -> None:
    predictions = make_predictions(4)
    point, reported = WeightedScorer(predictions, metric).point(), score_predictions(predictions, metric)
    assert point.score[0] == pytest.approx(reported.score)
    np.testing.assert_allclose(point.classes[0], list(reported.classes.values()))


def test_a_class_without_a_clip_in_a_resample_is_left_out_of_its_mean() -> None:
    predictions = make_predictions(0, recordings=1)  # a class is a recording
    found = WeightedScorer(predictions, "macro_f1")(np.asarray([[2.0, 1.0, 0.0]]))
    assert np.isnan(found.classes[0]).tolist() == [False, False, True]
    assert found.score[0] == pytest.approx(found.classes[0, :2].mean())


def test_whole_recordings_are_drawn_as_many_as_there_are() -> None:
    weights = draw_weights(12, 4000, np.random.default_rng(0))
    assert (weights.sum(axis=1) == 12).all() and (weights == np.round(weights)).all()
    assert weights.mean(axis=0) == pytest.approx(np.ones(12), abs=0.06)
    assert weights.var(axis=0) == pytest.approx(np.full(12, 11 / 12), abs=0.1)  # of a multinomial


def test_leaving_one_out_is_scoring_without_that_recording() -> None:
    predictions = make_predictions(5)
    found = WeightedScorer(predictions, "macro_f1").leave_one_out()
    rest = repeated(predictions, (predictions.groups != "r0003").astype(int))
    assert found.score[3] == pytest.approx(score_predictions(rest, "macro_f1").score)


def test_both_intervals_are_those_of_scipy_where_a_clip_is_a_recording() -> None:
    predictions = make_predictions(6, recordings=30, clips=1)
    hits = (predictions.truth.argmax(1) == predictions.scores.argmax(1)) * 100.0
    scorer, config = WeightedScorer(predictions, "accuracy"), Resampling(num=8000)
    drawn = scorer(draw_weights(len(hits), config.num, np.random.default_rng(0)))
    for method, found in (
        ("percentile", percentile_interval(drawn.score, 0.95)),
        ("BCa", score_interval(predictions, "accuracy", config).interval),
    ):
        known = bootstrap((hits,), np.mean, n_resamples=8000, method=method, rng=1).confidence_interval
        assert found == pytest.approx(tuple(known), abs=1.2)  # a clip is 1.1 %


def test_bca_is_the_percentile_interval_where_nothing_is_to_be_corrected() -> None:
    draws = np.asarray([NormalDist(50, 4).inv_cdf((i + 0.5) / 999) for i in range(999)])
    symmetric = 50 + np.asarray([-1.0, 1.0, -2.0, 2.0])
    assert bca_interval(draws, 50.0, symmetric, 0.9) == pytest.approx(percentile_interval(draws, 0.9), abs=1e-3)
    shifted = bca_interval(draws + 1.0, 50.0, symmetric, 0.9)  # draws above the point: the truth is below it
    assert shifted.low < percentile_interval(draws, 0.9).low and shifted.high < percentile_interval(draws, 0.9).high


def test_bca_moves_towards_the_long_tail_as_far_as_its_acceleration_says() -> None:
    draws = np.asarray([NormalDist(50, 4).inv_cdf((i + 0.5) / 9999) for i in range(9999)])
    left_out = np.asarray([2.5, 2.5, 2.5, 2.5, 0.0])  # means of 0, 0, 0, 0, 10 without each
    acceleration = (4 * (-0.5) ** 3 + 2.0**3) / (6 * (4 * 0.25 + 4.0) ** 1.5)
    z = NormalDist().inv_cdf(0.95)
    expected = 50 - 4 * z / (1 + acceleration * z), 50 + 4 * z / (1 - acceleration * z)
    assert bca_interval(draws, 50.0, left_out, 0.9) == pytest.approx(expected, abs=0.01)


def coverage(covered: list[bool]) -> float:
    return sum(covered) / len(covered)


@pytest.mark.parametrize("metric", ["macro_f1", "accuracy"])
def test_bca_intervals_cover_the_true_score_as_often_as_they_say(metric: str) -> None:
    truth = score_predictions(make_predictions(99, recordings=20_000), metric).score
    covered = []
    for seed in range(200):
        found = score_interval(make_predictions(seed, recordings=14), metric, Resampling(num=400)).interval
        covered.append(not found.excludes(truth))
    assert 0.91 <= coverage(covered) <= 0.985


def test_intervals_over_clips_would_be_too_short_where_recordings_are_alike() -> None:
    truth = score_predictions(make_predictions(99, recordings=20_000, clips=4, spread=2.0), "accuracy").score
    by_recording, by_clip = [], []
    for seed in range(150):
        made = make_predictions(seed, recordings=14, clips=4, spread=2.0)
        for covered, groups in ((by_recording, made.groups), (by_clip, made.clip_ids)):
            found = score_interval(made._replace(groups=groups), "accuracy", Resampling(num=300)).interval
            covered.append(not found.excludes(truth))
    assert coverage(by_recording) >= 0.90
    assert coverage(by_clip) < 0.80


@pytest.mark.parametrize("metric", METRICS)
def test_percentile_intervals_cover_a_true_difference(metric: str) -> None:
    def pair(seed: int, recordings: int) -> tuple[Predictions, Predictions]:
        made = make_predictions(seed, recordings=recordings)
        return made, noisier(made, seed + 10_000, noise=0.7, help_truth=0.5)

    first, second = (score_predictions(side, metric).score for side in pair(99, 20_000))
    covered = []
    for seed in range(200):
        one, two = (WeightedScorer(side, metric) for side in pair(seed, 14))
        weights = draw_weights(len(one.groups), 400, np.random.default_rng(seed))
        found = percentile_interval(two(weights).score - one(weights).score, 0.95)
        covered.append(not found.excludes(second - first))
    assert 0.90 <= coverage(covered) <= 0.985


@pytest.mark.parametrize("metric", METRICS)
def test_two_thousand_resamples_of_a_thousand_clips_take_less_than_a_second(metric: str) -> None:
    scorer = WeightedScorer(make_predictions(0, num_classes=10, recordings=100, clips=1), metric)
    weights = draw_weights(1000, 2000, np.random.default_rng(0))
    began = time.process_time()
    scorer(weights)
    assert time.process_time() - began < 1.0


def test_the_clips_of_a_single_recording_are_drawn_one_by_one() -> None:
    made = make_predictions(7)
    single = made._replace(groups=np.full(len(made.groups), "one"))
    assert score_interval(single, "accuracy") == score_interval(made._replace(groups=made.clip_ids), "accuracy")


def test_the_same_seed_gives_the_same_interval_and_another_one_does_not() -> None:
    made = make_predictions(8)
    first, again, other = (score_interval(made, "macro_f1", Resampling(seed=seed)) for seed in (0, 0, 1))
    assert first == again and first.interval != other.interval


def test_an_interval_excludes_what_lies_on_either_side_of_it() -> None:
    assert [Interval(-1.0, 2.0).excludes(value) for value in (-1.5, -1.0, 0.0, 2.5)] == [True, False, False, True]


def test_what_cannot_be_scored_or_resampled_is_named() -> None:
    made = make_predictions(0)
    with pytest.raises(ValueError, match="no scored clip has the class k1"):
        WeightedScorer(made._replace(truth=made.truth & [True, False, True]), "map")
    with pytest.raises(ValueError, match="no resample has a clip to score"):
        percentile_interval(np.full(3, np.nan), 0.95)
    with pytest.raises(ValueError, match="50 resamples give no tail to read an interval from; ask for 100 or more"):
        Resampling(num=50)
    with pytest.raises(ValueError, match="level is 95; give a share between 0 and 1"):
        Resampling(level=95)
