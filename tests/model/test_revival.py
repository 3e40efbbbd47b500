"""The rules of the codebook against their equations."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from sonar.model.revival import (
    code_statistics,
    cosine_kmeans,
    find_anchors,
    moved_vectors,
    perplexity,
    revive_rate,
    strongest_only,
    tokens_needed,
)


def unit_rows(count: int, width: int, seed: int = 0) -> torch.Tensor:
    return functional.normalize(torch.randn(count, width, generator=torch.Generator().manual_seed(seed)), dim=1)


@pytest.mark.parametrize(
    ("decay", "alphas"),
    [  # the table of the method, u = K times the usage
        (0.99, {0.0: "0.999", 0.001: "0.368", 0.005: "0.007", 0.01: "0.000", 0.1: "0.000"}),
        (0.9, {0.0: "0.999", 0.001: "0.904", 0.005: "0.606", 0.01: "0.368", 0.02: "0.135", 0.05: "0.007",
               0.1: "0.000"}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("num_codes", [16, 1024])
def test_alpha_follows_the_methods_table(decay: float, alphas: dict[float, str], num_codes: int) -> None:
    for relative_use, alpha in alphas.items():
        usage = torch.full((num_codes,), relative_use / num_codes)
        assert f"{revive_rate(usage, 10.0, decay)[0].item():.3f}" == alpha, relative_use


def test_1024_codes_at_gamma_nine_tenths_need_16k_tokens() -> None:
    assert tokens_needed(1024, 0.9) == 16_384
    assert tokens_needed(1024, 0.99) == 1639 and tokens_needed(256, 0.9) == 4096


@given(num_codes=st.integers(2, 4096), decay=st.floats(0.0, 0.999))
def test_so_many_tokens_give_every_code_160_hits_in_the_moving_average(num_codes: int, decay: float) -> None:
    """Counted: the hits of past steps, each with the weight of its place in the average, at uniform use."""
    num_tokens = tokens_needed(num_codes, decay)
    weights = [decay**age for age in range(20_000)]
    hits = sum(weights) * num_tokens / num_codes
    assert hits == pytest.approx(160, rel=1e-6) or 160 < hits < 160 + sum(weights) / num_codes


def test_hit_codes_move_by_one_hundredth_and_others_stay() -> None:
    vectors = unit_rows(4, 8)
    tokens, codes = unit_rows(6, 8, seed=1), torch.tensor([0, 0, 0, 2, 2, 2])
    counts, sums = code_statistics(tokens, codes, 4)
    moved = moved_vectors(vectors, sums, counts, 0.99)
    mean = functional.normalize(tokens[:3].sum(0) / 3, dim=0)
    expected = functional.normalize(0.99 * vectors[0] + 0.01 * mean, dim=0)
    torch.testing.assert_close(moved[0], expected)
    assert torch.equal(moved[[1, 3]], vectors[[1, 3]])


def test_closest_anchor_is_the_nearest_token_and_none_serves_twice() -> None:
    tokens = unit_rows(32, 4)
    vectors = tokens[5].expand(3, 4)
    anchors = find_anchors(vectors, tokens, 1, "closest", torch.Generator())
    best = (tokens @ tokens[5]).argsort(descending=True)[:3]
    torch.testing.assert_close(anchors, tokens[best])


def test_centroid_anchor_is_the_mean_of_the_most_similar_tokens() -> None:
    tokens, vectors = unit_rows(40, 4), unit_rows(1, 4, seed=1)
    nearest = (tokens @ vectors[0]).argsort(descending=True)[:10]
    anchors = find_anchors(vectors, tokens, 10, "centroid", torch.Generator())
    torch.testing.assert_close(anchors[0], tokens[nearest].mean(0))


def test_probrandom_draws_from_the_softmax_of_similarity() -> None:
    tokens = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([find_anchors(tokens[:1], tokens, 1, "probrandom", generator)[0] for _ in range(3000)])
    share = torch.stack([(draws == token).all(1).float().mean() for token in tokens])
    torch.testing.assert_close(share, torch.tensor([1.0, 0.0, -1.0]).softmax(0), atol=0.03, rtol=0)


@pytest.mark.parametrize("rule", ["centroid", "closest", "probrandom", "random"])
@given(num_codes=st.integers(1, 80), num_tokens=st.integers(1, 200), seed=st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_anchors_are_distinct_and_never_more_than_tokens(rule, num_codes: int, num_tokens: int, seed: int) -> None:
    tokens = torch.eye(num_tokens)  # a mean of tokens shows which ones it holds
    vectors = unit_rows(num_codes, num_tokens, seed)
    size = max(1, num_tokens // num_codes)
    anchors = find_anchors(vectors, tokens, size, rule, torch.Generator().manual_seed(seed))
    assert len(anchors) == min(num_codes, num_tokens // (size if rule == "centroid" else 1))
    assert ((anchors > 0).sum(0) <= 1).all()


def test_strongest_only_keeps_the_highest_rates() -> None:
    rate = torch.tensor([0.2, 0.9, 0.0, 0.5])
    assert strongest_only(rate, 2).tolist() == pytest.approx([0.0, 0.9, 0.0, 0.5])
    assert torch.equal(strongest_only(rate, 4), rate)


def test_perplexity_of_uniform_use_is_the_number_of_codes_and_of_one_code_is_one() -> None:
    assert perplexity(torch.full((1024,), 3.0)) == pytest.approx(1024, rel=1e-4)
    assert perplexity(torch.tensor([7.0, 0.0, 0.0])) == pytest.approx(1.0)
    assert perplexity(torch.tensor([1.0, 1.0, 0.0])) == pytest.approx(2.0)
    assert perplexity(torch.tensor([3.0, 1.0])) == pytest.approx(math.exp(0.75 * math.log(4 / 3) + 0.25 * math.log(4)))


def test_kmeans_finds_separate_directions_and_keeps_an_empty_cluster() -> None:
    centres = torch.eye(3)
    noise = 0.05 * torch.randn(30, 3, generator=torch.Generator().manual_seed(0))
    samples = functional.normalize(centres[:2].repeat(15, 1) + noise, dim=1)
    means, counts = cosine_kmeans(samples, centres, 10)
    assert counts.tolist() == [15, 15, 0]
    assert ((means * centres).sum(1) > 0.99).all()
    assert torch.equal(means[2], centres[2])
