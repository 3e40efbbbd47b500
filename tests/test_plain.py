"""The plain BEATs that benches of speed stand against makes the same numbers as the reference and as ours."""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from tiny import draws, make_base, parts
from torch import Tensor, nn

from sonar.model.encoder import BeatsEncoder, EncoderConfig
from sonar.model.layer import TransformerConfig
from sonar.model.masking import random_mask

ROOT = Path(__file__).resolve().parents[1]
PATCHES = 24  # of 48 frames


def loaded(path: str) -> ModuleType:
    name = path.replace("/", "_").removesuffix(".py")
    spec = importlib.util.spec_from_file_location(name, ROOT / path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    return importlib.import_module("plain_weights")


@pytest.fixture
def plain(weights: ModuleType) -> ModuleType:
    return importlib.import_module("plain")


@pytest.fixture
def log_mel() -> Tensor:
    return torch.randn(3, 48, 128, generator=draws())


def padded(*lengths: int) -> Tensor:
    return torch.arange(PATCHES) >= torch.tensor(lengths)[:, None]


def gradients(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.grad for name, value in module.named_parameters() if value.grad is not None}


@pytest.mark.timeout(60)
def test_the_plain_models_reproduce_the_golden_vectors(weights: ModuleType) -> None:
    adapter, template = loaded("tests/golden/adapter.py"), loaded("tests/golden/check_template.py")

    def load(*arguments: Any) -> Any:
        model = adapter.load(*arguments)
        tokenizer = None if model.tokenizer is None else weights.plain_tokenizer(model.tokenizer)
        return model._replace(encoder=weights.plain_encoder(model.encoder), tokenizer=tokenizer)

    shared = {name: getattr(adapter, name) for name in ("extract_features", "get_labels", "hidden_states")}
    report = template.Report()
    template.check_set(SimpleNamespace(load=load, **shared), str(ROOT / "tests/golden/cases"), report)
    assert report.n >= 28 and report.bad == 0


def test_the_plain_base_equals_ours(weights: ModuleType) -> None:
    ours = BeatsEncoder(EncoderConfig()).initialise(draws()).eval()
    log_mel = torch.randn(1, 98, 128, generator=draws())
    with torch.no_grad():
        wanted, found = ours(log_mel).last, weights.plain_encoder(ours)(log_mel).last
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=0)


def test_plain_and_our_gradients_are_equal(weights: ModuleType, log_mel: Tensor) -> None:
    ours = make_base().encoder
    theirs = weights.plain_encoder(ours)
    padding, factors = padded(PATCHES, 17, 9), torch.randn(3, PATCHES, 32, generator=draws(1))
    for encoder in (ours, theirs):
        (encoder(log_mel, padding).last * factors)[~padding].sum().backward()
    wanted, found = weights.plain_names(gradients(ours)), gradients(theirs)
    assert found.keys() == wanted.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, wanted[name].view_as(gradient), atol=2e-4, rtol=1e-4, msg=name)


def test_a_plain_pass_over_all_patches_predicts_what_ours_does_from_the_visible_ones(
    weights: ModuleType, log_mel: Tensor
) -> None:
    base = make_base()
    tokenizer, predictor = parts(base)
    padding = padded(PATCHES, 17, 9)
    mask = random_mask(padding, 0.75, draws())
    encoded = base.encoder(log_mel, padding, mask.visible, mask.visible_padding).last
    wanted = predictor(encoded, mask, padding)  # (N, K)
    everywhere = weights.plain_encoder(base.encoder)(log_mel, padding | mask.masked).last  # (B, L, D)
    found = weights.plain_predictor(predictor)(everywhere, mask.masked, padding)
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=0)
    real = ~padding
    assert torch.equal(
        weights.plain_tokenizer(tokenizer).codes(log_mel, padding)[real], tokenizer.codes(log_mel, padding)[real]
    )


@pytest.mark.parametrize("change", [{"layer_drop": 0.1}, {"norm_first": True, "deep_norm": False}])
def test_layers_that_no_bench_needs_are_refused(plain: ModuleType, change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not in the plain stack: give the defaults"):
        plain.PlainTransformer(TransformerConfig(**change))
