"""Task-relevant stratified sampling (TRSS): clip embeddings in, clip indices out; pure.

Shapes: N new clips, P prior clips, D width, C clusters, Q queries, M replay clips.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import faiss
import numpy as np

KMEANS_ITERATIONS = 20
MAX_CANDIDATES = 2**25  # (query, neighbour) pairs held at a time: 400 MB
DRAWN_AT_RANDOM = -1  # stratum of replay that no query retrieved


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """What a run trains on.

    Attributes:
        replay_ratio: share of prior clips in the mixture and in every batch, rho (inferred: 0.5).
        num_clusters: k-means clusters of the new clips, C (inferred: 100).
        num_queries: new clips drawn, Q; at most all of them (inferred: 20000).
        uniform_fraction: share of the replay drawn at random instead of retrieved (paper: 0).
        retrieval: knn, the paper's; random, the replay baseline.
        allow_repeats: where the prior corpus is smaller than the replay budget, train on all of it several times;
            False: refuse.
        seed: of k-means and every draw.
    """

    replay_ratio: float = 0.5
    num_clusters: int = 100
    num_queries: int = 20_000
    uniform_fraction: float = 0.0
    retrieval: Literal["knn", "random"] = "knn"
    allow_repeats: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse shares and counts that cannot be drawn."""
        if not 0 <= self.replay_ratio < 1:
            raise ValueError(f"replay_ratio is {self.replay_ratio}; it must lie in [0, 1), as new clips are needed")
        if not 0 <= self.uniform_fraction <= 1:
            raise ValueError(f"uniform_fraction is {self.uniform_fraction}; it must lie in [0, 1]")
        if self.retrieval not in ("knn", "random"):
            raise ValueError(f"retrieval is {self.retrieval!r}; allowed: knn, random")
        for name in ("num_clusters", "num_queries"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be >= 1")


class Mixture(NamedTuple):
    """What a run trains on: rows of the two embedding arrays.

    Attributes:
        new_index: (Q,) int64 rows of the new clips, ascending.
        prior_index: (M,) int64 rows of the prior clips, each at most once: the retrieved, nearest first, then those
            drawn at random, ascending.
        new_stratum: (Q,) int64 cluster of each new clip.
        prior_stratum: (M,) int64 cluster of the query that retrieved it, or DRAWN_AT_RANDOM.
        replay_budget: number of replay clips that the ratio asks for. More than M where the prior corpus is smaller:
            the stream then repeats its clips and keeps the ratio.
    """

    new_index: np.ndarray
    prior_index: np.ndarray
    new_stratum: np.ndarray
    prior_stratum: np.ndarray
    replay_budget: int

    @property
    def replay_budget_met(self) -> bool:
        """Whether the budget is met without repeating a clip."""
        return len(self.prior_index) == self.replay_budget


def draw_mixture(new: np.ndarray, prior: np.ndarray, config: SamplingConfig) -> Mixture:
    """Draw new clips by stratum and the prior clips most like them.

    Args:
        new: (N, D) float32 embeddings of the new clips by the old tokenizer.
        prior: (P, D) the same of the prior clips.
        config: shares and counts.

    Raises:
        ValueError: more clusters than new clips, embeddings that are not finite or do not fit together, or a replay
            budget without the clips for it.

    Source: the paper's TRSS; budgets, pooling and distance are inferred (docs/method.md, step 1).
    """
    _check(new, prior, config)
    rng = np.random.default_rng(config.seed)
    new, prior = _unit(new), _unit(prior)
    strata = _cluster(new, config)
    num_queries = min(config.num_queries, len(new))
    new_index = _stratified(strata, num_queries, config.num_clusters, rng)
    budget = _replay_budget(num_queries, len(prior), config)
    num_replay = min(budget, len(prior))
    num_uniform = num_replay if config.retrieval == "random" else round(config.uniform_fraction * num_replay)
    retrieved, query = _nearest(new[new_index], prior, num_replay - num_uniform)
    rest = np.setdiff1d(np.arange(len(prior)), retrieved)
    uniform = np.sort(rng.choice(rest, num_uniform, replace=False)).astype(np.int64)
    return Mixture(
        new_index=new_index,
        prior_index=np.concatenate([retrieved, uniform]),
        new_stratum=strata[new_index],
        prior_stratum=np.concatenate([strata[new_index][query], np.full(num_uniform, DRAWN_AT_RANDOM)]),
        replay_budget=budget,
    )


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


def _check(new: np.ndarray, prior: np.ndarray, config: SamplingConfig) -> None:
    if new.ndim != 2 or prior.ndim != 2 or new.shape[1] != prior.shape[1]:
        raise ValueError(f"embeddings have shapes {new.shape} and {prior.shape}; they must be (N, D) and (P, D)")
    for name, values in (("new", new), ("prior", prior)):
        if not np.isfinite(values).all():
            raise ValueError(f"{name} embeddings hold NaN or inf; the old tokenizer has diverged")
    if config.num_clusters > len(new):
        raise ValueError(f"num_clusters is {config.num_clusters}, but there are {len(new)} new clips; lower it")


def _replay_budget(num_queries: int, num_prior: int, config: SamplingConfig) -> int:
    """M = rho / (1 - rho) * Q."""
    ratio = config.replay_ratio
    budget = round(ratio / (1 - ratio) * num_queries)
    if budget and not num_prior:
        raise ValueError(f"replay_ratio is {ratio}, but there are no prior clips; give some, or set it to 0")
    if budget > num_prior and not config.allow_repeats:
        raise ValueError(
            f"replay_ratio {ratio} for {num_queries} new clips asks for {budget} prior clips, but there are "
            f"{num_prior}; the largest ratio without repeats is {num_prior / (num_prior + num_queries):.3f}"
        )
    return budget


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


def _nearest(queries: np.ndarray, prior: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The prior rows nearest to the queries, none twice, and the query that found each: two times (count,) int64.

    Taken in turns: first the nearest of every query, then the second nearest, and so on, in each turn the most similar
    first. Where the turns would take more than MAX_CANDIDATES pairs, the rest is filled with the prior rows most
    similar to any query.
    """
    if count == 0:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    index = _flat_index(prior)
    most = min(len(prior), max(1, MAX_CANDIDATES // len(queries)))
    k = min(most, -(-count // len(queries)))
    while True:
        similarity, rows = index.search(queries, k)  # (Q, k)
        turn = np.tile(np.arange(k), len(queries))
        order = np.lexsort((rows.ravel(), -similarity.ravel(), turn))
        found, first = np.unique(rows.ravel()[order], return_index=True)
        if len(found) >= count or k == most:
            break
        k = min(most, 2 * k)
    chosen = order[np.sort(first)[:count]]  # places in the (Q, k) pairs
    retrieved, query = rows.ravel()[chosen].astype(np.int64), chosen // k
    if len(retrieved) < count:
        closeness, nearest = _flat_index(queries).search(prior, 1)  # (P, 1)
        closeness[retrieved] = -np.inf
        more = np.argsort(-closeness[:, 0], kind="stable")[: count - len(retrieved)]
        retrieved, query = np.concatenate([retrieved, more]), np.concatenate([query, nearest[more, 0]])
    return retrieved, query


def _flat_index(values: np.ndarray) -> faiss.IndexFlatIP:
    index = faiss.IndexFlatIP(values.shape[1])
    index.add(values)
    return index
