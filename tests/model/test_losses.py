"""Losses against closed forms."""

import math

import pytest
import torch
from torch.nn import functional

from sonar.model.losses import (
    commitment_loss,
    contrastive_code_loss,
    cosine_alignment_loss,
    masked_prediction_loss,
    normalised_l2_loss,
    start_point_penalty,
)

KEEP = torch.tensor([[True, True, False], [True, False, False]])


def rows(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_uniform_logits_cost_log_of_the_number_of_codes(smoothing: float) -> None:
    loss = masked_prediction_loss(torch.full((5, 1024), 3.0), torch.arange(5), smoothing)
    assert loss.item() == pytest.approx(math.log(1024), rel=1e-6)


def test_certain_and_right_costs_nothing_and_wrong_costs_the_margin() -> None:
    logits = torch.zeros(1, 4)
    logits[0, 2] = 50.0
    assert masked_prediction_loss(logits, torch.tensor([2])).item() == pytest.approx(0.0, abs=1e-6)
    assert masked_prediction_loss(logits, torch.tensor([0])).item() == pytest.approx(50.0, rel=1e-6)


def test_cosine_alignment_is_0_1_2_for_same_orthogonal_and_opposite() -> None:
    base = torch.tensor([1.0, 0.0]).expand(2, 3, 2)
    side = torch.tensor([0.0, 5.0]).expand(2, 3, 2)
    for other, expected in ((base * 7, 0.0), (side, 1.0), (-base, 2.0)):
        assert cosine_alignment_loss(other, base, KEEP).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("loss", [cosine_alignment_loss, commitment_loss, normalised_l2_loss])
def test_dropped_tokens_count_neither_above_nor_below_the_line(loss) -> None:
    student, teacher = rows(2, 3, 8), rows(2, 3, 8, seed=1)
    garbage = student.clone()
    garbage[~KEEP] = float("nan")
    assert loss(garbage, teacher, KEEP) == loss(student, teacher, KEEP)
    kept = torch.ones(1, 3, dtype=torch.bool)
    expected = loss(student[KEEP].unsqueeze(0), teacher[KEEP].unsqueeze(0), kept)
    assert loss(student, teacher, KEEP).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("loss", [cosine_alignment_loss, commitment_loss, normalised_l2_loss])
def test_the_target_gets_no_gradient(loss) -> None:
    student, teacher = rows(2, 3, 8).requires_grad_(), rows(2, 3, 8, seed=1).requires_grad_()
    loss(student, teacher, KEEP).backward()
    assert teacher.grad is None and student.grad is not None
    assert (student.grad[~KEEP] == 0).all() and (student.grad[KEEP] != 0).any()


def test_normalised_l2_is_exactly_zero_for_the_same_model() -> None:
    features = rows(2, 3, 768)
    for reduction in ("mean", "sum"):
        assert normalised_l2_loss(features, features.clone(), KEEP, reduction).item() == 0.0  # type: ignore[arg-type]


def test_normalised_l2_of_no_token_is_zero_and_its_gradient_too() -> None:
    student = rows(2, 3, 8).requires_grad_()
    loss = normalised_l2_loss(student, rows(2, 3, 8, seed=1), torch.zeros_like(KEEP))
    loss.backward()
    assert loss.item() == 0.0 and student.grad is not None and (student.grad == 0).all()


def test_start_point_penalty_is_half_the_squared_way_and_its_gradient_the_way() -> None:
    start = [torch.tensor([1.0, 2.0]), torch.tensor([[3.0]])]
    now = [torch.tensor([1.0, 5.0]).requires_grad_(), torch.tensor([[-1.0]]).requires_grad_()]
    penalty = start_point_penalty(now, start)
    assert penalty.item() == 0.5 * (9.0 + 16.0)
    penalty.backward()
    assert now[0].grad.tolist() == [0.0, 3.0] and now[1].grad.tolist() == [[-4.0]]
    assert start_point_penalty(start, start).item() == 0.0
    with pytest.raises(ValueError, match="shorter"):
        start_point_penalty(now, start[:1])


def test_sum_is_twice_one_minus_cosine_and_mean_is_that_over_the_width() -> None:
    student, teacher = rows(2, 3, 768), rows(2, 3, 768, seed=1)
    twice = 2 * cosine_alignment_loss(student, teacher, KEEP).item()
    assert normalised_l2_loss(student, teacher, KEEP, "sum").item() == pytest.approx(twice, rel=1e-5)
    assert normalised_l2_loss(student, teacher, KEEP).item() == pytest.approx(twice / 768, rel=1e-5)


def test_paper_weight_of_l3_costs_2_6_at_cosine_0_999() -> None:
    angle = math.acos(0.999)
    student, teacher = torch.zeros(1, 1, 768), torch.zeros(1, 1, 768)
    student[..., 0], student[..., 1], teacher[..., 0] = math.cos(angle), math.sin(angle), 1.0
    loss = 1e6 * normalised_l2_loss(student, teacher, torch.ones(1, 1, dtype=torch.bool))
    assert loss.item() == pytest.approx(2.6, abs=0.01)


def test_commitment_is_mse_or_squared_distance() -> None:
    embedding, vectors = (
        functional.normalize(rows(2, 3, 8), dim=-1),
        functional.normalize(rows(2, 3, 8, seed=1), dim=-1),
    )
    keep = torch.ones(2, 3, dtype=torch.bool)
    mse = functional.mse_loss(embedding, vectors).item()
    assert commitment_loss(embedding, vectors, keep).item() == pytest.approx(mse, rel=1e-6)
    assert commitment_loss(embedding, vectors, keep, "sum").item() == pytest.approx(8 * mse, rel=1e-6)


def test_contrastive_loss_is_log_k_for_equal_codes_and_closed_for_orthogonal_ones() -> None:
    equal = torch.ones(16, 4)
    assert contrastive_code_loss(rows(5, 4), equal, torch.arange(5), 0.3).item() == pytest.approx(math.log(16))
    codes = torch.arange(4)
    expected = -math.log(math.exp(1 / 0.3) / (math.exp(1 / 0.3) + 3))
    assert contrastive_code_loss(torch.eye(4) * 9, torch.eye(4), codes, 0.3).item() == pytest.approx(expected, rel=1e-5)


def test_contrastive_loss_pulls_tokens_to_their_code_and_leaves_the_codebook() -> None:
    tokens, vectors = (
        rows(6, 4).requires_grad_(),
        functional.normalize(rows(8, 4, seed=1), dim=1).requires_grad_(),
    )
    codes = torch.arange(6)
    contrastive_code_loss(tokens, vectors, codes, 0.3).backward()
    assert vectors.grad is None and tokens.grad is not None
    with torch.no_grad():
        before = functional.cosine_similarity(tokens, vectors[codes]).mean()
        after = functional.cosine_similarity(tokens - 0.1 * tokens.grad, vectors[codes]).mean()
    assert after > before


def test_impossible_input_is_refused() -> None:
    with pytest.raises(ValueError, match="temperature is 0"):
        contrastive_code_loss(rows(2, 4), rows(8, 4), torch.arange(2), 0)
    with pytest.raises(ValueError, match="N at least 1"):
        contrastive_code_loss(rows(0, 4), rows(8, 4), torch.arange(0), 0.3)
    with pytest.raises(ValueError, match="N at least 1"):
        masked_prediction_loss(torch.zeros(0, 8), torch.zeros(0, dtype=torch.long))
    with pytest.raises(ValueError, match="reduction is 'total'"):
        normalised_l2_loss(rows(2, 3, 4), rows(2, 3, 4), KEEP, "total")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="do not fit"):
        cosine_alignment_loss(rows(2, 3, 4), rows(2, 3, 5), KEEP)
