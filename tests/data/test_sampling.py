from collections import Counter
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sonar.data.sampling import NO_STRATUM, Mixture, Pool, Retrieval, SamplingConfig, draw_mixture

CONFIG = SamplingConfig(num_clusters=3, num_queries=20)


def embeddings(count: int, seed: int, width: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)


def pool(count: int, seed: int, num_codes: int = 5, num_labels: int = 3) -> Pool:
    rng = np.random.default_rng((seed, 1))
    counts = rng.integers(0, 9, (count, num_codes)).astype(np.uint16)
    labels = [(f"l{number}",) if number else () for number in rng.integers(0, num_labels, count)]
    return Pool(embeddings(count, seed), counts, labels)


def plain(values: np.ndarray) -> Pool:
    """A pool of which only the embeddings matter."""
    return Pool(values, np.ones((len(values), 2), dtype=np.uint16), [()] * len(values))


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
    retrieval=st.sampled_from(["knn", "dsir", "label", "random"]),
)
@settings(max_examples=80)
def test_budgets_are_exact_and_no_clip_is_drawn_twice(
    num_new: int, num_prior: int, ratio: float, uniform: float, retrieval: Retrieval
) -> None:
    config = replace(CONFIG, replay_ratio=ratio, uniform_fraction=uniform, retrieval=retrieval)
    drawn = draw_mixture(pool(num_new, 0), pool(num_prior, 1), config)
    check(drawn, num_new, num_prior, config)
    assert drawn.replay_ratio == ratio
    retrieved = len(drawn.prior_index) - round(uniform * len(drawn.prior_index))
    if retrieval in ("knn", "label"):
        assert (drawn.prior_stratum != NO_STRATUM).tolist() == [place < retrieved for place in range(len(drawn[1]))]
    else:
        assert (drawn.prior_stratum == NO_STRATUM).all()


@pytest.mark.parametrize("retrieval", ["knn", "dsir", "label"])
def test_a_uniform_fraction_replaces_the_last_of_the_retrieved(retrieval: Retrieval) -> None:
    new, prior = pool(20, 0), pool(60, 1)
    config = replace(CONFIG, retrieval=retrieval)
    mixed = draw_mixture(new, prior, replace(config, uniform_fraction=0.25)).prior_index
    assert np.array_equal(mixed[15:], np.sort(mixed[15:]))
    if retrieval == "knn":
        assert np.array_equal(mixed[:15], draw_mixture(new, prior, config).prior_index[:15])
    assert not np.array_equal(np.sort(mixed), np.sort(draw_mixture(new, prior, config).prior_index))


def test_all_is_the_whole_prior_corpus_once_at_its_natural_ratio() -> None:
    config = replace(CONFIG, retrieval="all", replay_ratio=0.1, allow_repeats=False)
    drawn = draw_mixture(pool(30, 0), pool(60, 1), config)
    assert drawn.prior_index.tolist() == list(range(60))
    assert len(drawn.new_index) == 20
    assert drawn.replay_ratio == 60 / 80
    assert drawn.replay_budget_met


def test_labels_share_the_budget_and_unlabelled_clips_are_one_of_them() -> None:
    labels = [("owl",)] * 30 + [("wren",)] * 3 + [()] * 20 + [("owl", "lark")] * 2
    prior = plain(embeddings(55, 1))._replace(labels=labels)
    drawn = draw_mixture(plain(embeddings(20, 0)), prior, replace(CONFIG, retrieval="label"))
    per_label = Counter(labels[row] for row in drawn.prior_index)
    assert per_label[("wren",)] == 3
    assert per_label[("owl", "lark")] == 2  # counted as larks, of which there are fewest
    assert sorted((per_label[("owl",)], per_label[()])) == [7, 8]
    names = sorted({"", "lark", "owl", "wren"})
    strata = [names.index(min(labels[row], default="")) for row in drawn.prior_index]
    assert drawn.prior_stratum.tolist() == strata


def test_dsir_draws_clips_of_the_new_domains_codes() -> None:
    rng = np.random.default_rng(0)
    alike, other = (rng.multinomial(40, p, 50).astype(np.uint16) for p in ([0.6, 0.3, 0.1, 0], [0, 0.1, 0.3, 0.6]))
    new = plain(embeddings(50, 0))._replace(code_counts=alike)
    prior = plain(embeddings(500, 1))._replace(code_counts=np.concatenate([alike, np.tile(other, (9, 1))]))
    config = replace(CONFIG, num_queries=50, replay_ratio=0.5)
    share = {
        retrieval: (draw_mixture(new, prior, replace(config, retrieval=retrieval)).prior_index < 50).mean()
        for retrieval in ("dsir", "random")
    }
    assert share["dsir"] > 4 * share["random"]


def test_strata_are_the_clusters() -> None:
    rng = np.random.default_rng(0)
    centres = np.eye(3, 8)
    new = np.concatenate([centres[c] + 0.05 * rng.standard_normal((size, 8)) for c, size in enumerate((40, 10, 3))])
    prior = np.concatenate([centres[c] + 0.05 * rng.standard_normal((30, 8)) for c in range(3)])
    drawn = draw_mixture(plain(new), plain(prior), replace(CONFIG, num_queries=18))
    truth = np.repeat([0, 1, 2], [40, 10, 3])[drawn.new_index]
    assert np.bincount(truth).tolist() == [8, 7, 3] or np.bincount(truth).tolist() == [7, 8, 3]
    assert len(set(zip(truth.tolist(), drawn.new_stratum.tolist(), strict=True))) == 3
    stratum_of = dict(zip(truth.tolist(), drawn.new_stratum.tolist(), strict=True))
    assert drawn.prior_stratum.tolist() == [stratum_of[row // 30] for row in drawn.prior_index]


@pytest.mark.parametrize("retrieval", get_args(Retrieval))
def test_the_seed_decides(retrieval: Retrieval) -> None:
    new, prior = pool(200, 0), pool(300, 1)
    config = SamplingConfig(num_clusters=8, num_queries=50, uniform_fraction=0.5, retrieval=retrieval)
    first, again = draw_mixture(new, prior, config), draw_mixture(new, prior, config)
    for one, other in zip(first, again, strict=True):
        assert np.array_equal(one, other)
    other_seed = draw_mixture(new, prior, replace(config, seed=1))
    assert not np.array_equal(first.new_index, other_seed.new_index)
    assert np.array_equal(first.prior_index, other_seed.prior_index) == (retrieval == "all")


def test_scale_does_not_matter() -> None:
    new, prior = embeddings(30, 0), embeddings(50, 1)
    drawn = draw_mixture(plain(new), plain(prior), CONFIG)
    scaled = draw_mixture(plain(new * 4), plain(prior * np.float32(0.5)), CONFIG)
    assert np.array_equal(drawn.prior_index, scaled.prior_index)


@pytest.mark.parametrize("retrieval", ["knn", "dsir", "label", "random"])
def test_too_few_prior_clips_are_all_taken_or_refused(retrieval: Retrieval) -> None:
    new, prior, config = pool(20, 0), pool(5, 1), replace(CONFIG, retrieval=retrieval)
    drawn = draw_mixture(new, prior, config)
    assert sorted(drawn.prior_index) == list(range(5))
    assert not drawn.replay_budget_met
    with pytest.raises(ValueError, match=r"asks for 20 prior clips, but there are 5; .* without repeats is 0\.200"):
        draw_mixture(new, prior, replace(config, allow_repeats=False))
    assert draw_mixture(new, prior, replace(config, allow_repeats=False, replay_ratio=0.2)).replay_budget_met


def test_more_clusters_than_clips_name_both() -> None:
    with pytest.raises(ValueError, match="num_clusters is 100, but there are 20 new clips"):
        draw_mixture(pool(20, 0), pool(5, 1), SamplingConfig())


def test_pools_that_cannot_be_used_are_refused() -> None:
    new, prior = pool(20, 0), pool(30, 1)
    for side in range(2):
        broken = [new, prior]
        broken[side] = broken[side]._replace(embeddings=broken[side].embeddings * np.float32(np.nan))
        with pytest.raises(ValueError, match="embeddings hold NaN or inf"):
            draw_mixture(broken[0], broken[1], CONFIG)
    with pytest.raises(ValueError, match=r"embeddings have shapes \(20, 6\) and \(30, 3\)"):
        draw_mixture(new, prior._replace(embeddings=prior.embeddings[:, :3]), CONFIG)
    with pytest.raises(ValueError, match=r"code_counts have shapes \(20, 5\) and \(30, 4\)"):
        draw_mixture(new, prior._replace(code_counts=prior.code_counts[:, :4]), CONFIG)
    with pytest.raises(ValueError, match="prior embeddings, code counts and labels are of 30, 30 and 29 clips"):
        draw_mixture(new, prior._replace(labels=prior.labels[:-1]), CONFIG)


def test_no_prior_clips_are_refused_unless_none_are_asked_for() -> None:
    new, nothing = pool(20, 0), pool(0, 1)
    for config in (CONFIG, replace(CONFIG, retrieval="all", replay_ratio=0.0)):
        with pytest.raises(ValueError, match="no prior clips; give some, or set the ratio to 0"):
            draw_mixture(new, nothing, config)
    assert len(draw_mixture(new, nothing, replace(CONFIG, replay_ratio=0.0)).prior_index) == 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"replay_ratio": 1.0}, r"replay_ratio is 1.0; it must lie in \[0, 1\)"),
        ({"uniform_fraction": -0.1}, "uniform_fraction is -0.1"),
        ({"num_clusters": 0}, "num_clusters is 0; it must be >= 1"),
        ({"num_queries": 0}, "num_queries is 0; it must be >= 1"),
        ({"retrieval": "nearest"}, "retrieval is 'nearest'; allowed: knn, dsir, random, label, all"),
    ],
)
def test_a_config_that_cannot_be_drawn_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SamplingConfig(**values)  # type: ignore[arg-type]
