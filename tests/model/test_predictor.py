"""The label predictor: which patches it answers for, and what it may see."""

import dataclasses
from functools import partial

import pytest
import torch
from torch import Tensor

from sonar.model.encoder import EncoderConfig
from sonar.model.masking import Mask, random_mask
from sonar.model.predictor import LabelPredictor, PredictorConfig

CLIPS, PATCHES, NUM_CODES = 3, 24, 10


@pytest.fixture
def padding() -> torch.Tensor:
    return torch.arange(PATCHES) >= torch.tensor([[PATCHES], [16], [9]])


@pytest.fixture
def mask(padding: torch.Tensor, generator: torch.Generator) -> Mask:
    return random_mask(padding, 0.75, generator)


@pytest.fixture
def predictor(tiny_config: EncoderConfig, generator: torch.Generator) -> LabelPredictor:
    config = PredictorConfig(transformer=tiny_config.stack(2), num_codes=NUM_CODES)
    return LabelPredictor(config).initialise(generator).eval()


def encoded_like(mask: Mask, width: int, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(*mask.visible.shape, width, generator=generator)


def test_one_row_of_logits_per_masked_patch(predictor, mask, padding, generator) -> None:
    logits = predictor(encoded_like(mask, 48, generator), mask, padding)
    assert logits.shape == (int(mask.masked.sum()), NUM_CODES)


def test_rows_are_in_the_order_of_the_mask(predictor, mask, padding, generator) -> None:
    encoded = encoded_like(mask, 48, generator)
    together = predictor(encoded, mask, padding)
    start = 0
    for clip in range(CLIPS):
        masked = mask.masked[clip : clip + 1]
        shown = mask.visible[clip : clip + 1], mask.visible_padding[clip : clip + 1]
        one = Mask(masked, *shown, masked.flatten().nonzero().squeeze(1))
        alone = predictor(encoded[clip : clip + 1], one, padding[clip : clip + 1])
        torch.testing.assert_close(together[start : start + len(alone)], alone, atol=1e-5, rtol=0)
        start += len(alone)


def test_fillers_and_padding_are_never_seen(predictor, mask, padding, generator) -> None:
    encoded = encoded_like(mask, 48, generator)
    noise = torch.where(mask.visible_padding.unsqueeze(-1), 100.0, encoded)
    assert mask.visible_padding.any()
    assert torch.equal(predictor(noise, mask, padding), predictor(encoded, mask, padding))


def test_every_parameter_gets_a_gradient(predictor, mask, padding, generator) -> None:
    predictor(encoded_like(mask, 48, generator), mask, padding).square().sum().backward()
    assert not [name for name, value in predictor.named_parameters() if value.grad is None]


def plainly(predictor: LabelPredictor, encoded: Tensor, mask: Mask, padding: Tensor) -> Tensor:
    """All patches through all layers, the masked ones read off at the end; each visible vector put in its place."""
    clips, length = padding.shape
    entered = predictor.inlet(encoded)
    rows = []
    for clip in range(clips):
        hidden = predictor.mask_token.expand(length, -1).clone()  # (L, D)
        real = ~mask.visible_padding[clip]
        hidden[mask.visible[clip][real]] = entered[clip][real]
        rows.append(hidden)
    bias = predictor.transformer.position_bias(length)
    hidden, key_bias = torch.stack(rows), torch.zeros(padding.shape, dtype=encoded.dtype)
    key_bias = key_bias.masked_fill(padding, -torch.inf)[:, None, None]
    for layer in predictor.transformer.layers:
        hidden = layer(hidden, bias, key_bias)  # (B, L, D)
    return predictor.out(predictor.norm(hidden))[mask.masked]  # (N, K)


KINDS = {
    "as BEATs": {},
    "not gated": {"gated": False},
    "no positions": {"gated": False, "relative_position": False},
    "norm first": {"deep_norm": False, "norm_first": True},
    "one layer": {"num_layers": 1},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ratio", [0.05, 0.5, 0.75, 0.95])
def test_it_computes_what_all_patches_through_all_layers_do(kind, ratio, tiny_config, padding, generator) -> None:
    transformer = dataclasses.replace(tiny_config.stack(3), **KINDS[kind])
    predictor = LabelPredictor(PredictorConfig(transformer=transformer, num_codes=NUM_CODES)).initialise(generator)
    predictor.double()
    mask = random_mask(padding, ratio, generator)
    encoded = encoded_like(mask, 48, generator).double().requires_grad_()
    leaves = (encoded, *predictor.parameters())
    results = []
    for way in (predictor, partial(plainly, predictor)):
        logits = way(encoded, mask, padding)
        results.append((logits, *torch.autograd.grad(logits.square().sum(), leaves)))
    for cheap, plain in zip(*results, strict=True):
        torch.testing.assert_close(cheap, plain, atol=1e-12, rtol=1e-9)


def test_a_dropped_last_layer_answers_for_the_masked_patches_too(tiny_config, mask, padding, generator) -> None:
    transformer = dataclasses.replace(tiny_config.stack(2), layer_drop=0.999999)
    predictor = LabelPredictor(PredictorConfig(transformer=transformer, num_codes=NUM_CODES)).initialise(generator)
    logits = predictor(encoded_like(mask, 48, generator), mask, padding)
    token = predictor.out(predictor.norm(predictor.mask_token))
    torch.testing.assert_close(logits, token.expand(int(mask.masked.sum()), -1))


def test_impossible_input_is_refused(predictor, mask, padding, generator) -> None:
    with pytest.raises(ValueError, match="but the mask shows"):
        predictor(torch.zeros(CLIPS, 1, 48), mask, padding)
    with pytest.raises(ValueError, match="num_codes is 1"):
        PredictorConfig(num_codes=1)


def test_default_is_espnets_three_layers_of_the_base_encoder() -> None:
    config = PredictorConfig()
    assert config.transformer == dataclasses.replace(EncoderConfig().stack(12), num_layers=3)
