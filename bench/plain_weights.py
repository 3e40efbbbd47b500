"""Our weights in the plain modules of bench/plain.py, and tensors of ours under their names."""

from __future__ import annotations

from typing import TypeVar

from plain import PlainEncoder, PlainPredictor, PlainTokenizer
from torch import Tensor, nn

from sonar.model.encoder import BeatsEncoder
from sonar.model.predictor import LabelPredictor
from sonar.model.tokenizer import Tokenizer

PlainT = TypeVar("PlainT", bound=nn.Module)


def plain_encoder(ours: BeatsEncoder) -> PlainEncoder:
    """A plain encoder of the same weights, in the same mode."""
    return _filled(PlainEncoder(ours.config), ours)


def plain_tokenizer(ours: Tokenizer) -> PlainTokenizer:
    """A plain tokenizer of the same weights, in the same mode."""
    return _filled(PlainTokenizer(ours.config), ours)


def plain_predictor(ours: LabelPredictor) -> PlainPredictor:
    """A plain predictor of the same weights, in the same mode."""
    return _filled(PlainPredictor(ours.config), ours)


def _filled(plain: PlainT, ours: nn.Module) -> PlainT:
    """Copies of the weights under the plain names."""
    wanted = plain.state_dict()
    named = plain_names(ours.state_dict())
    plain.load_state_dict({name: named[name] for name in wanted})
    return plain.to(next(ours.parameters()).device).train(ours.training)


def plain_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of our modules under the plain modules' names; gradients by our names alike."""
    named: dict[str, Tensor] = {}
    for name, value in state.items():
        if ".qkv." in name:
            named |= {
                name.replace(".qkv.", f".{part}."): third for part, third in zip("qkv", value.chunk(3), strict=True)
            }
        else:
            for ours, plain in _RENAMED.items():
                name = name.replace(ours, plain)
            named[name] = value
    return named


_RENAMED = {
    "position_conv.gain": "position_conv.convolution.parametrizations.weight.original0",
    "position_conv.direction": "position_conv.convolution.parametrizations.weight.original1",
    "position_conv.bias": "position_conv.convolution.bias",
    "codebook.vectors": "vectors",
}
