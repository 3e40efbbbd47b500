"""The learning rate against its closed form, and the rates that are refused."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sonar.train.optim import OptimConfig, learning_rate, make_optimizer


@given(
    num_steps=st.integers(1, 500),
    warmup=st.floats(0, 0.9),
    lr=st.floats(1e-6, 1.0),
    share=st.floats(0, 1),
)
def test_the_rate_rises_linearly_and_never_leaves_its_bounds(
    num_steps: int, warmup: float, lr: float, share: float
) -> None:
    config = OptimConfig(lr=lr, final_lr=lr * share, warmup_fraction=warmup)
    rates = [learning_rate(step, num_steps, config) for step in range(num_steps)]
    num_rising = math.ceil(warmup * num_steps)
    assert rates[:num_rising] == pytest.approx([lr * (step + 1) / num_rising for step in range(num_rising)])
    assert all(0 < rate or config.final_lr == 0 for rate in rates)
    assert max(rates) <= lr * (1 + 1e-12)
    falling = rates[num_rising:]
    assert all(later <= earlier for earlier, later in pairwise(falling))


@pytest.mark.parametrize("num_steps", [2, 10, 100, 1000])
def test_the_rate_ends_at_the_final_one_and_halves_half_way(num_steps: int) -> None:
    config = OptimConfig(lr=1e-3, final_lr=1e-5, warmup_fraction=0.0)
    assert learning_rate(0, num_steps, config) == pytest.approx(1e-3)
    assert learning_rate(num_steps - 1, num_steps, config) == pytest.approx(1e-5)
    # The cosine is odd around its middle, so opposite steps average to the mean of both ends.
    for step in range(num_steps):
        opposite = learning_rate(num_steps - 1 - step, num_steps, config)
        assert learning_rate(step, num_steps, config) + opposite == pytest.approx(1e-3 + 1e-5)


def test_the_first_step_of_a_warm_up_has_its_share_and_the_last_one_the_peak() -> None:
    config = OptimConfig(lr=1e-4, warmup_fraction=0.05)
    rates = [learning_rate(step, 400, config) for step in range(400)]
    assert rates[0] == pytest.approx(1e-4 / 20)
    assert rates[19] == rates[20] == pytest.approx(1e-4)
    assert rates[399] == pytest.approx(config.final_lr)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lr": 0.0}, r"lr is 0.0; a learning rate is > 0"),
        ({"tokenizer_lr": 0.0}, r"tokenizer_lr is 0.0; a learning rate is > 0"),
        ({"head_lr": -1.0}, r"head_lr is -1.0; a learning rate is > 0"),
        ({"final_lr": 1.0}, r"final_lr 1.0 must lie in \[0, lr = 0.0001\]"),
        ({"warmup_fraction": 1.0}, r"warmup_fraction 1.0 must lie in \[0, 1\)"),
        ({"clip_norm": 0.0}, r"clip_norm 0.0 must be > 0"),
    ],
)
def test_rates_that_cannot_train_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OptimConfig(**values)


def test_the_first_step_of_adam_moves_every_weight_by_the_rate() -> None:
    weight = nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))
    optimizer = make_optimizer([weight], OptimConfig(lr=0.1))
    (weight * torch.tensor([5.0, -0.01, 2.0])).sum().backward()
    optimizer.step()
    assert weight.tolist() == pytest.approx([0.9, -1.9, 2.9], abs=1e-6)
