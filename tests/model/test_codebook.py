"""The codebook as a module: straight-through, updates, revival, start of use."""

import copy
import dataclasses
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from sonar.model.codebook import Codebook, CodebookConfig
from sonar.model.revival import revive_rate

NUM_CODES, WIDTH = 16, 8
CONFIG = CodebookConfig()


@pytest.fixture
def codebook(generator: torch.Generator) -> Codebook:
    made = Codebook(NUM_CODES, WIDTH)
    made.initialise(generator)
    return made


def tokens_at(codebook: Codebook, codes: torch.Tensor, seed: int = 0) -> torch.Tensor:
    noise = torch.randn(len(codes), WIDTH, generator=torch.Generator().manual_seed(seed))
    return codebook.vectors[codes] + 0.01 * noise


def test_codes_are_the_nearest_vectors(codebook: Codebook, generator: torch.Generator) -> None:
    tokens = torch.randn(3, 7, WIDTH, generator=generator) * 5
    distances = torch.cdist(functional.normalize(tokens, dim=-1), codebook.vectors)  # (3, 7, K)
    assert torch.equal(codebook.assign(tokens), distances.argmin(-1))
    assert torch.equal(codebook.quantize(tokens).codes, distances.argmin(-1))


def test_straight_through_gradient_is_one_and_values_are_the_vectors(codebook: Codebook) -> None:
    tokens = functional.normalize(
        torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(2)), dim=1
    ).requires_grad_()
    chosen = codebook.quantize(tokens)
    assert torch.equal(chosen.quantized.detach(), codebook.vectors[chosen.codes])
    (gradient,) = torch.autograd.grad(chosen.quantized, chosen.embedding, torch.full((5, WIDTH), 3.0))
    assert torch.equal(gradient, torch.full((5, WIDTH), 3.0))


def test_autocast_leaves_every_bit_of_the_codebook_in_float32(codebook: Codebook, generator: torch.Generator) -> None:
    """The same embedding, codes and update inside autocast as outside."""
    tokens = torch.randn(6, WIDTH, generator=generator)
    plain = copy.deepcopy(codebook)
    plain.usage[:8] = codebook.usage[:8] = 0.0  # what they do not hit is revived
    expected = plain.quantize(tokens)
    revived = plain.update(expected.embedding, expected.codes, CONFIG, torch.Generator().manual_seed(0)).revived
    with torch.autocast("cpu", torch.bfloat16):
        chosen = codebook.quantize(tokens)
        assert torch.equal(codebook.assign(tokens), expected.codes)
        codebook.update(chosen.embedding, chosen.codes, CONFIG, torch.Generator().manual_seed(0))
    assert revived > 0
    for found, wanted in zip(chosen, expected, strict=True):
        assert found.dtype == wanted.dtype and torch.equal(found, wanted)
    for name, value in codebook.state_dict().items():
        assert value.dtype == torch.float32 and torch.equal(value, plain.state_dict()[name]), name


@given(seed=st.integers(0, 999), scale=st.floats(0.1, 10.0))
@settings(max_examples=20, deadline=None)
def test_straight_through_jacobian_is_the_identity(seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    codebook = Codebook(NUM_CODES, WIDTH)
    codebook.initialise(generator)
    tokens = (scale * torch.randn(1, WIDTH, generator=generator)).requires_grad_()
    chosen = codebook.quantize(tokens)
    jacobian = [torch.autograd.grad(value, chosen.embedding, retain_graph=True)[0][0] for value in chosen.quantized[0]]
    assert torch.equal(torch.stack(jacobian), torch.eye(WIDTH))


@pytest.mark.parametrize("fraction", [0.0, 0.2, 0.25, 0.3, 1.0])
@pytest.mark.parametrize("num_steps", [1, 7, 10, 40])
def test_the_rule_loses_its_revival_in_the_last_share_of_the_steps(fraction: float, num_steps: int) -> None:
    config = CodebookConfig(freeze_fraction=fraction)
    frozen = [config.at(step / num_steps).revival == "none" for step in range(num_steps)]
    assert sum(frozen) == math.floor(fraction * num_steps + 1e-9) and frozen == sorted(frozen)
    assert all(config.at(step / num_steps) == config for step in range(num_steps) if not frozen[step])


@pytest.mark.parametrize("revival", ["online", "hard", "none"])
@pytest.mark.parametrize("anchor", ["centroid", "closest", "probrandom", "random"])
@given(seed=st.integers(0, 999), num_tokens=st.integers(1, 60))
@settings(max_examples=8, deadline=None)
def test_rows_are_unit_after_every_update(revival, anchor, seed: int, num_tokens: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    codebook = Codebook(NUM_CODES, WIDTH)
    codebook.initialise(generator)
    config = CodebookConfig(revival=revival, anchor=anchor)
    for _ in range(3):
        tokens = torch.randn(num_tokens, WIDTH, generator=generator)
        codebook.update(tokens, codebook.assign(tokens), config, generator)
        torch.testing.assert_close(codebook.vectors.norm(dim=1), torch.ones(NUM_CODES))
    assert codebook.usage.sum().item() == pytest.approx(1.0, abs=1e-4) or revival == "hard"


def test_unused_codes_are_revived_to_the_tokens_and_used_ones_follow_slowly(codebook: Codebook) -> None:
    codes = torch.arange(4).repeat(64)
    tokens = tokens_at(codebook, codes)
    codebook.usage.zero_()
    before = codebook.vectors.clone()
    config = dataclasses.replace(CONFIG, anchor="closest")
    health = codebook.update(tokens, codes, config, torch.Generator())
    assert health.revived == 12 and health.coverage == 0.25
    assert health.perplexity == pytest.approx(4.0, rel=1e-4)
    moved = (codebook.vectors * before).sum(1)
    assert (moved[:4] > 0.999).all() and (moved[4:] < 0.999).any()
    nearest = (codebook.vectors[4:] @ functional.normalize(tokens, dim=1).t()).max(1).values
    assert (nearest > 0.95).all()


def test_revival_moves_by_alpha_towards_the_anchor(codebook: Codebook) -> None:
    config = dataclasses.replace(CONFIG, anchor="closest", max_revive_fraction=1 / NUM_CODES)
    codes = torch.arange(1, NUM_CODES).repeat(8)
    tokens = tokens_at(codebook, codes)
    codebook.usage[0] = 0.01 / NUM_CODES
    old = codebook.vectors[0].clone()
    codebook.update(tokens, codes, config, torch.Generator())
    alpha = revive_rate(codebook.usage, 10.0, 0.9)[0]
    unit = functional.normalize(tokens, dim=1)
    anchor = unit[(unit @ old).argmax()]
    torch.testing.assert_close(codebook.vectors[0], functional.normalize((1 - alpha) * old + alpha * anchor, dim=0))


def test_prior_usage_keeps_the_first_step_from_overwriting_a_trained_codebook(codebook: Codebook) -> None:
    prior = torch.arange(NUM_CODES).repeat(4)
    codes = torch.arange(4).repeat(64)
    tokens = tokens_at(codebook, codes)
    codebook.set_usage(prior)
    torch.testing.assert_close(codebook.usage, torch.full((NUM_CODES,), 1 / NUM_CODES))
    before = codebook.vectors.clone()
    assert codebook.update(tokens, codes, CONFIG, torch.Generator()).revived == 0
    assert torch.equal(codebook.vectors[4:], before[4:])


def test_usage_floor_protects_codes_that_the_prior_corpus_uses(codebook: Codebook) -> None:
    config = dataclasses.replace(CONFIG, prior_usage_floor=0.5)
    codebook.set_usage(torch.arange(8).repeat(4))
    codes = torch.zeros(64, dtype=torch.long)
    tokens = tokens_at(codebook, codes)
    before = codebook.vectors.clone()
    for _ in range(60):
        codebook.update(tokens, codes, config, torch.Generator())
    unchanged = (codebook.vectors == before).all(1)
    assert unchanged[1:8].all() and not unchanged[8:].any()


def test_a_step_revives_no_more_than_the_allowed_share(codebook: Codebook) -> None:
    config = dataclasses.replace(CONFIG, max_revive_fraction=0.125)
    codebook.usage.zero_()
    codes = torch.zeros(64, dtype=torch.long)
    assert codebook.update(tokens_at(codebook, codes), codes, config, torch.Generator()).revived == 2


def test_hard_revival_replaces_dead_codes_by_tokens_and_gives_them_time(codebook: Codebook) -> None:
    config = dataclasses.replace(CONFIG, revival="hard", dead_threshold=0.1)
    codebook.usage[3:6] = 0.0
    codes = torch.tensor([0, 1, 2, *range(6, NUM_CODES)]).repeat(4)
    tokens = tokens_at(codebook, codes)
    assert codebook.update(tokens, codes, config, torch.Generator().manual_seed(0)).revived == 3
    unit = functional.normalize(tokens, dim=1)
    assert ((codebook.vectors[3:6] @ unit.t()).max(1).values > 1 - 1e-5).all()
    torch.testing.assert_close(codebook.usage[3:6], torch.full((3,), 0.1 / NUM_CODES))


def test_revival_none_leaves_unused_codes_alone(codebook: Codebook) -> None:
    config = dataclasses.replace(CONFIG, revival="none")
    codebook.usage.zero_()
    before = codebook.vectors.clone()
    codes = torch.zeros(8, dtype=torch.long)
    assert codebook.update(tokens_at(codebook, codes), codes, config, torch.Generator()).revived == 0
    assert torch.equal(codebook.vectors[1:], before[1:])


def test_kmeans_start_spreads_the_codes_over_the_tokens(codebook: Codebook, generator: torch.Generator) -> None:
    tokens = tokens_at(codebook, torch.arange(NUM_CODES).repeat(20))
    started = Codebook(NUM_CODES, WIDTH)
    started.init_kmeans(tokens, generator)
    torch.testing.assert_close(started.vectors.norm(dim=1), torch.ones(NUM_CODES))
    assert started.cluster_size.sum() == len(tokens) and started.usage.sum().item() == pytest.approx(1.0)
    with pytest.raises(ValueError, match="15 tokens for 16 codes"):
        started.init_kmeans(tokens[:15], generator)


def test_nothing_of_the_codebook_is_trained_by_gradients(codebook: Codebook) -> None:
    assert not list(codebook.parameters())
    assert set(codebook.state_dict()) == {"vectors", "cluster_size", "usage", "prior_usage"}


def test_no_tokens_are_refused(codebook: Codebook) -> None:
    with pytest.raises(ValueError, match="no tokens to update"):
        codebook.update(torch.zeros(0, WIDTH), torch.zeros(0, dtype=torch.long), CONFIG, torch.Generator())
    with pytest.raises(ValueError, match="no prior codes"):
        codebook.set_usage(torch.zeros(0, dtype=torch.long))
    with pytest.raises(ValueError, match="num_codes is 1"):
        Codebook(1, WIDTH)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ema_decay": 1.0}, "ema_decay is 1.0"),
        ({"usage_decay": -0.1}, "usage_decay"),
        ({"revive_scale": -1.0}, "revive_scale"),
        ({"max_revive_fraction": 0.0}, "max_revive_fraction"),
        ({"dead_threshold": float("nan")}, "dead_threshold is nan: it must be 0 or more"),
        ({"freeze_fraction": 1.5}, r"freeze_fraction is 1.5: it must lie in \[0, 1\]"),
        ({"collapse_fraction": -0.1}, r"collapse_fraction is -0.1: it must lie in \[0, 1\]"),
        ({"anchor": "mean"}, "anchor is 'mean': give one of"),
        ({"revival": "soft"}, "revival is 'soft'"),
    ],
)
def test_impossible_configs_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CodebookConfig(**changes)
