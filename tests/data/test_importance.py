"""Importance resampling against its formulas."""

import numpy as np
import pytest

from sonar.data import retrieval
from sonar.data.importance import code_log_ratio, gumbel_top, importance_scores


def test_the_log_ratio_is_that_of_smoothed_shares() -> None:
    ratio = code_log_ratio(np.array([3, 0, 1]), np.array([0, 0, 6]))
    assert ratio == pytest.approx(np.log([(4 / 7) / (1 / 9), (1 / 7) / (1 / 9), (2 / 7) / (7 / 9)]))


def test_equal_distributions_have_no_preference() -> None:
    counts = np.tile(np.array([5, 2, 9], dtype=np.uint16), (4, 1))
    assert importance_scores(counts, counts) == pytest.approx(0.0, abs=1e-12)


def test_a_score_is_the_mean_log_ratio_of_the_clips_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "BLOCK_ROWS", 3)
    rng = np.random.default_rng(0)
    new, prior = (rng.integers(0, 5, (count, 6)).astype(np.uint16) for count in (9, 11))
    prior[4] = 0
    p, q = ((side.sum(0) + 1) / (side.sum() + 6) for side in (new.astype(int), prior.astype(int)))
    for counts, score in zip(prior, importance_scores(new, prior), strict=True):
        codes = np.repeat(np.arange(6), counts)  # the clip written out
        expected = np.mean([np.log(p[code] / q[code]) for code in codes]) if len(codes) else 0.0
        assert score == pytest.approx(expected)


def test_a_long_clip_weighs_as_a_short_one_of_the_same_codes() -> None:
    rng = np.random.default_rng(0)
    new, prior = (rng.integers(0, 50, (5, 4)).astype(np.uint16) for _ in range(2))
    prior[1] = 9 * prior[0]
    scores = importance_scores(new, prior)
    assert scores[1] == pytest.approx(scores[0])


def test_counts_do_not_wrap_around() -> None:
    often, once = (np.full((3, 1), value, dtype=np.uint16) for value in (65535, 1))
    score = importance_scores(np.hstack([often, once]), np.hstack([once, often]))[0]
    ratio = np.log((3 * 65535 + 1) / (3 + 1))  # of the first code; the second has its inverse
    assert score == pytest.approx(-ratio * 65534 / 65536)


def test_the_first_draw_follows_the_exponential_of_the_scores() -> None:
    scores = np.log([1.0, 2.0, 5.0])
    rng = np.random.default_rng(0)
    first = np.bincount([gumbel_top(scores, 1, rng)[0] for _ in range(4000)]) / 4000
    assert first == pytest.approx([1 / 8, 2 / 8, 5 / 8], abs=0.03)


def test_draws_are_without_replacement() -> None:
    drawn = gumbel_top(np.zeros(50), 50, np.random.default_rng(0))
    assert sorted(drawn) == list(range(50))
