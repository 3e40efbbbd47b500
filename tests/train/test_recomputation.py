"""Activations that are computed again in the backward pass: the same training, in less memory."""

import weakref
from typing import Any

import pytest
import torch
from tiny import changed, encoder_config, make_base, make_config, make_mixture, tensors

from sonar.model.layer import TransformerLayer
from sonar.model.transformer import Transformer
from sonar.train.adapt import adapt
from sonar.train.stages import Hooks, Worker


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_adaptation_is_bitwise_the_same(precision: str) -> None:
    """With dropout, which must draw the same when a layer is computed again."""

    def adapted(**changes: Any) -> dict[str, torch.Tensor]:
        config = make_config(training__precision=precision, training__accumulation=2, **changes).adapt_config()
        hooks = Hooks(report=lambda report: None, save=lambda state: None)
        end = adapt(make_base(dropout=0.1), make_mixture(), config, hooks, Worker())
        return tensors(end.encoder, end.tokenizer, end.predictor)

    kept = adapted()
    assert changed(kept, adapted(training__checkpoint_activations=True)) == []
    start = make_base(dropout=0.1)
    assert len(changed(kept, tensors(start.encoder, start.tokenizer, start.predictor))) > 50


@pytest.mark.parametrize("recompute", [False, True])
def test_what_a_layer_makes_outlives_the_forward_pass_only_where_it_is_kept(recompute: bool) -> None:
    transformer = Transformer(encoder_config()).train()
    transformer.initialise(torch.Generator().manual_seed(0))
    transformer.recompute = recompute
    made: list[weakref.ref[torch.Tensor]] = []
    for layer in transformer.layers:
        assert isinstance(layer, TransformerLayer)
        layer.fc1.register_forward_hook(lambda module, given, out: made.append(weakref.ref(out)))
    (out,) = transformer(torch.ones(2, 5, 32), None, transformer.position_bias(5))
    assert [one() is not None for one in made] == [not recompute] * 2
    out.sum().backward()
    assert len(made) == (4 if recompute else 2)
    with torch.no_grad():  # as a teacher and in an evaluation
        transformer(torch.ones(2, 5, 32), None, transformer.position_bias(5))
    assert len(made) == (6 if recompute else 4)
