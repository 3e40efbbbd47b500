"""Means over seeds: the noise is the true one, certainty errs as rarely as it says, however often one looks."""

import numpy as np
import pytest
from scipy import stats

from sonar.evaluate.bootstrap import Resampling
from sonar.evaluate.comparison import Dominance
from sonar.evaluate.seeds import (
    SeededPoint,
    SeedNoise,
    dominance,
    doubt,
    is_settled,
    mean_intervals,
    paired_dominance,
    pool_noise,
)

SIGMA = np.asarray([2.0, 0.5])
LOOKS, CONFIDENCE = 5, 0.95
NUM = 600  # resamples; none of the recordings changes anything here


def point(values: np.ndarray, num_failed: int = 0, shifts: np.ndarray | None = None, **more: bool) -> SeededPoint:
    return SeededPoint(values, num_failed, np.zeros((NUM, 2)) if shifts is None else shifts, **more)


def test_pooled_noise_is_the_mean_variance_of_the_groups_weighted_by_their_freedom() -> None:
    rng = np.random.default_rng(0)
    groups = [rng.normal(rng.normal(0, 100, 2), SIGMA, (runs, 2)) for runs in (1, 2, 3, 5)]
    found = pool_noise(groups)
    assert found is not None and found.freedom == 7
    by_hand = sum((len(g) - 1) * np.cov(g.T) for g in groups[1:]) / 7
    np.testing.assert_allclose(found.covariance, by_hand)
    np.testing.assert_allclose(found.sigma, np.sqrt(np.diag(by_hand)))
    assert pool_noise(groups[:1]) is None


@pytest.mark.parametrize("freedom", [2, 8])
def test_the_probability_of_one_open_axis_is_that_of_the_t_distribution(freedom: int) -> None:
    """The other axis is beyond doubt, so dominance hangs on forgetting alone: a t-test in closed form."""
    noise = SeedNoise(np.diag(SIGMA**2), freedom)
    shifts = np.zeros((100_000, 2))
    first = point(np.asarray([[50.0, 1.0], [50.0, 1.2]]), shifts=shifts)
    second = point(np.asarray([[0.0, 1.5], [0.0, 1.5], [0.0, 1.8]]), shifts=shifts)
    found = dominance(first, second, noise)
    assert found is not None
    expected = stats.t.cdf(0.5 / (SIGMA[1] * np.sqrt(1 / 2 + 1 / 3)), freedom)
    assert found.first == pytest.approx(expected, abs=0.006) and found.second < 1e-3


def test_what_recordings_change_for_both_alike_is_in_no_difference_and_what_they_change_for_one_is() -> None:
    rng = np.random.default_rng(1)
    alike = rng.normal(0, 30, (20_000, 2))
    own = rng.normal(0, 1, (20_000, 2)) * (0, 1)
    noise = SeedNoise(np.diag([1e-12, 1e-12]), 5)
    first, second = (np.asarray([[value, forgot]]) for value, forgot in ((9.0, 1.0), (0.0, 2.0)))
    sure = dominance(point(first, shifts=alike), point(second, shifts=alike), noise)
    unsure = dominance(point(first, shifts=alike + own), point(second, shifts=alike), noise)
    assert sure == Dominance(1.0, 0.0)
    assert unsure is not None and unsure.first == pytest.approx(stats.norm.cdf(1.0), abs=0.01)


@pytest.mark.parametrize("num_runs", [2, 5])
def test_places_in_the_same_runs_are_told_apart_by_their_differences_alone(num_runs: int) -> None:
    """Seeds move both by 50 percent; both axes gain the same difference, so it is a paired t-test in closed form."""
    rng = np.random.default_rng(num_runs)
    seeds, gaps = rng.normal(0, 50, (num_runs, 2)), rng.normal(0.5, 1.0, num_runs)
    shifts = rng.normal(0, 30, (100_000, 2))  # of the recordings, the same for both
    values = seeds + gaps[:, None] * np.asarray([1.0, -1.0])
    found = paired_dominance(point(values, shifts=shifts), point(seeds, shifts=shifts))
    assert found is not None
    score = stats.ttest_1samp(gaps, 0.0).statistic
    assert found.first == pytest.approx(stats.t.cdf(score, num_runs - 1), abs=0.006)
    assert found.second == pytest.approx(stats.t.cdf(-score, num_runs - 1), abs=0.006)


def test_places_in_one_run_or_without_predictions_cannot_be_told_apart() -> None:
    one, blind = point(np.asarray([[1.0, 1.0]])), SeededPoint(np.ones((3, 2)), 0, None)
    for first, second in ((one, one), (blind, point(np.zeros((3, 2)))), (point(np.zeros((3, 2))), blind)):
        assert paired_dominance(first, second) is None


def test_a_place_that_some_runs_never_came_to_dominates_in_that_share_less() -> None:
    values = np.asarray([[90.0, -90.0], [91.0, -91.0], [92.0, -93.0]])
    found = paired_dominance(point(values, num_failed=1), point(values / 1e3))
    assert found is not None and found.first == pytest.approx(0.75, abs=1e-3) and found.second < 1e-3


def test_a_failed_run_dominates_nothing() -> None:
    noise = SeedNoise(np.diag(SIGMA**2), 8)
    better, worse = np.asarray([[90.0, -90.0]] * 3), np.asarray([[0.0, 0.0]] * 3)
    assert dominance(point(better), point(worse), noise) == Dominance(1.0, 0.0)
    assert dominance(point(better, num_failed=1), point(worse), noise) == Dominance(0.75, 0.0)
    assert not is_settled(Dominance(0.75, 0.0), CONFIDENCE, 1)


def test_what_is_unknown_is_unsettled() -> None:
    noise, values = SeedNoise(np.diag(SIGMA**2), 8), np.asarray([[1.0, 1.0]])
    blind = SeededPoint(values, 0, None)
    for found in (dominance(point(values), point(values), None), dominance(point(values), blind, noise)):
        assert found is None and doubt(found) == 0.5 and not is_settled(found, CONFIDENCE, LOOKS)
    assert (
        mean_intervals(blind, noise, Resampling()) is None and mean_intervals(point(values), None, Resampling()) is None
    )


def test_scores_too_coarse_to_show_a_seed_settle_nothing() -> None:
    """Two audited runs without one changed prediction: a sigma of 0 is no certainty."""
    noise = pool_noise([np.asarray([[1.0, 0.0], [2.0, 0.0]])])
    assert noise is not None and not noise.is_measured
    better, worse = point(np.asarray([[90.0, -90.0]])), point(np.asarray([[0.0, 0.0]]))
    assert dominance(better, worse, noise) is None and mean_intervals(better, noise, Resampling()) is None


def test_what_was_never_trained_has_no_noise_of_seeds() -> None:
    noise = SeedNoise(np.diag(SIGMA**2), 8)
    found = mean_intervals(point(np.asarray([[0.0, 0.0]]), is_exact=True), noise, Resampling())
    assert found == ((0.0, 0.0), (0.0, 0.0))


def test_intervals_of_the_mean_cover_the_truth_as_often_as_they_say() -> None:
    rng, covered = np.random.default_rng(3), 0
    for _ in range(400):
        runs = rng.normal(0, SIGMA, (3, 2))
        noise = pool_noise([runs, rng.normal(0, SIGMA, (4, 2))])
        found = mean_intervals(point(runs), noise, Resampling(seed=int(rng.integers(1 << 30))))
        assert found is not None
        covered += not found[1].excludes(0.0)
    assert 0.92 < covered / 400 < 0.98


def settle(rng: np.random.Generator, gap: float) -> tuple[str, int]:
    """A pair whose first is far better on plasticity and `gap` better on forgetting, looked at after each seed."""
    audit = rng.normal(0, SIGMA, (3, 2))
    first = rng.normal((40.0, -gap), SIGMA, (LOOKS, 2))
    second = rng.normal((0.0, 0.0), SIGMA, (LOOKS, 2))
    for runs in range(1, LOOKS + 1):
        noise = pool_noise([audit, first[:runs], second[:runs]])
        found = dominance(point(first[:runs]), point(second[:runs]), noise, seed=int(rng.integers(1 << 30)))
        assert found is not None
        if is_settled(found, CONFIDENCE, LOOKS):
            return ("dominates" if found.first > 0.5 else "does not"), runs
    return "open", LOOKS


@pytest.mark.parametrize("gap", [0.0, -0.05, -0.25])
def test_a_pair_without_dominance_is_declared_to_have_it_in_at_most_one_of_twenty_for_all_looks_together(
    gap: float,
) -> None:
    rng = np.random.default_rng(11)
    wrong = sum(settle(rng, gap)[0] == "dominates" for _ in range(800))
    assert stats.binomtest(wrong, 800, 0.05, alternative="greater").pvalue > 0.01, f"{wrong} of 800"


def test_looking_without_that_care_would_err_more_often() -> None:
    """The test above can fail: with one look's line at every look it does."""
    rng, wrong = np.random.default_rng(11), 0
    for _ in range(800):
        audit, first, second = (rng.normal(0, SIGMA, (runs, 2)) for runs in (3, LOOKS, LOOKS))
        first[:, 0] += 40.0
        for runs in range(1, LOOKS + 1):
            noise = pool_noise([audit, first[:runs], second[:runs]])
            found = dominance(point(first[:runs]), point(second[:runs]), noise, seed=runs)
            if found is not None and found.first > CONFIDENCE:
                wrong += 1
                break
    assert stats.binomtest(wrong, 800, 0.05, alternative="greater").pvalue < 0.01


def test_true_dominance_of_six_sigma_is_settled_with_the_stated_confidence() -> None:
    rng = np.random.default_rng(12)
    ends = [settle(rng, 6 * SIGMA[1]) for _ in range(300)]
    assert np.mean([end == "dominates" for end, _ in ends]) >= CONFIDENCE
    assert np.mean([runs for _, runs in ends]) < LOOKS  # and early
