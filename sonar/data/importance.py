"""Importance resampling of clips by the histograms of their codes (DSIR); pure.

Source: DSIR, arXiv 2302.03169, which counts hashed n-grams of text; codes of the old tokenizer in their place are
inferred, as is the mean over a clip's codes instead of their sum, under which long clips would decide alone.

Shapes: N new clips, P prior clips, K codes.
"""

from __future__ import annotations

import numpy as np

from sonar.data.retrieval import blocks

SMOOTHING = 1.0  # counts added to every code of both distributions, so that no ratio is infinite (inferred)


def code_log_ratio(new_total: np.ndarray, prior_total: np.ndarray) -> np.ndarray:
    """Log p_new / p_prior of every code, from (K,) counts, both smoothed: (K,) float64 nats."""
    new, prior = new_total + SMOOTHING, prior_total + SMOOTHING
    return np.log(new / new.sum()) - np.log(prior / prior.sum())


def importance_scores(new_counts: np.ndarray, prior_counts: np.ndarray) -> np.ndarray:
    """Mean log-ratio of the new to the prior code distribution over every prior clip's codes.

    Args:
        new_counts: (N, K) uint16, how often each new clip holds each code.
        prior_counts: (P, K) the same of the prior clips; read block by block, as it is 4 GB for 2 M clips.

    Returns:
        (P,) float64 nats; 0 for a clip without codes.
    """
    ratio = code_log_ratio(_total(new_counts), _total(prior_counts))
    scores = np.empty(len(prior_counts))
    for block in blocks(len(prior_counts)):
        counts = prior_counts[block].astype(np.float64)
        scores[block] = counts @ ratio / np.maximum(counts.sum(1), 1.0)  # (rows, K) @ (K,) -> (rows,)
    return scores


def gumbel_top(scores: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` rows drawn without replacement with probabilities that go as exp(score): int64, in order of the draw."""
    return np.argsort(-(scores + rng.gumbel(size=len(scores))), kind="stable")[:count].astype(np.int64)


def _total(counts: np.ndarray) -> np.ndarray:
    """(N, K) -> (K,) float64."""
    total = np.zeros(counts.shape[1])
    for block in blocks(len(counts)):
        total += counts[block].sum(axis=0, dtype=np.int64)
    return total
