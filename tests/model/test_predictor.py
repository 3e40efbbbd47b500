"""The label predictor: which patches it answers for, and what it may see."""

import dataclasses

import pytest
import torch

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
        one = Mask(*(part[clip : clip + 1] for part in mask))
        alone = predictor(encoded[clip : clip + 1], one, padding[clip : clip + 1])
        torch.testing.assert_close(together[start : start + len(alone)], alone, atol=1e-5, rtol=0)
        start += len(alone)


def test_fillers_and_padding_are_never_seen(predictor, mask, padding, generator) -> None:
    encoded = encoded_like(mask, 48, generator)
    noise = torch.where(mask.visible_padding.unsqueeze(-1), 100.0, encoded)
    assert mask.visible_padding.any()
    assert torch.equal(predictor(noise, mask, padding), predictor(encoded, mask, padding))


def test_each_visible_vector_stands_at_its_own_patch(predictor, mask, padding, generator) -> None:
    encoded = encoded_like(mask, 48, generator)
    spread = predictor._with_mask_tokens(encoded, mask, padding)
    for clip in range(CLIPS):
        real = ~mask.visible_padding[clip]
        assert torch.equal(spread[clip, mask.visible[clip][real]], encoded[clip][real])
        hidden = spread[clip, mask.masked[clip]]
        assert torch.equal(hidden, predictor.mask_token.expand_as(hidden))


def test_every_parameter_gets_a_gradient(predictor, mask, padding, generator) -> None:
    predictor(encoded_like(mask, 48, generator), mask, padding).square().sum().backward()
    assert not [name for name, value in predictor.named_parameters() if value.grad is None]


def test_impossible_input_is_refused(predictor, mask, padding, generator) -> None:
    with pytest.raises(ValueError, match="but the mask shows"):
        predictor(torch.zeros(CLIPS, 1, 48), mask, padding)
    with pytest.raises(ValueError, match="num_codes is 1"):
        PredictorConfig(num_codes=1)


def test_default_is_espnets_three_layers_of_the_base_encoder() -> None:
    config = PredictorConfig()
    assert config.transformer == dataclasses.replace(EncoderConfig().stack(12), num_layers=3)
