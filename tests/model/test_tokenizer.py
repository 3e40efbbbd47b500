"""Tokenizers beyond the golden labels: estimator, gradients, random projection."""

import copy

import pytest
import torch
from torch.nn import functional

from sonar.model.encoder import EncoderConfig
from sonar.model.tokenizer import (
    RandomProjectionConfig,
    RandomProjectionTokenizer,
    Tokenizer,
    TokenizerConfig,
)

CLIPS, PATCHES, WIDTH, CODE_WIDTH, NUM_CODES = 2, 48, 48, 16, 64


@pytest.fixture
def tokenizer(tiny_config: EncoderConfig, generator: torch.Generator) -> Tokenizer:
    config = TokenizerConfig(encoder=tiny_config, num_codes=NUM_CODES, code_width=CODE_WIDTH, estimator_layers=2)
    return Tokenizer(config).initialise(generator).eval()


@pytest.fixture
def log_mel(generator: torch.Generator) -> torch.Tensor:
    return torch.randn(CLIPS, 98, 128, generator=generator)


def test_output_has_the_promised_shapes(tokenizer: Tokenizer, log_mel: torch.Tensor) -> None:
    output = tokenizer(log_mel)
    assert output.hidden.shape == (CLIPS, PATCHES, WIDTH)
    assert output.embedding.shape == output.quantized.shape == (CLIPS, PATCHES, CODE_WIDTH)
    assert output.codes.shape == (CLIPS, PATCHES) and output.codes.dtype == torch.int64
    torch.testing.assert_close(output.embedding.norm(dim=-1), torch.ones(CLIPS, PATCHES))
    assert torch.equal(tokenizer.codes(log_mel), output.codes)
    assert tokenizer.estimate(output.quantized).shape == (CLIPS, PATCHES, WIDTH)


def test_estimator_loss_reaches_the_encoder_through_the_codes(tokenizer: Tokenizer, log_mel: torch.Tensor) -> None:
    output = tokenizer(log_mel)
    tokenizer.estimate(output.quantized).square().sum().backward()
    gradient = tokenizer.encoder.patch_embedding.weight.grad
    assert gradient is not None and gradient.abs().max() > 0


def test_padding_hides_tokens_from_the_estimator(tokenizer: Tokenizer, generator: torch.Generator) -> None:
    quantized = torch.randn(1, 24, CODE_WIDTH, generator=generator)
    padding = torch.arange(24).unsqueeze(0) >= 16
    other = torch.where(padding.unsqueeze(-1), torch.randn(1, 24, CODE_WIDTH, generator=generator), quantized)
    first, second = tokenizer.estimate(quantized, padding), tokenizer.estimate(other, padding)
    assert torch.equal(first[:, :16], second[:, :16])


def test_without_an_estimator_the_error_says_what_to_do(tokenizer: Tokenizer, generator: torch.Generator) -> None:
    bare = Tokenizer(tokenizer.config, with_estimator=False).initialise(generator)
    with pytest.raises(ValueError, match="call new_estimator first"):
        bare.estimate(torch.zeros(1, 8, CODE_WIDTH))
    bare.new_estimator(torch.Generator().manual_seed(1))
    first = bare.estimate(torch.ones(1, 8, CODE_WIDTH))
    bare.new_estimator(torch.Generator().manual_seed(1))
    assert bare.estimator is not None and not torch.isnan(first).any()


def test_initialise_depends_on_the_generator_alone(tokenizer: Tokenizer) -> None:
    first, second = (
        Tokenizer(tokenizer.config).initialise(torch.Generator().manual_seed(3)).state_dict() for _ in range(2)
    )
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_frozen_copy_never_changes(tokenizer: Tokenizer, log_mel: torch.Tensor, generator: torch.Generator) -> None:
    teacher = copy.deepcopy(tokenizer).requires_grad_(False)
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    teacher.eval()(log_mel)
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())


def test_autocast_rounds_nothing_behind_the_encoder(tokenizer: Tokenizer, log_mel: torch.Tensor) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        output = tokenizer(log_mel)
    plain = tokenizer.codebook.quantize(tokenizer.projection(output.hidden.float()))
    assert output.hidden.dtype == torch.bfloat16 or not torch.equal(output.hidden, tokenizer(log_mel).hidden)
    assert torch.equal(output.embedding, plain.embedding) and torch.equal(output.codes, plain.codes)


def test_autocast_changes_few_codes(tokenizer: Tokenizer, log_mel: torch.Tensor) -> None:
    exact = tokenizer.codes(log_mel)
    with torch.autocast("cpu", torch.bfloat16):
        output = tokenizer(log_mel)
    assert output.embedding.dtype == torch.float32
    assert (output.codes == exact).float().mean() > 0.9


def test_random_projection_codes_are_nearest_by_cosine_of_the_normalised_patch(
    generator: torch.Generator,
) -> None:
    tokenizer = RandomProjectionTokenizer(RandomProjectionConfig(num_codes=32, code_width=8), generator)
    log_mel = torch.randn(1, 40, 128, generator=generator)
    codes = tokenizer.codes(log_mel)
    assert codes.shape == (1, 16)
    for patch in (0, 5, 11):
        column, band = divmod(patch, 8)
        values = log_mel[0, column * 16 : column * 16 + 16, band * 16 : band * 16 + 16].flatten()
        values = (values - values.mean()) / values.std(correction=0)
        projected = values @ tokenizer.projection
        cosines = functional.cosine_similarity(projected.unsqueeze(0), tokenizer.vectors)
        assert codes[0, patch] == cosines.argmax()


def test_random_projection_ignores_loudness_and_uses_many_codes(generator: torch.Generator) -> None:
    tokenizer = RandomProjectionTokenizer(RandomProjectionConfig(num_codes=64), generator)
    log_mel = torch.randn(4, 160, 128, generator=generator)
    codes = tokenizer.codes(log_mel)
    assert (tokenizer.codes(log_mel * 2 + 3) == codes).float().mean() > 0.99
    assert len(codes.unique()) > 48


def test_random_projection_is_frozen_and_seeded() -> None:
    first, second = (
        RandomProjectionTokenizer(RandomProjectionConfig(), torch.Generator().manual_seed(0)) for _ in range(2)
    )
    assert torch.equal(first.vectors, second.vectors) and torch.equal(first.projection, second.projection)
    assert not list(first.parameters())


def test_impossible_configs_are_refused(tiny_config: EncoderConfig) -> None:
    with pytest.raises(ValueError, match="num_codes 1"):
        TokenizerConfig(encoder=tiny_config, num_codes=1)
