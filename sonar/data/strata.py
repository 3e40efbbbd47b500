"""Strata of clips, and drawing evenly from them; pure.

Shapes: N clips, D width, C clusters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import faiss
import numpy as np

from sonar.data.retrieval import blocks, nearest, unit_rows

KMEANS_ITERATIONS = 20
KMEANS_CLIPS_PER_CLUSTER = 256  # k-means sees at most so many clips per cluster, which is faiss' own limit


def fill_budget(sizes: np.ndarray, budget: int) -> np.ndarray:
    """Spread a budget over strata: each gets an equal level, none more than it has, the rest is poured on.

    Args:
        sizes: (C,) int64, clips per stratum.
        budget: at most their sum.

    Returns:
        (C,) int64 that sums to the budget; strata below the final level are taken whole.
    """
    taken = np.zeros_like(sizes)
    left = budget
    while left > 0:
        open_strata = np.flatnonzero(taken < sizes)
        share = max(1, left // len(open_strata))
        for stratum in open_strata:
            step = min(share, sizes[stratum] - taken[stratum], left)
            taken[stratum] += step
            left -= step
    return taken


def draw_balanced(strata: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` rows, ascending, spread over the strata by `fill_budget`."""
    order = np.argsort(strata, kind="stable")
    sizes = np.bincount(strata)
    members = np.split(order, np.cumsum(sizes)[:-1])
    taken = fill_budget(sizes, count)
    return np.sort(np.concatenate([rng.choice(m, t, replace=False) for m, t in zip(members, taken, strict=True)]))


def label_strata(labels: Sequence[tuple[str, ...]]) -> np.ndarray:
    """(P,) int64: the place of each clip's label among the sorted ones; of several labels the rarest counts."""
    frequency = Counter(label for clip in labels for label in clip)
    chosen = [min(clip, key=lambda label: (frequency[label], label), default="") for clip in labels]
    return np.unique(chosen, return_inverse=True)[1].astype(np.int64)


def cosine_clusters(embeddings: np.ndarray, num_clusters: int, seed: int) -> np.ndarray:
    """(N, D) -> (N,) int64 cluster of each clip, by k-means on directions; embeddings are read block by block."""
    num_clips = len(embeddings)
    shown = min(num_clips, KMEANS_CLIPS_PER_CLUSTER * num_clusters)
    rows = np.sort(np.random.default_rng(seed).choice(num_clips, shown, replace=False))
    kmeans = faiss.Kmeans(
        embeddings.shape[1], num_clusters, niter=KMEANS_ITERATIONS, spherical=True, seed=seed,
        min_points_per_centroid=1, max_points_per_centroid=KMEANS_CLIPS_PER_CLUSTER,
    )  # fmt: skip
    kmeans.train(unit_rows(embeddings[rows]))
    centroids = unit_rows(np.asarray(kmeans.centroids))
    return np.concatenate([nearest(unit_rows(embeddings[b]), centroids, 1).rows[:, 0] for b in blocks(num_clips)])
