"""Task-relevant stratified sampling (TRSS): what is known of the clips in, clip indices out; pure.

Shapes: N new clips, P prior clips, D width, K codes, C clusters, Q queries, M replay clips.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np

from sonar.data.importance import gumbel_top, importance_scores
from sonar.data.retrieval import Retrieved, nearest_in_turns, unit_rows
from sonar.data.strata import cosine_clusters, draw_balanced, label_strata

Retrieval = Literal["knn", "dsir", "random", "label", "all"]
Rank = Callable[[np.ndarray, np.ndarray, int], Retrieved]  # what `nearest_in_turns` is
NO_STRATUM = -1  # of replay that no stratum asked for


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """What a run trains on.

    Attributes:
        replay_ratio: share of prior clips in the mixture and in every batch, rho (inferred: 0.5); "all" sets its own.
        num_clusters: k-means clusters of the new clips, C (inferred: 100).
        num_queries: new clips drawn, Q; at most all of them (inferred: 20000).
        uniform_fraction: share of the replay drawn at random instead of retrieved (paper: 0); without effect for
            "random" and "all".
        retrieval: how replay is drawn: "knn", the prior clips most like the drawn new ones (paper); "dsir", by
            importance of their codes; "random"; "label", an equal number for every label; "all", the whole prior
            corpus once, as in joint re-training.
        allow_repeats: where the prior corpus is smaller than the replay budget, train on all of it several times;
            False: refuse.
        seed: of k-means and every draw.
    """

    replay_ratio: float = 0.5
    num_clusters: int = 100
    num_queries: int = 20_000
    uniform_fraction: float = 0.0
    retrieval: Retrieval = "knn"
    allow_repeats: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse shares and counts that cannot be drawn."""
        if not 0 <= self.replay_ratio < 1:
            raise ValueError(f"replay_ratio is {self.replay_ratio}; it must lie in [0, 1), as new clips are needed")
        if not 0 <= self.uniform_fraction <= 1:
            raise ValueError(f"uniform_fraction is {self.uniform_fraction}; it must lie in [0, 1]")
        if self.retrieval not in get_args(Retrieval):
            raise ValueError(f"retrieval is {self.retrieval!r}; allowed: {', '.join(get_args(Retrieval))}")
        for name in ("num_clusters", "num_queries"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be >= 1")


class Pool(NamedTuple):
    """What is known of the clips of one side; arrays may be memory-mapped and are read in blocks.

    Attributes:
        embeddings: (N, D) float32 by the old tokenizer.
        code_counts: (N, K) uint16, how often each clip holds each code of the old tokenizer.
        labels: of the N clips; empty where unknown.
    """

    embeddings: np.ndarray
    code_counts: np.ndarray
    labels: Sequence[tuple[str, ...]]


class Mixture(NamedTuple):
    """What a run trains on: rows of the two pools.

    Attributes:
        new_index: (Q,) int64 rows of the new clips, ascending.
        prior_index: (M,) int64 rows of the prior clips, each at most once: the retrieved, best first, then those
            drawn at random, ascending.
        new_stratum: (Q,) int64 cluster of each new clip.
        prior_stratum: (M,) int64: "knn", the cluster of the query that retrieved it; "label", the place of its label
            among the sorted labels, () being one of them; else, and where drawn at random, NO_STRATUM.
        replay_budget: number of replay clips that the ratio asks for. More than M where the prior corpus is smaller:
            the stream then repeats its clips and keeps the ratio.
        replay_ratio: share of prior clips that every batch is to have: the configured one, but P / (P + Q) for "all".
    """

    new_index: np.ndarray
    prior_index: np.ndarray
    new_stratum: np.ndarray
    prior_stratum: np.ndarray
    replay_budget: int
    replay_ratio: float

    @property
    def replay_budget_met(self) -> bool:
        """Whether the budget is met without repeating a clip."""
        return len(self.prior_index) == self.replay_budget


def draw_mixture(new: Pool, prior: Pool, config: SamplingConfig, rank: Rank = nearest_in_turns) -> Mixture:
    """Draw new clips by stratum, and prior clips as `config.retrieval` says.

    Args:
        new: the training clips of the new domain.
        prior: those of the prior corpora.
        config: shares and counts.
        rank: `nearest_in_turns`, or what remembers its results.

    Raises:
        ValueError: more clusters than new clips, embeddings that are not finite or do not fit together, or a replay
            budget without the clips for it.

    Source: the paper's TRSS; budgets, pooling and distance are inferred (docs/method.md, step 1).
    """
    _check(new, prior, config)
    rng = np.random.default_rng(config.seed)
    clusters = cosine_clusters(new.embeddings, config.num_clusters, config.seed)
    num_queries = min(config.num_queries, len(clusters))
    new_index = draw_balanced(clusters, num_queries, rng)
    queries = _Drawn(new_index, clusters[new_index])
    budget = _replay_budget(num_queries, len(prior.labels), config)
    num_replay = min(budget, len(prior.labels))
    num_uniform = num_replay if config.retrieval in ("random", "all") else round(config.uniform_fraction * num_replay)
    if config.retrieval == "knn":
        retrieved = _nearest(new, queries, prior, num_replay - num_uniform, rank)
    else:
        retrieved = _retrieve(new, queries, prior, num_replay - num_uniform, config.retrieval, rng)
    rest = np.setdiff1d(np.arange(len(prior.labels)), retrieved.rows)
    uniform = np.sort(rng.choice(rest, num_uniform, replace=False)).astype(np.int64)
    return Mixture(
        new_index=queries.rows,
        prior_index=np.concatenate([retrieved.rows, uniform]),
        new_stratum=queries.stratum,
        prior_stratum=np.concatenate([retrieved.stratum, np.full(num_uniform, NO_STRATUM)]),
        replay_budget=budget,
        replay_ratio=budget / (budget + num_queries) if config.retrieval == "all" else config.replay_ratio,
    )


def _check(new: Pool, prior: Pool, config: SamplingConfig) -> None:
    for name in ("embeddings", "code_counts"):
        left, right = getattr(new, name), getattr(prior, name)
        if left.ndim != 2 or right.ndim != 2 or left.shape[1] != right.shape[1]:
            raise ValueError(f"{name} have shapes {left.shape} and {right.shape}; they must be (N, D) and (P, D)")
    for name, pool in (("new", new), ("prior", prior)):
        if not len(pool.embeddings) == len(pool.code_counts) == len(pool.labels):
            sizes = f"{len(pool.embeddings)}, {len(pool.code_counts)} and {len(pool.labels)}"
            raise ValueError(f"{name} embeddings, code counts and labels are of {sizes} clips; embed the corpus again")
    if config.num_clusters > len(new.embeddings):
        raise ValueError(
            f"num_clusters is {config.num_clusters}, but there are {len(new.embeddings)} new clips; lower it"
        )


def _replay_budget(num_queries: int, num_prior: int, config: SamplingConfig) -> int:
    """M = rho / (1 - rho) * Q, or the whole prior corpus."""
    ratio = config.replay_ratio
    budget = num_prior if config.retrieval == "all" else round(ratio / (1 - ratio) * num_queries)
    if not num_prior and (budget or config.retrieval == "all"):
        raise ValueError(
            f"replay_ratio is {ratio} and retrieval {config.retrieval!r}, but there are no prior clips; give some, "
            "or set the ratio to 0 and the retrieval to 'knn'"
        )
    if budget > num_prior and not config.allow_repeats:
        raise ValueError(
            f"replay_ratio {ratio} for {num_queries} new clips asks for {budget} prior clips, but there are "
            f"{num_prior}; the largest ratio without repeats is {num_prior / (num_prior + num_queries):.3f}"
        )
    return budget


class _Drawn(NamedTuple):
    """Rows of a pool and the stratum of each."""

    rows: np.ndarray
    stratum: np.ndarray


_NOTHING = _Drawn(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))


def _nearest(new: Pool, queries: _Drawn, prior: Pool, count: int, rank: Rank) -> _Drawn:
    """The `count` prior clips nearest to the queries."""
    if count == 0:
        return _NOTHING
    found = rank(unit_rows(new.embeddings[queries.rows]), prior.embeddings, count)
    return _Drawn(found.rows, queries.stratum[found.query])


def _retrieve(
    new: Pool, queries: _Drawn, prior: Pool, count: int, retrieval: Retrieval, rng: np.random.Generator
) -> _Drawn:
    """`count` prior clips by their labels or codes; for the ways that draw at random alone, none."""
    if count == 0:
        return _NOTHING
    if retrieval == "label":
        strata = label_strata(prior.labels)
        rows = draw_balanced(strata, count, rng)
        return _Drawn(rows, strata[rows])
    scores = importance_scores(new.code_counts[queries.rows], prior.code_counts)
    return _Drawn(gumbel_top(scores, count, rng), np.full(count, NO_STRATUM))
