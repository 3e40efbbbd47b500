"""Exact nearest neighbours of unit vectors, in blocks, and what TRSS retrieves with them; pure.

Embeddings may lie in a memory-mapped file: at 2 M x 768 they are 6 GB, of which one block at a time is read, brought to
unit length and searched. Beside it only the queries are held (Q x D float32) and k candidates for each of them.

faiss searches a block. Its float32 similarities depend on blocks, threads and the machine, so they only say what may be
among the k nearest, with the rigorous bound of their error as a margin; that is computed exactly, so that nothing but
the vectors decides between two clips: unit vectors are rounded to multiples of 2^-24, whose products add up in float64
without rounding, in any order.

Shapes: N new clips, P prior clips, D width, Q queries, M replay clips, k neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import faiss
import numpy as np

BLOCK_ROWS = 4096  # vectors read at a time: 12 MB at 768
QUERY_ROWS = 2048  # queries whose candidates in a block are held at a time
PAIR_ROWS = 2048  # pairs computed exactly at a time: 50 MB at 768
MAX_CANDIDATES = 2**25  # (query, neighbour) pairs held: 0.5 GB
_GRID = np.float32(2**24)  # unit vectors are multiples of 1 / _GRID
_NO_ROW = np.iinfo(np.int64).max  # of a neighbour not found yet: after every row


class Neighbours(NamedTuple):
    """The k most similar rows of each query: most similar first, of equal ones the lower row.

    Attributes:
        similarity: (Q, k) float64 cosine.
        rows: (Q, k) int64.
    """

    similarity: np.ndarray
    rows: np.ndarray


class Retrieved(NamedTuple):
    """Prior rows, none twice, and the query that found each: two times (M,) int64."""

    rows: np.ndarray
    query: np.ndarray


def unit_rows(values: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1 and rounded to multiples of 2^-24; a row of zeros stays.

    Args:
        values: (N, D) of any float type; one block of a memory-mapped array.

    Returns:
        (N, D) float32.

    Raises:
        ValueError: a value is not finite.
    """
    exact = values.astype(np.float64)
    norm = np.sqrt(np.einsum("nd,nd->n", exact, exact))[:, None]
    if not np.isfinite(norm).all():
        raise ValueError("embeddings hold NaN or inf; the old tokenizer has diverged")
    exact /= np.maximum(norm, np.finfo(np.float64).tiny)
    exact *= _GRID
    return (np.rint(exact, out=exact) / _GRID).astype(np.float32)


def blocks(num_rows: int) -> Iterator[slice]:
    """Consecutive slices of at most `BLOCK_ROWS` rows."""
    return (slice(begin, min(begin + BLOCK_ROWS, num_rows)) for begin in range(0, num_rows, BLOCK_ROWS))


def nearest(queries: np.ndarray, vectors: np.ndarray, k: int) -> Neighbours:
    """The k nearest rows of `vectors` by cosine.

    Args:
        queries: (Q, D) unit rows, held in memory (see `unit_rows`).
        vectors: (P, D) of any length, read block by block.
        k: in [1, P].

    Raises:
        ValueError: a vector is not finite.
    """
    found = Neighbours(np.full((len(queries), k), -np.inf), np.full((len(queries), k), _NO_ROW))
    for block in blocks(len(vectors)):
        unit = unit_rows(vectors[block])
        for begin in range(0, len(queries), QUERY_ROWS):
            part = slice(begin, begin + QUERY_ROWS)
            _merge(Neighbours(found.similarity[part], found.rows[part]), queries[part], unit, block.start)
    return found


def nearest_in_turns(queries: np.ndarray, prior: np.ndarray, count: int) -> Retrieved:
    """The `count` prior rows nearest to the queries.

    Taken in turns: first the nearest of every query, then the second nearest, and so on, in each turn the most similar
    first, of equal ones the lower row; so more rows begin with what fewer are. Where the turns would take more than
    MAX_CANDIDATES pairs, the rest is filled with the prior rows most similar to any query.

    Args:
        queries: (Q, D) unit rows.
        prior: (P, D), read block by block; more than once where many queries share their neighbours.
        count: M, at most P.
    """
    if count == 0:
        return Retrieved(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))
    most = min(len(prior), max(1, MAX_CANDIDATES // len(queries)))
    k = min(most, 4 * -(-count // len(queries)))
    retrieved = _in_turns(nearest(queries, prior, k), count)
    while len(retrieved.rows) < count and k < most:
        k = min(most, 4 * k)
        retrieved = _in_turns(nearest(queries, prior, k), count)
    if len(retrieved.rows) < count:
        more = _closest_of_rest(queries, prior, retrieved.rows, count - len(retrieved.rows))
        retrieved = Retrieved(*(np.concatenate(pair) for pair in zip(retrieved, more, strict=True)))
    return retrieved


def _merge(found: Neighbours, queries: np.ndarray, unit: np.ndarray, first_row: int) -> None:
    """Let the rows of a block into the neighbours found so far, in place."""
    k = found.rows.shape[1]
    query, row = _candidates(queries, unit, k, found.similarity[:, -1])
    if not len(query):
        return
    similarity = np.concatenate([_exact(queries, unit, query, row), found.similarity.ravel()])
    rows = np.concatenate([row + first_row, found.rows.ravel()])
    query = np.concatenate([query, np.repeat(np.arange(len(queries)), k)])
    order = np.lexsort((rows, -similarity, query))
    begin = np.searchsorted(query[order], np.arange(len(queries)))
    kept = order[begin[:, None] + np.arange(k)]  # (Q, k): every query still has its old k
    found.similarity[:], found.rows[:] = similarity[kept], rows[kept]


def _candidates(queries: np.ndarray, unit: np.ndarray, k: int, least: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Queries and rows of a block, pair by pair, that may be among the k nearest.

    Args:
        queries: (Q, D) unit rows.
        unit: (rows, D) the block's.
        k: neighbours wanted.
        least: (Q,) exact similarity that a row must reach to be among those found so far.
    """
    margin = 2 * (queries.shape[1] + 2) * 2.0**-24  # twice the bound on the error of a float32 product
    wanted, complete = min(k + 8, len(unit)), False
    while not complete:  # seldom twice: only where more than `wanted` rows are as near as the k-th
        similarity, rows = faiss.knn(queries, unit, wanted, metric=faiss.METRIC_INNER_PRODUCT)  # (Q, wanted)
        reached = np.maximum(least, similarity[:, k - 1] if k <= len(unit) else -np.inf) - margin
        complete = wanted == len(unit) or bool((similarity[:, -1] < reached).all())
        wanted = min(4 * wanted, len(unit))
    query, place = np.nonzero(similarity >= reached[:, None])
    return query, rows[query, place]


def _exact(queries: np.ndarray, unit: np.ndarray, query: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Dot products of pairs of rows, free of rounding."""
    similarity = np.empty(len(query))
    for begin in range(0, len(query), PAIR_ROWS):
        part = slice(begin, begin + PAIR_ROWS)
        left, right = queries[query[part]].astype(np.float64), unit[row[part]].astype(np.float64)
        similarity[part] = np.einsum("pd,pd->p", left, right)
    return similarity


def _in_turns(neighbours: Neighbours, count: int) -> Retrieved:
    num_queries, k = neighbours.rows.shape
    turn = np.tile(np.arange(k), num_queries)
    rows = neighbours.rows.ravel()
    order = np.lexsort((rows, -neighbours.similarity.ravel(), turn))
    _, first = np.unique(rows[order], return_index=True)
    chosen = order[np.sort(first)[:count]]  # places in the (Q, k) pairs
    return Retrieved(rows[chosen], chosen // k)


def _closest_of_rest(queries: np.ndarray, prior: np.ndarray, taken: np.ndarray, count: int) -> Retrieved:
    """The prior rows not taken yet that are most similar to any query."""
    closeness, query = np.empty(len(prior)), np.empty(len(prior), dtype=np.int64)
    for block in blocks(len(prior)):
        found = nearest(unit_rows(prior[block]), queries, 1)
        closeness[block], query[block] = found.similarity[:, 0], found.rows[:, 0]
    closeness[taken] = -np.inf
    rows = np.argsort(-closeness, kind="stable")[:count]
    return Retrieved(rows, query[rows])
