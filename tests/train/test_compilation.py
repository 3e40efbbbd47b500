"""Compiled layers: the same training but for rounding, in the steps alone, and a refusal where nothing compiles."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import changed
from torch import nn
from torch._dynamo.utils import counters

from sonar.data.batch import Batch
from sonar.model import compilation
from sonar.model.compilation import layers_compiled
from sonar.model.layer import TransformerConfig
from sonar.model.transformer import Transformer
from sonar.train.loop import Stage, run_stage
from sonar.train.objective import LossTerms, Moment
from sonar.train.optim import OptimConfig

WIDTH = 256  # its weights are enough for the product by convolution
DRY: dict[str, Any] = {"dropout": 0.0, "attention_dropout": 0.0}


class Sum(nn.Module):
    """An objective: how far what a stack makes of a ramp is along it."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = Transformer(TransformerConfig(num_layers=2, width=WIDTH, ffn_width=WIDTH, num_heads=2, **DRY))
        self.stack.initialise(torch.Generator().manual_seed(0))

    def forward(self, batch: Batch, generator: torch.Generator) -> LossTerms:
        clips, length = batch.waveform.shape
        ramp = torch.linspace(-1.0, 1.0, clips * length * WIDTH).view(clips, length, WIDTH)
        (out,) = self.stack(ramp, None, self.stack.position_bias(length))
        mean = (out * ramp).mean()
        return LossTerms({"mean": mean}, {"mean": mean.detach()})

    def counts(self, batch: Batch) -> dict[str, int]:
        return dict.fromkeys(("mean", "total"), len(batch.clip_ids))

    def after_step(self, assignment: None, generator: torch.Generator, moment: Moment) -> dict[str, float]:
        return {}


class Ones:
    def batch(self, step: int) -> Batch:
        return ones(2, 5)


def ones(clips: int, length: int) -> Batch:
    nothing = torch.zeros(clips, length, dtype=torch.bool)
    return Batch(torch.ones(clips, length), nothing, nothing[:, 0], tuple(map(str, range(clips))))


def stage(objective: Sum, **fields: Any) -> Stage:
    plain = {
        "name": "sum",
        "objective": objective,
        "trained": (objective,),
        "stream": Ones(),
        "num_steps": 3,
        "optim": OptimConfig(lr=1e-3),
        "seed": 0,
        "compile_layers": True,
    }
    return Stage(**plain | fields)


def gradients(batch: Batch, *, compiled: bool, recompute: bool = False) -> dict[str, torch.Tensor]:
    """Of the parameters of a stack in training."""
    objective = Sum()
    objective.stack.recompute = recompute
    with layers_compiled(compiled):
        objective(batch, torch.Generator()).total.backward()
    return {name: value.grad for name, value in objective.named_parameters() if value.grad is not None}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="there is no C++ compiler")
def test_gradients_differ_by_rounding_alone_and_another_size_compiles_nothing_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where activations are computed again, which is bitwise the same as keeping them."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    graphs: list[int] = []
    for batch in (ones(2, 60), ones(2, 71), ones(2, 54)):  # enough rows for the product by convolution
        plain, compiled = gradients(batch, compiled=False), gradients(batch, compiled=True)
        assert changed(plain, compiled)  # rounding shows that other kernels ran
        for name, value in plain.items():
            torch.testing.assert_close(compiled[name], value, rtol=1e-3, atol=1e-6, msg=name)
        assert changed(compiled, gradients(batch, compiled=True, recompute=True)) == []
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[0] > 0 and graphs == graphs[:1] * 3


def test_layers_are_compiled_in_the_steps_and_not_in_what_is_measured_between_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[str] = []

    def told(forward: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        calls.append(forward.__qualname__)
        return forward

    def measure() -> dict[str, float]:
        before = len(calls)
        objective(Ones().batch(0), torch.Generator())
        return {"compiled": float(len(calls) - before)}

    monkeypatch.setattr(compilation, "_compiled", told)
    objective, measured = Sum(), list[float]()
    measuring = stage(objective, measure=measure, measure_every=1)
    run_stage(measuring, lambda report, state: measured.append(report.metrics["compiled"]))
    assert calls == ["TransformerLayer.forward"] * 2 * 3
    assert measured == [0.0] * 3


def test_where_nothing_compiles_that_is_said_before_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ValueError, match=r"no C\+\+ compiler 'no-such-compiler'.*CXX.*training.compile_layers=false"):
        run_stage(stage(Sum()), lambda report, state: None)
