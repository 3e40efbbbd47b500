"""The three ways to attend give the same; the position bias is made once per forward and lies row by row."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from sonar.model import attention, products, transformer
from sonar.model.attention import LogitBias
from sonar.model.encoder import BeatsEncoder

CLIPS, HEADS, LENGTH, WIDTH = 2, 3, 100, 8


class Sequence(NamedTuple):
    query: Tensor
    key: Tensor
    value: Tensor
    bias: LogitBias

    def leaves(self) -> list[Tensor]:
        return [part for part in (*self[:3], *self.bias) if part is not None and part.requires_grad]


@pytest.fixture(params=["gated and padded", "gated", "position only", "padded", "none"])
def sequence(request: pytest.FixtureRequest, generator: torch.Generator) -> Sequence:
    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).requires_grad_()

    gated, padded = "gated" in request.param, "padded" in request.param
    position = draw(1, HEADS, LENGTH, LENGTH) if gated or "position" in request.param else None
    lengths = torch.tensor([LENGTH, 70])[:, None, None, None]
    key_bias = torch.zeros(CLIPS, 1, 1, LENGTH).masked_fill(torch.arange(LENGTH) >= lengths, -torch.inf)
    bias = LogitBias(position, draw(CLIPS, HEADS, LENGTH, 1) if gated else None, key_bias if padded else None)
    return Sequence(*(draw(CLIPS, HEADS, LENGTH, WIDTH) for _ in range(3)), bias)


def written_down(query: Tensor, key: Tensor, value: Tensor, bias: LogitBias, dropout: float) -> Tensor:
    logits = torch.einsum("bhqe,bhke->bhqk", query, key) / WIDTH**0.5
    position = 0.0 if bias.position is None else bias.position
    gate = 1.0 if bias.gate is None else bias.gate
    weights = (logits + gate * position + (0.0 if bias.key is None else bias.key)).exp()
    return torch.einsum("bhqk,bhke->bhqe", weights / weights.sum(-1, keepdim=True), value)


@pytest.mark.parametrize("way", ["_attend_by_products", "_attend_by_convolutions", "_attend_in_one_kernel"])
def test_every_way_to_attend_gives_the_formula_and_its_gradients(way: str, sequence: Sequence) -> None:
    weights = torch.randn(CLIPS, HEADS, LENGTH, WIDTH, generator=torch.Generator().manual_seed(1))
    wanted, found = (attend(*sequence, 0.0) for attend in (written_down, getattr(attention, way)))
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=0)
    truth, ours = (torch.autograd.grad((mixed * weights).sum(), sequence.leaves()) for mixed in (wanted, found))
    for gradient, true in zip(ours, truth, strict=True):
        torch.testing.assert_close(gradient, true, atol=1e-4, rtol=1e-4)


def test_the_one_kernel_ignores_what_lies_beyond_the_keys(sequence: Sequence) -> None:
    position, key = (
        None if part is None else functional.pad(part, (0, 4), value=9.0)
        for part in (sequence.bias.position, sequence.bias.key)
    )
    wider = sequence.bias._replace(position=position, key=key)
    found = attention._attend_in_one_kernel(*sequence[:3], wider, 0.0)
    torch.testing.assert_close(found, attention._attend_in_one_kernel(*sequence, 0.0))


def test_the_encoder_says_the_same_with_convolutions(
    tiny_encoder: BeatsEncoder, monkeypatch: pytest.MonkeyPatch, generator: torch.Generator
) -> None:
    log_mel = torch.randn(2, 208, 128, generator=generator)
    padding = torch.arange(104) >= torch.tensor([[104], [60]])
    said = {}
    for choice in (False, True):
        monkeypatch.setattr(products, "BY_CONVOLUTION", choice)
        said[choice] = tiny_encoder(log_mel, padding).last
    torch.testing.assert_close(said[True], said[False], atol=2e-5, rtol=0)


@pytest.mark.parametrize("visible", [None, torch.arange(0, 48, 4).expand(2, -1)])
def test_the_position_bias_is_made_once_for_all_layers_and_lies_row_by_row(
    visible: Tensor | None, tiny_encoder: BeatsEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    original = transformer.distance_buckets
    monkeypatch.setattr(transformer, "distance_buckets", lambda *key: made.append(key) or original(*key))
    tiny_encoder(torch.zeros(2, 98, 128), visible=visible)
    assert len(made) == 1 and len(tiny_encoder.transformer.layers) == 2
    bias = tiny_encoder.transformer.position_bias(48, visible)
    assert bias is not None and bias.is_contiguous()
