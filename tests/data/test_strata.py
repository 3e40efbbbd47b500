"""Strata and even draws, against their definitions."""

from collections import Counter

import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sonar.data import retrieval, strata
from sonar.data.strata import cosine_clusters, draw_balanced, fill_budget, label_strata


@given(sizes=st.lists(st.integers(0, 30), min_size=1, max_size=12), share=st.floats(0, 1))
def test_the_budget_is_poured_evenly(sizes: list[int], share: float) -> None:
    budget = round(share * sum(sizes))
    taken = fill_budget(np.asarray(sizes), budget)
    assert taken.sum() == budget
    assert (taken <= sizes).all()
    level = taken.max()
    assert all(count == size or count >= level - 1 for count, size in zip(taken, sizes, strict=True))


@given(names=st.lists(st.integers(0, 5), min_size=1, max_size=60), share=st.floats(0, 1), seed=st.integers(0, 9))
def test_a_balanced_draw_takes_what_the_budget_gives_each_stratum(names: list[int], share: float, seed: int) -> None:
    members, count = np.asarray(names), round(share * len(names))
    rows = draw_balanced(members, count, np.random.default_rng(seed))
    assert (np.diff(rows) > 0).all()
    assert np.array_equal(
        np.bincount(members[rows], minlength=6), fill_budget(np.bincount(members, minlength=6), count)
    )


def test_within_a_stratum_every_clip_is_as_likely() -> None:
    members = np.array([0, 1, 0, 0, 1])
    drawn = Counter(row for seed in range(3000) for row in draw_balanced(members, 2, np.random.default_rng(seed)))
    assert [drawn[row] / 3000 for row in range(5)] == pytest.approx([1 / 3, 1 / 2, 1 / 3, 1 / 3, 1 / 2], abs=0.04)


def test_a_clip_of_several_labels_counts_for_the_rarest_and_ties_go_by_name() -> None:
    labels = [("owl",), ("owl", "lark"), (), ("wren", "owl"), ("wren", "lark"), ("owl",)]
    names = ["", "lark", "owl", "wren"]
    assert [names[place] for place in label_strata(labels)] == ["owl", "lark", "", "wren", "lark", "owl"]


def test_clusters_are_of_directions_whatever_the_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "BLOCK_ROWS", 7)
    rng = np.random.default_rng(0)
    centres = np.linalg.qr(rng.standard_normal((8, 8)))[0][rng.integers(0, 3, 60)]
    points = (centres + 0.05 * rng.standard_normal((60, 8))).astype(np.float32)
    clusters = cosine_clusters(points, 3, seed=0)
    lengths = 2.0 ** rng.integers(-4, 5, (60, 1)).astype(np.float32)
    assert np.array_equal(cosine_clusters(points * lengths, 3, seed=0), clusters)
    assert np.array_equal(np.unique(clusters), [0, 1, 2])


def test_k_means_sees_a_bounded_number_of_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    train = faiss.Kmeans.train
    monkeypatch.setattr(faiss.Kmeans, "train", lambda self, x, **_: (seen.append(len(x)), train(self, x))[1])
    monkeypatch.setattr(strata, "KMEANS_CLIPS_PER_CLUSTER", 10)
    points = np.random.default_rng(0).standard_normal((200, 6)).astype(np.float32)
    assert len(cosine_clusters(points, 3, seed=0)) == 200
    assert seen == [30]
