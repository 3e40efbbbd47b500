"""The bench of the model stage's step: both sides do the same work, and its parts add up."""

import importlib
import time
from pathlib import Path
from types import ModuleType

import pytest
import torch
from tiny import draws, encoder_config

from sonar.data.batch import Batch
from sonar.model.inputs import model_inputs

BENCH = Path(__file__).resolve().parents[1] / "bench"
NUM_CODES = 16


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("steps")


@pytest.fixture
def batch(bench: ModuleType) -> Batch:
    batch: Batch = bench.noise_batch(3, 8000)
    batch.padding[1, 5000:] = True
    return batch


def test_the_plain_step_has_the_same_loss_and_gradient(bench: ModuleType, batch: Batch) -> None:
    models = bench.base_models(encoder_config(), NUM_CODES)
    plain = bench.plain_models(models)
    inputs = model_inputs(batch.waveform, batch.padding, models.student.config.fbank)
    ours = bench.objective_of(models).losses(inputs, models.tokenizer.codes(*inputs), batch.is_replay, draws()).total
    theirs = bench.plain_loss(plain, inputs, plain.tokenizer.codes(*inputs), draws())
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    ours.backward()
    theirs.backward()
    for name in ("fc1.weight", "attention.gate.weight", "attention_norm.bias"):
        for stack in ("student", "predictor"):
            one, other = (
                getattr(side, stack).get_parameter(f"transformer.layers.0.{name}").grad for side in (models, plain)
            )
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-3)


def test_the_parts_of_a_step_add_up_to_it(bench: ModuleType, batch: Batch) -> None:
    models = bench.base_models(encoder_config(), NUM_CODES)
    for side in (models, bench.plain_models(models)):
        step = bench.TimedStep(side, batch)
        step("fp32")
        began = time.perf_counter()
        seconds = step("bf16")
        assert sum(seconds.values()) <= time.perf_counter() - began
        assert seconds.keys() == set(bench.PARTS) and min(seconds.values()) > 0


def test_every_step_of_the_loop_is_timed_but_the_first(bench: ModuleType, batch: Batch) -> None:
    seconds = bench.loop_seconds(bench.base_models(encoder_config(), NUM_CODES), batch, 2, "fp32", warmups=1)
    assert len(seconds) == 2 and min(seconds) > 0


def test_a_step_needs_the_products_of_its_layers(bench: ModuleType) -> None:
    models, batch = bench.base_models(encoder_config(), NUM_CODES), bench.noise_batch(1, 8000)
    of_one, of_two = bench.step_flop(models, batch), bench.step_flop(models, bench.noise_batch(2, 8000))
    assert of_two == pytest.approx(2 * of_one, rel=0.02)  # the mask token is projected once
    width, patches, visible = 32, 24, 6
    layers = 2 * visible * (4 * width**2 + 2 * width * 64)  # multiply-adds of an encoder's two layers, no attention
    assert of_one > 4 * 2 * layers + 3 * 2 * patches * width**2
