"""The search of nearest prior clips, done once for all trials that ask with the same queries.

Trials of a sweep differ in how much they replay, not in what they ask: at 2 M clips and 20k queries each of them would
search for minutes. The ranking lies beside the embeddings, under the hash of the queries; a trial with other queries,
or that asks for more, searches by itself and keeps nothing, so only one process writes.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from sonar.data.retrieval import Retrieved, nearest_in_turns
from sonar.data.sampling import Rank, SamplingConfig, draw_mixture
from sonar.data.stream import ClipStore
from sonar.files import write_whole_file
from sonar.search.embeddings import read_embeddings

LARGEST_RATIO = 0.75  # replay ratio that a kept ranking is enough for


def keep_ranking(embeddings: Path, stores: tuple[ClipStore, ClipStore], config: SamplingConfig) -> None:
    """Search for the prior clips of `config`, and of any lower or higher replay ratio, if nothing is kept yet.

    Args:
        embeddings: their folder.
        stores: of the new and the prior clips.
        config: of the sweep; without "knn" or replay there is nothing to search.

    Raises:
        ValueError: the mixture cannot be drawn.
    """
    if config.retrieval != "knn" or config.replay_ratio == 0:
        return

    def search(queries: np.ndarray, prior: np.ndarray, count: int) -> Retrieved:
        path = _path(embeddings, queries)
        if not path.exists():
            found = nearest_in_turns(queries, prior, count)
            write_whole_file(path, lambda file: np.savez(file, **found._asdict()))
        return _read(path, count)

    new, prior = read_embeddings(embeddings, stores)
    largest = replace(config, replay_ratio=LARGEST_RATIO, uniform_fraction=0.0, allow_repeats=True)
    draw_mixture(new.pool, prior.pool, largest, search)


def kept_ranking(embeddings: Path) -> Rank:
    """`nearest_in_turns`, read from what `keep_ranking` left where that is enough."""

    def rank(queries: np.ndarray, prior: np.ndarray, count: int) -> Retrieved:
        path = _path(embeddings, queries)
        found = _read(path, count) if path.exists() else None
        return found if found is not None and len(found.rows) == count else nearest_in_turns(queries, prior, count)

    return rank


def _path(embeddings: Path, queries: np.ndarray) -> Path:
    digest = hashlib.sha256(np.ascontiguousarray(queries).data).hexdigest()[:12]
    return embeddings.with_name(f"{embeddings.name}-ranking-{digest}.npz")


def _read(path: Path, count: int) -> Retrieved:
    with np.load(path, allow_pickle=False) as kept:
        return Retrieved(kept["rows"][:count], kept["query"][:count])
