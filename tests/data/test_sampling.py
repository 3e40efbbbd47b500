from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sonar.data import sampling
from sonar.data.sampling import DRAWN_AT_RANDOM, Mixture, SamplingConfig, draw_mixture, fill_budget

CONFIG = SamplingConfig(num_clusters=3, num_queries=20)


def embeddings(count: int, seed: int, width: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a / np.linalg.norm(a, axis=1, keepdims=True)) @ (b / np.linalg.norm(b, axis=1, keepdims=True)).T


@given(sizes=st.lists(st.integers(0, 30), min_size=1, max_size=12), share=st.floats(0, 1))
def test_the_budget_is_poured_evenly(sizes: list[int], share: float) -> None:
    budget = round(share * sum(sizes))
    taken = fill_budget(np.asarray(sizes), budget)
    assert taken.sum() == budget
    assert (taken <= sizes).all()
    level = taken.max()
    assert all(count == size or count >= level - 1 for count, size in zip(taken, sizes, strict=True))


def in_turns(queries: np.ndarray, prior: np.ndarray, count: int) -> list[int]:
    """The definition, O(Q P log P): nearest of each query, then second nearest, the most similar first in a turn."""
    similarity = cosine(queries, prior)
    ranked = np.argsort(-similarity, axis=1, kind="stable")
    found: list[int] = []
    for turn in range(len(prior)):
        pairs = sorted((-similarity[q, row], row) for q, row in enumerate(ranked[:, turn]))
        found = list(dict.fromkeys([*found, *(int(row) for _, row in pairs)]))
    return found[:count]


@given(seed=st.integers(0, 50), ratio=st.sampled_from([0.1, 0.3, 0.5, 0.7]))
@settings(max_examples=25, deadline=None)
def test_retrieval_equals_the_definition(seed: int, ratio: float) -> None:
    new, prior = embeddings(12, seed), embeddings(60, seed + 1000)
    drawn = draw_mixture(new, prior, replace(CONFIG, replay_ratio=ratio, seed=seed))
    budget = round(ratio / (1 - ratio) * 12)
    assert drawn.prior_index.tolist() == in_turns(new[drawn.new_index], prior, budget)


def check(drawn: Mixture, num_new: int, num_prior: int, config: SamplingConfig) -> None:
    queries = min(config.num_queries, num_new)
    budget = round(config.replay_ratio / (1 - config.replay_ratio) * queries)
    assert drawn.replay_budget == budget
    assert len(drawn.new_index) == len(np.unique(drawn.new_index)) == queries
    assert len(drawn.prior_index) == len(np.unique(drawn.prior_index)) == min(budget, num_prior)
    assert drawn.replay_budget_met == (budget <= num_prior)
    assert drawn.new_stratum.shape == drawn.new_index.shape
    assert drawn.prior_stratum.shape == drawn.prior_index.shape
    for rows, size in ((drawn.new_index, num_new), (drawn.prior_index, num_prior)):
        assert rows.dtype == np.int64
        assert ((rows >= 0) & (rows < size)).all()


@given(
    num_new=st.integers(3, 40),
    num_prior=st.integers(1, 60),
    ratio=st.floats(0, 0.9),
    uniform=st.floats(0, 1),
    retrieval=st.sampled_from(["knn", "random"]),
)
@settings(max_examples=50, deadline=None)
def test_budgets_are_exact_and_no_clip_is_drawn_twice(
    num_new: int, num_prior: int, ratio: float, uniform: float, retrieval: str
) -> None:
    config = replace(CONFIG, replay_ratio=ratio, uniform_fraction=uniform, retrieval=retrieval)
    drawn = draw_mixture(embeddings(num_new, 0), embeddings(num_prior, 1), config)
    check(drawn, num_new, num_prior, config)
    at_random = len(drawn.prior_index) if retrieval == "random" else round(uniform * len(drawn.prior_index))
    assert (drawn.prior_stratum == DRAWN_AT_RANDOM).sum() == at_random


def test_the_exact_budget_is_met_where_candidates_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    new, prior = embeddings(20, 0), embeddings(100, 1)
    config = replace(CONFIG, replay_ratio=0.8)
    monkeypatch.setattr(sampling, "MAX_CANDIDATES", 40)  # two neighbours per query
    drawn = draw_mixture(new, prior, config)
    check(drawn, 20, 100, config)
    similarity = cosine(new[drawn.new_index], prior)
    turns = in_turns(new[drawn.new_index], prior, 100)
    first_two = set(np.argsort(-similarity, axis=1)[:, :2].ravel().tolist())
    assert drawn.prior_index[: len(first_two)].tolist() == turns[: len(first_two)]
    rest = sorted(set(range(100)) - first_two, key=lambda row: -similarity[:, row].max())
    assert drawn.prior_index[len(first_two) :].tolist() == rest[: 80 - len(first_two)]


def test_strata_are_the_clusters() -> None:
    rng = np.random.default_rng(0)
    centres = np.eye(3, 8)
    new = np.concatenate([centres[c] + 0.05 * rng.standard_normal((size, 8)) for c, size in enumerate((40, 10, 3))])
    prior = np.concatenate([centres[c] + 0.05 * rng.standard_normal((30, 8)) for c in range(3)])
    drawn = draw_mixture(new, prior, replace(CONFIG, num_queries=18, replay_ratio=0.5))
    truth = np.repeat([0, 1, 2], [40, 10, 3])[drawn.new_index]
    assert np.bincount(truth).tolist() == [8, 7, 3] or np.bincount(truth).tolist() == [7, 8, 3]
    assert len(set(zip(truth.tolist(), drawn.new_stratum.tolist(), strict=True))) == 3
    stratum_of = dict(zip(truth.tolist(), drawn.new_stratum.tolist(), strict=True))
    assert drawn.prior_stratum.tolist() == [stratum_of[row // 30] for row in drawn.prior_index]


def test_the_seed_decides() -> None:
    new, prior = embeddings(200, 0), embeddings(300, 1)
    config = SamplingConfig(num_clusters=8, num_queries=50, uniform_fraction=0.5)
    first, again = draw_mixture(new, prior, config), draw_mixture(new.copy(), prior.copy(), config)
    for one, other in zip(first, again, strict=True):
        assert np.array_equal(one, other)
    assert not np.array_equal(first.new_index, draw_mixture(new, prior, replace(config, seed=1)).new_index)


def test_scale_does_not_matter() -> None:
    new, prior = embeddings(30, 0), embeddings(50, 1)
    drawn = draw_mixture(new, prior, CONFIG)
    scaled = draw_mixture(new * 4, prior * np.float32(0.5), CONFIG)
    assert np.array_equal(drawn.prior_index, scaled.prior_index)


def test_too_few_prior_clips_are_all_taken_or_refused() -> None:
    new, prior = embeddings(20, 0), embeddings(5, 1)
    drawn = draw_mixture(new, prior, CONFIG)
    assert sorted(drawn.prior_index) == list(range(5))
    assert not drawn.replay_budget_met
    with pytest.raises(ValueError, match=r"asks for 20 prior clips, but there are 5; .* without repeats is 0\.200"):
        draw_mixture(new, prior, replace(CONFIG, allow_repeats=False))
    assert draw_mixture(new, prior, replace(CONFIG, allow_repeats=False, replay_ratio=0.2)).replay_budget_met


def test_more_clusters_than_clips_name_both() -> None:
    with pytest.raises(ValueError, match="num_clusters is 100, but there are 20 new clips"):
        draw_mixture(embeddings(20, 0), embeddings(5, 1), SamplingConfig())


def test_embeddings_that_cannot_be_used_are_refused() -> None:
    new, prior = embeddings(20, 0), embeddings(5, 1)
    with pytest.raises(ValueError, match="prior embeddings hold NaN"):
        draw_mixture(new, prior * np.float32(np.nan), CONFIG)
    with pytest.raises(ValueError, match=r"shapes \(20, 6\) and \(5, 3\)"):
        draw_mixture(new, prior[:, :3], CONFIG)
    with pytest.raises(ValueError, match="no prior clips; give some, or set it to 0"):
        draw_mixture(new, prior[:0], CONFIG)
    assert len(draw_mixture(new, prior[:0], replace(CONFIG, replay_ratio=0.0)).prior_index) == 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"replay_ratio": 1.0}, r"replay_ratio is 1.0; it must lie in \[0, 1\)"),
        ({"uniform_fraction": -0.1}, "uniform_fraction is -0.1"),
        ({"num_clusters": 0}, "num_clusters is 0; it must be >= 1"),
        ({"num_queries": 0}, "num_queries is 0; it must be >= 1"),
        ({"retrieval": "nearest"}, "retrieval is 'nearest'; allowed: knn, random"),
    ],
)
def test_a_config_that_cannot_be_drawn_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SamplingConfig(**values)  # type: ignore[arg-type]
