"""A kept ranking gives what the search gives, and saves it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny import MemoryStore, make_store

from sonar.data.retrieval import Retrieved, nearest_in_turns, unit_rows
from sonar.data.sampling import Pool, SamplingConfig, draw_mixture
from sonar.search import ranking
from sonar.search.embeddings import read_embeddings

CONFIG = SamplingConfig(num_clusters=3, num_queries=8)


@pytest.fixture
def embedded(tmp_path: Path) -> tuple[Path, tuple[MemoryStore, MemoryStore]]:
    stores = make_store("new", 12), make_store("prior", 40)
    for side, store in zip(("new", "prior"), stores, strict=True):
        folder, rng = tmp_path / "embeddings" / side, np.random.default_rng(len(store))
        folder.mkdir(parents=True)
        np.save(folder / "rows.npy", np.arange(len(store)))
        np.save(folder / "embeddings.npy", rng.standard_normal((len(store), 6)).astype(np.float32))
        np.save(folder / "code_counts.npy", rng.integers(0, 9, (len(store), 4)).astype(np.uint16))
    return tmp_path / "embeddings", stores


def pools(folder: Path, stores: tuple[MemoryStore, MemoryStore]) -> tuple[Pool, Pool]:
    new, prior = read_embeddings(folder, stores)
    return new.pool, prior.pool


def refuse(queries: np.ndarray, prior: np.ndarray, count: int) -> Retrieved:
    raise AssertionError("searched again")


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.75])
def test_every_ratio_reads_what_it_would_have_found(
    embedded: tuple[Path, tuple[MemoryStore, MemoryStore]], ratio: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, stores = embedded
    new, prior = pools(folder, stores)
    expected = draw_mixture(new, prior, replace(CONFIG, replay_ratio=ratio))
    ranking.keep_ranking(folder, stores, CONFIG)
    monkeypatch.setattr(ranking, "nearest_in_turns", refuse)
    ranking.keep_ranking(folder, stores, CONFIG)
    drawn = draw_mixture(new, prior, replace(CONFIG, replay_ratio=ratio), ranking.kept_ranking(folder))
    for one, other in zip(drawn, expected, strict=True):
        assert np.array_equal(one, other)


def test_other_queries_and_higher_ratios_search_for_themselves(
    embedded: tuple[Path, tuple[MemoryStore, MemoryStore]],
) -> None:
    folder, stores = embedded
    new, prior = pools(folder, stores)
    ranking.keep_ranking(folder, stores, CONFIG)
    kept = set(folder.parent.iterdir())
    for other in (replace(CONFIG, seed=1), replace(CONFIG, num_queries=5), replace(CONFIG, replay_ratio=0.8)):
        drawn = draw_mixture(new, prior, other, ranking.kept_ranking(folder))
        assert np.array_equal(drawn.prior_index, draw_mixture(new, prior, other).prior_index)
    assert set(folder.parent.iterdir()) == kept


def test_without_knn_or_replay_nothing_is_searched(embedded: tuple[Path, tuple[MemoryStore, MemoryStore]]) -> None:
    folder, stores = embedded
    for config in (replace(CONFIG, retrieval="dsir"), replace(CONFIG, replay_ratio=0.0)):
        ranking.keep_ranking(folder, stores, config)
    assert list(folder.parent.iterdir()) == [folder]


def test_a_longer_ranking_begins_with_a_shorter_one() -> None:
    rng = np.random.default_rng(0)
    queries, prior = (rng.integers(-1, 2, (count, 3)).astype(np.float32) for count in (7, 50))
    longest = nearest_in_turns(unit_rows(queries), prior, 50)
    for count in range(50):
        shorter = nearest_in_turns(unit_rows(queries), prior, count)
        assert np.array_equal(shorter.rows, longest.rows[:count])
        assert np.array_equal(shorter.query, longest.query[:count])
