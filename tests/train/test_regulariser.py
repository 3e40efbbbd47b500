"""The pull to the old encoder: nothing at the start, and nothing of what it is not asked to hold."""

import copy
import itertools
from typing import Any

import pytest
import torch
from tiny import changed, draws, make_base, model_objective, parts, tensors, train
from torch import nn

from sonar.checkpoint import Checkpoint
from sonar.data.batch import Batch
from sonar.data.stream import MixedStream
from sonar.model.inputs import model_inputs
from sonar.model.masking import random_mask
from sonar.train.model_objective import ModelObjective
from sonar.train.objective import DistillConfig
from sonar.train.regulariser import Regulariser

OPTIONS: list[dict[str, Any]] = [
    {"model_on": on, "model_pass": shown, "model_layers": layers}
    for on, shown, layers in itertools.product(("all", "prior"), ("visible", "full"), ((), (1,), (1, 2)))
]
NAMES = ["-".join(map(str, options.values())) for options in OPTIONS]


def moved(objective: ModelObjective, scale: float = 0.05) -> ModelObjective:
    """The objective with its student away from the old encoder."""
    with torch.no_grad():
        for parameter in objective.student.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=draws(1)))
    return objective


def drift(objective: ModelObjective, batch: Batch, term: str = "feature_drift") -> torch.Tensor:
    return objective(batch, draws()).terms[term]


def regulariser(objective: ModelObjective) -> Regulariser:
    assert objective.regulariser is not None
    return objective.regulariser


@pytest.mark.parametrize("options", OPTIONS, ids=NAMES)
def test_every_kind_of_drift_is_exactly_nothing_at_the_start_and_something_later(
    options: dict[str, Any], base: Checkpoint, batch: Batch
) -> None:
    objective = model_objective(base, DistillConfig(l2sp_weight=1.0, **options)).train()
    assert drift(objective, batch) == drift(objective, batch, "weight_drift") == 0
    assert drift(moved(objective), batch) > 0 and drift(objective, batch, "weight_drift") > 0


@pytest.mark.parametrize("shown", ["visible", "full"])
def test_the_start_is_exact_in_bfloat16_too(shown: Any, base: Checkpoint, batch: Batch) -> None:
    objective = model_objective(base, DistillConfig(model_pass=shown, model_layers=(1, 2), l2sp_weight=1.0)).train()
    with torch.autocast("cpu", torch.bfloat16):
        terms = objective(batch, draws()).terms
    assert terms["feature_drift"] == terms["weight_drift"] == 0


@pytest.mark.parametrize("options", OPTIONS, ids=NAMES)
def test_the_drift_is_that_of_unit_outputs_taken_clip_by_clip(
    options: dict[str, Any], base: Checkpoint, batch: Batch
) -> None:
    """A second derivation: plain loops over clips, layers and patches, 2 - 2 cos each."""
    objective = moved(model_objective(base, DistillConfig(**options)))
    student, old = objective.student, regulariser(objective).old
    inputs = model_inputs(batch.waveform, batch.padding, student.config.fbank)
    mask = random_mask(inputs.padding, 0.75, draws())
    shown = (mask.visible, mask.visible_padding) if options["model_pass"] == "visible" else ()
    drifts = []
    for layer in options["model_layers"] or (2,):
        distances = []
        new, before = (e(*inputs, *shown, return_hidden=True).hidden[layer] for e in (student, old))
        left_out = shown[1] if shown else inputs.padding
        for row, is_replay in enumerate(batch.is_replay.tolist()):
            if options["model_on"] == "all" or is_replay:
                cosine = torch.cosine_similarity(new[row], before[row], dim=-1)
                distances += (2 - 2 * cosine)[~left_out[row]].tolist()
        drifts.append(sum(distances) / len(distances))
    assert float(drift(objective, batch)) == pytest.approx(sum(drifts) / len(drifts), abs=1e-5)


@pytest.mark.parametrize("shown", ["visible", "full"])
def test_prior_only_distillation_ignores_new_clips(shown: Any, base: Checkpoint, batch: Batch) -> None:
    scrambled = batch._replace(waveform=batch.waveform.clone())
    scrambled.waveform[~batch.is_replay] = scrambled.waveform[~batch.is_replay].flip(-1)
    assert not torch.equal(scrambled.waveform, batch.waveform)
    prior = moved(model_objective(base, DistillConfig(model_on="prior", model_pass=shown)))
    assert torch.equal(drift(prior, scrambled), drift(prior, batch))
    everything = model_objective(base, DistillConfig(model_pass=shown))
    regulariser(everything).old.load_state_dict(regulariser(prior).old.state_dict())
    assert not torch.equal(drift(everything, scrambled), drift(everything, batch))


def test_a_batch_without_prior_clips_contributes_nothing_and_no_gradient(base: Checkpoint, batch: Batch) -> None:
    new_only = batch._replace(is_replay=torch.zeros_like(batch.is_replay))
    weights = (10.0, 0.0)
    gradients = []
    for weight in weights:
        objective = model_objective(base, DistillConfig(model_on="prior", model_weight=weight)).train()
        moved(objective, 0.0)
        objective.zero_grad()
        losses = objective(new_only, draws())
        losses.total.backward()
        gradients.append([p.grad for p in objective.student.parameters()])
        assert losses.terms.get("feature_drift", torch.tensor(0.0)) == 0 and torch.isfinite(losses.total)
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize("options", OPTIONS, ids=NAMES)
def test_the_old_encoder_gets_no_gradient_and_never_changes(
    options: dict[str, Any], base: Checkpoint, stream: MixedStream
) -> None:
    config = DistillConfig(l2sp_weight=0.1, through_predictor=True, **options)
    objective = model_objective(base, config)
    old = regulariser(objective).old
    before, student, heads = tensors(old), tensors(base.encoder), tensors(regulariser(objective).heads)
    train(objective, (base.encoder, parts(base)[1], regulariser(objective).heads), stream, num_steps=2)
    assert changed(before, tensors(old)) == [] and changed(student, tensors(base.encoder))
    assert all(p.grad is None and not p.requires_grad for p in old.parameters())
    assert len(changed(heads, tensors(regulariser(objective).heads))) == len(heads) > 0


@pytest.mark.parametrize("weight", [0.1, 3.0])
def test_the_gradient_of_l2sp_is_the_weighted_way_from_the_start(weight: float, base: Checkpoint, batch: Batch) -> None:
    config = DistillConfig(model_weight=0.0, l2sp_weight=weight)
    objective = moved(model_objective(base, config))
    old = regulariser(objective).old
    plain = model_objective(base, DistillConfig(model_weight=0.0))
    term = regulariser(objective)(objective.student, None, None, None, None)["weight_drift"]  # reads parameters only
    (weight * term).backward()
    for now, then in zip(objective.student.parameters(), old.parameters(), strict=True):
        assert torch.equal(now.grad, weight * (now.detach() - then))
    half = sum(float((a.detach() - b).double().square().sum()) for a, b in zip(
        objective.student.parameters(), old.parameters(), strict=True)) / 2  # fmt: skip
    assert float(term.detach()) == pytest.approx(half, rel=1e-5)
    with_it, without = (float(o(batch, draws()).total.detach()) for o in (objective, plain))
    assert with_it - without == pytest.approx(weight * half, rel=1e-3)


@pytest.mark.parametrize("options", OPTIONS, ids=NAMES)
def test_distillation_through_the_identity_is_plain_distillation(
    options: dict[str, Any], base: Checkpoint, batch: Batch
) -> None:
    plain = moved(model_objective(base, DistillConfig(**options)))
    through = model_objective(base, DistillConfig(through_predictor=True, **options))
    regulariser(through).old.load_state_dict(regulariser(plain).old.state_dict())
    assert len(regulariser(through).heads) == len(options["model_layers"] or (2,))
    assert not torch.equal(drift(through, batch), drift(plain, batch))
    regulariser(through).heads = nn.ModuleList(nn.Identity() for _ in regulariser(through).heads)
    assert torch.equal(drift(through, batch), drift(plain, batch))


def test_a_trained_predictor_maps_the_encoder_back_to_the_old_one(base: Checkpoint, stream: MixedStream) -> None:
    """With the encoder frozen away from the old one, only the heads can lower the term."""
    objective = moved(model_objective(base, DistillConfig(through_predictor=True)))
    before = drift(objective, stream.batch(0))
    train(objective, (regulariser(objective).heads,), stream, num_steps=15)
    assert drift(objective, stream.batch(0)) < 0.5 * before


def test_the_heads_are_the_generators_alone() -> None:
    config = DistillConfig(through_predictor=True)
    heads = [tensors(Regulariser(make_base().encoder, config).initialise(draws(seed)).heads) for seed in (0, 0, 1)]
    assert changed(heads[0], heads[1]) == [] and changed(heads[0], heads[2])


def test_a_layer_that_the_encoder_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="model_layers names layer 3, but the encoder has 2; give numbers from 1 to 2"):
        Regulariser(copy.deepcopy(make_base().encoder), DistillConfig(model_layers=(1, 3)))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_on": "new"}, "model_on is 'new'; allowed: all, prior"),
        ({"model_pass": "masked"}, "model_pass is 'masked'; allowed: visible, full"),
        ({"model_layers": (0,)}, r"model_layers is \[0\]; give different layers, counted from 1, or none"),
        ({"model_layers": (2, 2)}, r"model_layers is \[2, 2\]; give different layers"),
        ({"l2sp_weight": -0.1}, "l2sp_weight is -0.1; a loss weight is >= 0"),
    ],
)
def test_options_that_cannot_be_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DistillConfig(**values)
