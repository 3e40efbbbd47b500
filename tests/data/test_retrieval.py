"""Blocked search against the definitions, and what it holds in memory."""

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sonar.data import retrieval
from sonar.data.retrieval import nearest, nearest_in_turns, unit_rows


@pytest.fixture(scope="module", autouse=True)
def small_blocks() -> Iterator[None]:
    """So that a few clips make many blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrieval, "BLOCK_ROWS", 7)
        patch.setattr(retrieval, "QUERY_ROWS", 5)
        patch.setattr(retrieval, "PAIR_ROWS", 11)
        yield


KINDS = ("free", "copies", "close")


def vectors(count: int, seed: int, kind: str = "free") -> np.ndarray:
    """Many "copies" are equal, so that similarities tie; "close" ones differ by less than float32 can tell."""
    rng = np.random.default_rng(seed)
    if kind == "copies":
        return rng.integers(-1, 2, (count, 3)).astype(np.float32)
    if kind == "close":
        return (1 + 1e-6 * rng.standard_normal((count, 64))).astype(np.float32)
    return rng.standard_normal((count, 6)).astype(np.float32)


def similarities(queries: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Of whole arrays; integers, so that equal pairs are equal to the last bit."""
    left, right = ((unit_rows(values).astype(np.float64) * 2**24).astype(np.int64) for values in (queries, prior))
    return left @ right.T


def ranked(queries: np.ndarray, prior: np.ndarray) -> np.ndarray:
    return np.argsort(-similarities(queries, prior), axis=1, kind="stable")


def in_turns(queries: np.ndarray, prior: np.ndarray, count: int) -> list[int]:
    """The definition, O(Q P log P): nearest of each query, then second nearest, the most similar first in a turn."""
    similarity, order = similarities(queries, prior), ranked(queries, prior)
    found: dict[int, None] = {}
    for turn in range(len(prior)):
        pairs = sorted((-similarity[q, row], row) for q, row in enumerate(order[:, turn]))
        found |= dict.fromkeys(int(row) for _, row in pairs)
    return list(found)[:count]


@given(seed=st.integers(0, 99), count=st.integers(1, 40), k=st.integers(1, 40), kind=st.sampled_from(KINDS))
def test_neighbours_are_those_of_brute_force_ties_by_row(seed: int, count: int, k: int, kind: str) -> None:
    queries, prior = vectors(12, seed, kind), vectors(count, seed + 1000, kind)
    k = min(k, count)
    found = nearest(unit_rows(queries), prior, k)
    order = ranked(queries, prior)[:, :k]
    assert np.array_equal(found.rows, order)
    exact = np.take_along_axis(similarities(queries, prior), order, axis=1)
    assert np.array_equal(found.similarity * 2.0**48, exact)


def test_similarity_is_the_cosine() -> None:
    queries, prior = vectors(12, 0), vectors(40, 1)
    found = nearest(unit_rows(queries), prior, 40)
    lengths = np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(prior, axis=1)
    cosine = np.take_along_axis(queries @ prior.T / lengths, found.rows, axis=1)
    assert found.similarity == pytest.approx(cosine, abs=1e-6)


@given(seed=st.integers(0, 99), count=st.integers(0, 60), kind=st.sampled_from(KINDS))
def test_retrieval_in_turns_equals_the_definition(seed: int, count: int, kind: str) -> None:
    queries, prior = vectors(12, seed, kind), vectors(60, seed + 1000, kind)
    found = nearest_in_turns(unit_rows(queries), prior, count)
    assert found.rows.tolist() == in_turns(queries, prior, count)
    turn = np.argsort(ranked(queries, prior), axis=1)  # (Q, P) in which turn a query comes to a row
    assert (turn[found.query, found.rows] == turn[:, found.rows].min(axis=0)).all()


def test_the_budget_is_met_where_candidates_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, prior = vectors(20, 0), vectors(100, 1)
    monkeypatch.setattr(retrieval, "MAX_CANDIDATES", 40)  # two neighbours per query
    found = nearest_in_turns(unit_rows(queries), prior, 80)
    first_two = set(ranked(queries, prior)[:, :2].ravel().tolist())
    assert found.rows[: len(first_two)].tolist() == in_turns(queries, prior, len(first_two))
    closeness = similarities(queries, prior)
    rest = sorted(set(range(100)) - first_two, key=lambda row: -closeness[:, row].max())
    assert found.rows[len(first_two) :].tolist() == rest[: 80 - len(first_two)]
    assert (found.query[len(first_two) :] == closeness[:, found.rows[len(first_two) :]].argmax(axis=0)).all()


def test_blocks_and_batches_of_queries_decide_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, prior = unit_rows(vectors(50, 0)), vectors(300, 1)
    small = nearest(queries, prior, 9)
    monkeypatch.setattr(retrieval, "BLOCK_ROWS", 1000)
    monkeypatch.setattr(retrieval, "QUERY_ROWS", 1000)
    whole = nearest(queries, prior, 9)
    assert np.array_equal(small.rows, whole.rows) and np.array_equal(small.similarity, whole.similarity)


def test_a_vector_of_zeros_is_like_nothing_and_one_that_is_not_finite_is_refused() -> None:
    prior = vectors(20, 1)
    prior[3] = 0
    found = nearest(unit_rows(prior), prior, 20)
    assert (found.similarity[3] == 0).all()
    prior[19, 2] = np.inf
    with pytest.raises(ValueError, match="embeddings hold NaN or inf; the old tokenizer has diverged"):
        nearest(unit_rows(prior[:3]), prior, 1)


def test_memory_does_not_grow_with_the_prior_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "BLOCK_ROWS", 256)
    monkeypatch.setattr(retrieval, "QUERY_ROWS", 64)
    peaks = []
    for count in (1_000, 16_000):  # 0.3 MB and 4 MB
        path = tmp_path / f"{count}.npy"
        np.save(path, np.random.default_rng(0).standard_normal((count, 64)).astype(np.float32))
        prior = np.load(path, mmap_mode="r")
        queries = unit_rows(prior[:128])
        nearest_in_turns(queries, prior, 128)  # once before: imports and caches are not what is measured
        tracemalloc.start()
        nearest_in_turns(queries, prior, 128)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0] < 2**21
