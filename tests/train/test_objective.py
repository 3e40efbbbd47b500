"""The losses of each stage at their known points, and what a step may change."""

import copy
import math
from typing import Any

import pytest
import torch
from tiny import NUM_CODES, changed, draws, model_objective, parts, tensors, train
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from sonar.checkpoint import Checkpoint
from sonar.data.batch import Batch
from sonar.data.stream import MixedStream
from sonar.model.codebook import CodebookConfig
from sonar.model.inputs import model_inputs
from sonar.model.masking import random_mask
from sonar.train.model_objective import HeadObjective
from sonar.train.objective import DistillConfig, LossTerms
from sonar.train.tokenizer_objective import TokenizerObjective

CONFIG = DistillConfig(tokenizer_weight=100.0)


def tokenizer_objective(base: Checkpoint, config: DistillConfig = CONFIG) -> TokenizerObjective:
    """A student that equals its teacher."""
    tokenizer, _ = parts(base)
    old = (copy.deepcopy(base.encoder), copy.deepcopy(tokenizer))
    return TokenizerObjective(tokenizer, *old, config, CodebookConfig())


def test_a_student_that_equals_its_teacher_has_drifted_by_exactly_nothing(base: Checkpoint, batch: Batch) -> None:
    assert tokenizer_objective(base).train()(batch, draws()).terms["tokenizer_drift"] == 0
    assert model_objective(base, CONFIG).train()(batch, draws()).terms["feature_drift"] == 0


def test_drift_is_seen_as_soon_as_the_student_moves(base: Checkpoint, batch: Batch) -> None:
    pairs = ((tokenizer_objective(base), "tokenizer_drift"), (model_objective(base, CONFIG), "feature_drift"))
    for objective, term in pairs:
        student = objective.student.encoder if isinstance(objective, TokenizerObjective) else objective.student
        with torch.no_grad():
            for parameter in student.parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=draws(1)))
        assert objective(batch, draws()).terms[term] > 0


def test_teachers_have_no_gradient_and_never_change(base: Checkpoint, stream: MixedStream) -> None:
    tokenizer, predictor = parts(base)
    first, second = tokenizer_objective(base), model_objective(base, CONFIG)
    for objective, trained, teachers in (
        (first, (tokenizer,), (first.teacher, first.old)),
        (second, (base.encoder, predictor), (second.regulariser, second.tokenizer)),
    ):
        before = tensors(*teachers)
        students = tensors(*trained)
        train(objective, trained, stream)
        assert changed(before, tensors(*teachers)) == []
        assert len(changed(students, tensors(*trained))) > len(students) / 2
        for teacher in teachers:
            assert teacher is not None and not teacher.training
            assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())


def weighted(losses: LossTerms, weights: dict[str, float]) -> float:
    return math.fsum(weights[name] * float(losses.terms[name]) for name in weights)


def test_the_total_is_the_weighted_sum_of_the_terms(base: Checkpoint, batch: Batch, stream: MixedStream) -> None:
    config = DistillConfig(
        tokenizer_weight=30.0, model_weight=7.0, contrastive_weight=0.5, commitment_weight=3.0, temperature=0.7
    )
    tokenizer, predictor = parts(base)
    first, second = tokenizer_objective(base, config), model_objective(base, config)
    train(first, (tokenizer,), stream, num_steps=1)  # away from the point where drift is nothing
    train(second, (base.encoder, predictor), stream, num_steps=1)
    losses = first(batch, draws())
    weights = {"alignment": 1.0, "commitment": 3.0, "tokenizer_drift": 30.0, "contrastive": 0.5}
    assert losses.terms.keys() == weights.keys() and all(value > 0 for value in losses.terms.values())
    assert float(losses.total.detach()) == pytest.approx(weighted(losses, weights), rel=1e-6)
    losses = second(batch, draws())
    assert losses.terms["feature_drift"] > 0
    expected = weighted(losses, {"masked_prediction": 1.0, "feature_drift": 7.0})
    assert float(losses.total.detach()) == pytest.approx(expected, rel=1e-6)


def test_a_weight_of_zero_leaves_its_term_and_its_teacher_out(
    base: Checkpoint, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = DistillConfig(tokenizer_weight=0.0, model_weight=0.0, contrastive_weight=0.0)
    first, second = tokenizer_objective(base, config), model_objective(base, config)
    assert first.old is None
    old = second.regulariser.old  # type: ignore[union-attr]
    monkeypatch.setattr(old, "forward", None)  # calling it would fail
    assert first(batch, draws()).terms.keys() == {"alignment", "commitment"}
    assert second(batch, draws()).terms.keys() == {"masked_prediction", "masked_accuracy"}


def test_a_predictor_without_opinion_costs_log_k(base: Checkpoint, batch: Batch) -> None:
    _, predictor = parts(base)
    nn.init.zeros_(predictor.out.weight)
    nn.init.zeros_(predictor.out.bias)
    losses = model_objective(base, CONFIG)(batch, draws())
    assert float(losses.terms["masked_prediction"]) == pytest.approx(math.log(NUM_CODES), abs=1e-6)


def test_the_mask_is_the_generators_alone(base: Checkpoint, batch: Batch) -> None:
    objective = model_objective(base, CONFIG)
    assert objective(batch, draws(5)).total == objective(batch, draws(5)).total
    assert objective(batch, draws(5)).total != objective(batch, draws(6)).total


class ReadsNothing(TorchDispatchMode):
    """Refuses what a GPU is waited for: values and counts that Python or a shape needs."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        ops = torch.ops.aten
        reads = func.overloadpacket in (ops.nonzero, ops._local_scalar_dense, ops.masked_select)
        if func.overloadpacket in (ops.index, ops.index_put, ops.index_put_):
            reads = any(index is not None and index.dtype == torch.bool for index in args[1])
        assert not reads, f"{func} waits for a GPU"
        return func(*args, **(kwargs or {}))


def test_from_its_mask_to_its_gradient_a_step_waits_for_no_gpu(
    base: Checkpoint, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = model_objective(base, CONFIG).train()
    inputs = model_inputs(batch.waveform, batch.padding, base.encoder.config.fbank)
    drawn = random_mask(inputs.padding, CONFIG.mask_ratio, draws())
    codes = torch.zeros(inputs.padding.shape, dtype=torch.int64)
    monkeypatch.setattr("sonar.train.model_objective.random_mask", lambda *_: drawn)
    with ReadsNothing():
        objective.losses(inputs, codes, batch.is_replay, draws()).total.backward()
        with pytest.raises(AssertionError, match="waits for a GPU"):
            codes[drawn.masked]


def test_only_the_tokens_that_are_no_padding_reach_the_codebook(base: Checkpoint, batch: Batch) -> None:
    assignment = tokenizer_objective(base)(batch, draws()).assignment
    assert assignment is not None
    num_frames = 1 + (batch.waveform.shape[1] - 400) // 160
    num_patches = num_frames // 16 * 8
    per_frame, frames_per_patch = batch.waveform.shape[1] // num_frames, num_frames // num_patches
    kept = 0
    for row in batch.padding:
        frames = [bool(row[i * per_frame : (i + 1) * per_frame].all()) for i in range(num_frames)]
        kept += sum(not all(frames[i * frames_per_patch : (i + 1) * frames_per_patch]) for i in range(num_patches))
    assert len(assignment.codes) == len(assignment.embedding) == kept < num_patches * len(batch.padding)
    assert not assignment.embedding.requires_grad
    assert torch.allclose(assignment.embedding.norm(dim=1), torch.ones(kept))


def test_the_head_warm_up_changes_the_heads_only(base: Checkpoint, stream: MixedStream) -> None:
    tokenizer, predictor = parts(base)
    estimator = tokenizer.estimator
    assert estimator is not None
    body = tensors(base.encoder, tokenizer)
    heads = tensors(estimator, predictor)
    train(HeadObjective(tokenizer, base.encoder, predictor, CONFIG), (estimator, predictor), stream)
    assert all(name.startswith("1.estimator.") for name in changed(body, tensors(base.encoder, tokenizer)))
    assert len(changed(heads, tensors(estimator, predictor))) > len(heads) / 2


def test_the_head_warm_up_costs_alignment_plus_prediction(base: Checkpoint, batch: Batch) -> None:
    tokenizer, predictor = parts(base)
    losses = HeadObjective(tokenizer, base.encoder, predictor, CONFIG)(batch, draws(3))
    # The same two terms from the stages that they warm up for: same mask, same tokens.
    alignment = tokenizer_objective(base)(batch, draws()).terms["alignment"]
    prediction = model_objective(base, CONFIG)(batch, draws(3)).terms["masked_prediction"]
    assert float(losses.total.detach()) == pytest.approx(float(alignment) + float(prediction), abs=1e-6)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tokenizer_weight": -1.0}, "tokenizer_weight is -1.0; a loss weight is >= 0"),
        ({"mask_ratio": 1.0}, "mask_ratio is 1.0; it must lie strictly between 0 and 1"),
        ({"temperature": 0.0}, "temperature is 0.0; it must be > 0"),
        ({"label_smoothing": 1.0}, r"label_smoothing is 1.0; it must lie in \[0, 1\)"),
    ],
)
def test_weights_that_cannot_be_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DistillConfig(**values)
