"""Task-relevant stratified sampling (TRSS): clip embeddings in, clip indices out; pure.

Shapes: N new clips, P prior clips, D width, C clusters, Q queries, M replay clips.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import faiss
import numpy as np

KMEANS_ITERATIONS = 20


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """What a run trains on.

    Attributes:
        replay_ratio: share of prior clips in the mixture and in every batch, rho (inferred: 0.5).
        num_clusters: k-means clusters of the new clips, C (inferred: 100).
        num_queries: new clips drawn, Q; at most all of them (inferred: 20000).
        uniform_fraction: share of the replay drawn at random instead of retrieved (paper: 0).
        retrieval: knn, the paper's; random, the replay baseline.
        seed: of k-means and every draw.
    """

    replay_ratio: float = 0.5
    num_clusters: int = 100
    num_queries: int = 20_000
    uniform_fraction: float = 0.0
    retrieval: Literal["knn", "random"] = "knn"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse shares and counts that cannot be drawn."""
        if not 0 <= self.replay_ratio < 1:
            raise ValueError(f"replay_ratio is {self.replay_ratio}; it must lie in [0, 1): new clips are needed")
        if not 0 <= self.uniform_fraction <= 1:
            raise ValueError(f"uniform_fraction is {self.uniform_fraction}; it must lie in [0, 1]")
        for name in ("num_clusters", "num_queries"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be >= 1")


class Drawn(NamedTuple):
    """The mixture of one run.

    Attributes:
        new_index: (Q,) int64 rows of the new clips, ascending.
        new_stratum: (Q,) int64 cluster of each.
        prior_index: (M,) int64 rows of the prior clips, each at most once, nearest first.
        replay_budget: number of replay clips that the ratio asks for; more than M where the prior corpus is smaller,
            and then the stream repeats its clips to keep the ratio.
    """

    new_index: np.ndarray
    new_stratum: np.ndarray
    prior_index: np.ndarray
    replay_budget: int


def draw_mixture(new: np.ndarray, prior: np.ndarray, config: SamplingConfig) -> Drawn:
    """Draw new clips by stratum and the prior clips most like them.

    Args:
        new: (N, D) float32 embeddings of the new clips by the old tokenizer.
        prior: (P, D) the same of the prior clips.
        config: shares and counts.

    Raises:
        ValueError: more clusters than new clips, an embedding that is not finite, or replay without prior clips.

    Source: the paper's TRSS; budgets, pooling and distance are inferred (docs/method.md, step 1).
    """
    for name, values in (("new", new), ("prior", prior)):
        if not np.isfinite(values).all():
            raise ValueError(f"{name} embeddings hold NaN or inf; the old tokenizer has diverged")
    if config.num_clusters > len(new):
        raise ValueError(f"num_clusters is {config.num_clusters}, but there are {len(new)} new clips; lower it")
    rng = np.random.default_rng(config.seed)
    new, prior = _unit(new), _unit(prior)
    strata = _cluster(new, config)
    num_queries = min(config.num_queries, len(new))
    new_index = _stratified(strata, num_queries, config.num_clusters, rng)
    budget = round(config.replay_ratio / (1 - config.replay_ratio) * num_queries)
    if budget > 0 and len(prior) == 0:
        raise ValueError(f"replay_ratio is {config.replay_ratio}, but there are no prior clips; give some or set it to 0")
    num_replay = min(budget, len(prior))
    num_uniform = num_replay if config.retrieval == "random" else round(config.uniform_fraction * num_replay)
    retrieved = _nearest(new[new_index], prior, num_replay - num_uniform)
    rest = np.setdiff1d(np.arange(len(prior)), retrieved)
    uniform = np.sort(rng.choice(rest, num_uniform, replace=False)).astype(np.int64)
    return Drawn(new_index, strata[new_index], np.concatenate([retrieved, uniform]), budget)


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


def _unit(values: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(values, axis=1, keepdims=True)
    return np.ascontiguousarray(values / np.maximum(norm, 1e-12), dtype=np.float32)


def _cluster(new: np.ndarray, config: SamplingConfig) -> np.ndarray:
    """(N, D) unit rows -> (N,) cluster of each by cosine k-means."""
    kmeans = faiss.Kmeans(
        new.shape[1], config.num_clusters, niter=KMEANS_ITERATIONS, spherical=True, seed=config.seed,
        min_points_per_centroid=1,
    )  # fmt: skip
    kmeans.train(new)
    return kmeans.index.search(new, 1)[1][:, 0].astype(np.int64)


def _stratified(strata: np.ndarray, num_queries: int, num_clusters: int, rng: np.random.Generator) -> np.ndarray:
    sizes = np.bincount(strata, minlength=num_clusters)
    counts = fill_budget(sizes, num_queries)
    drawn = [rng.choice(np.flatnonzero(strata == c), counts[c], replace=False) for c in range(num_clusters)]
    return np.sort(np.concatenate(drawn)).astype(np.int64)


def _nearest(queries: np.ndarray, prior: np.ndarray, count: int) -> np.ndarray:
    """`count` prior rows: rank by rank over all queries, better similarity first within a rank, none twice."""
    if count == 0:
        return np.empty(0, dtype=np.int64)
    index = faiss.IndexFlatIP(prior.shape[1])
    index.add(prior)
    k = min(len(prior), max(1, -(-count // len(queries))))
    while True:
        similarity, rows = index.search(queries, k)  # (Q, k)
        order = np.lexsort((-similarity.ravel(), np.tile(np.arange(k), len(queries))))
        candidates = rows.ravel()[order]
        _, first = np.unique(candidates, return_index=True)
        if len(first) >= count:
            return candidates[np.sort(first)[:count]].astype(np.int64)
        k = min(len(prior), 2 * k)
