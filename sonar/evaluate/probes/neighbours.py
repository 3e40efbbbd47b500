"""The vote of the nearest training clips.

Shapes: N fitted clips, M other ones, D width, C classes, P candidates.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.neighbors import NearestNeighbors


def neighbour_scores(
    fitted: np.ndarray, targets: np.ndarray, features: np.ndarray, neighbours: Sequence[int], temperature: float
) -> np.ndarray:
    """Share of each class in the vote of the k nearest fitted clips by cosine, for several k from one search.

    Args:
        fitted: (N, D) float, standardised.
        targets: (N, C) bool of the fitted clips.
        features: (M, D) float, standardised by what `fitted` was.
        neighbours: P values of k; one above N is N.
        temperature: a neighbour of cosine s votes with exp(s / temperature).

    Returns:
        (P, M, C) float64 in [0, 1].
    """
    most = min(max(neighbours), len(fitted))
    search = NearestNeighbors(n_neighbors=most, metric="cosine", algorithm="brute").fit(fitted)
    distances, rows = search.kneighbors(features)  # (M, most), nearest first
    votes = np.exp((distances[:, :1] - distances).astype(np.float64) / temperature)
    sums = np.zeros((len(features), targets.shape[1]))
    scores = np.empty((len(neighbours), *sums.shape))
    for rank in range(most):
        sums += votes[:, rank, None] * targets[rows[:, rank]]
        total = votes[:, : rank + 1].sum(axis=1, keepdims=True)
        for candidate, k in enumerate(neighbours):
            if min(k, most) == rank + 1:
                scores[candidate] = sums / total
    return scores
