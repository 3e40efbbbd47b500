"""Small models and seeded generators, on one thread."""

from collections.abc import Iterator

import pytest
import torch

from sonar.model.encoder import BeatsEncoder, EncoderConfig


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


@pytest.fixture(scope="session")
def tiny_config() -> EncoderConfig:
    return EncoderConfig(
        num_layers=2,
        width=48,
        ffn_width=96,
        num_heads=4,
        patch_width=32,
        position_kernel=16,
        position_groups=4,
        num_buckets=32,
        max_distance=80,
        dropout=0.0,
        attention_dropout=0.0,
    )


@pytest.fixture
def tiny_encoder(tiny_config: EncoderConfig, generator: torch.Generator) -> BeatsEncoder:
    return BeatsEncoder(tiny_config).initialise(generator).eval()
