"""Whole adaptations with the options of the model stage, and the controls that presets make of them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import STEPS, Recorder, changed, make_base, make_config, make_mixture, tensors

from sonar.checkpoint import load_state, save_state
from sonar.data.batch import Batch
from sonar.data.stream import MixedStream
from sonar.experiment import apply_preset
from sonar.train.adapt import Mixture, adapt
from sonar.train.settings import TrainingConfig
from sonar.train.stages import Worker

SHORT: dict[str, Any] = {"training__tokenizer_steps": 0}


@pytest.fixture(scope="module")
def mixture() -> Mixture:
    return make_mixture()


def adapted_tensors(mixture: Mixture, recorder: Recorder, hooks: dict[str, Any], **changes: Any) -> Any:
    config = make_config(**SHORT, **changes).adapt_config()
    adapted = adapt(make_base(), mixture, config, recorder.hooks(**hooks), Worker())
    return tensors(adapted.encoder, adapted.tokenizer, adapted.predictor)


def test_distillation_heads_are_resumed_bit_by_bit_and_then_dropped(mixture: Mixture, tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "distill__through_predictor": True,
        "distill__model_layers": [1, 2],
        "distill__model_pass": "full",
        "distill__l2sp_weight": 0.1,
    }
    paths: list[Path] = []

    def save(state: dict[str, Any]) -> None:
        paths.append(tmp_path / f"{len(paths)}.pt")
        save_state(state, paths[-1])

    whole = adapted_tensors(mixture, Recorder(), {"save": save, "save_every": STEPS // 2}, **options)
    state = load_state(paths[0])
    assert len(state["models"]["distillation_heads"]) == 2 * 6  # two linear layers and a norm for each of two layers
    recorder = Recorder()
    resumed = adapted_tensors(mixture, recorder, {"state": state}, **options)
    assert changed(whole, resumed) == [] and len(recorder.reports) == STEPS // 2
    assert {"feature_drift", "weight_drift"} <= recorder.reports[-1].metrics.keys()
    assert whole.keys() == tensors(make_base().encoder, make_base().tokenizer, make_base().predictor).keys()


def test_the_kept_encoder_lies_between_the_old_and_the_trained_one(mixture: Mixture) -> None:
    found = {alpha: adapted_tensors(mixture, Recorder(), {}, training__interpolation=alpha) for alpha in (0, 0.25, 1)}
    start = tensors(make_base().encoder, make_base().tokenizer, make_base().predictor)
    is_encoder = [name for name in start if name.startswith("0.")]
    assert not set(changed(start, found[0])) & set(is_encoder)
    assert len(changed(start, found[1])) > len(is_encoder) / 2
    for name in is_encoder:
        expected = start[name] + 0.25 * (found[1][name] - start[name])
        torch.testing.assert_close(found[0.25][name], expected, rtol=1e-6, atol=1e-8)
    heads = [name for name in start if name not in is_encoder]
    assert all(torch.equal(found[0][name], found[1][name]) for name in heads)


MODEL = {"masked_prediction"}
TOKENIZER = {"alignment", "commitment"}


@pytest.mark.parametrize(
    ("preset", "tokenizer_terms", "model_terms", "corpora"),
    [
        ("dcpt-random-replay", set(), set(), {"new", "prior"}),
        ("only-trss", set(), set(), {"new", "prior"}),
        ("only-distillation", {"tokenizer_drift"}, {"feature_drift"}, {"new"}),
        ("only-occ", {"contrastive"}, set(), {"new"}),
        ("no-trss", {"tokenizer_drift", "contrastive"}, {"feature_drift"}, {"new", "prior"}),
        ("no-occ", {"tokenizer_drift"}, {"feature_drift"}, {"new", "prior"}),
        ("no-tokenizer-distillation", {"contrastive"}, {"feature_drift"}, {"new", "prior"}),
        ("no-model-distillation", {"tokenizer_drift", "contrastive"}, set(), {"new", "prior"}),
        ("sonar-paper", {"tokenizer_drift", "contrastive"}, {"feature_drift"}, {"new", "prior"}),
        ("sonar-robust", {"tokenizer_drift", "contrastive"}, {"feature_drift"}, {"new", "prior"}),
        ("l2sp", set(), {"weight_drift"}, {"new"}),
        ("cassle", set(), {"feature_drift"}, {"new"}),
        ("dcpt-interpolated", set(), set(), {"new"}),
    ],
)
def test_a_control_trains_with_its_terms_on_its_audio(
    preset: str,
    tokenizer_terms: set[str],
    model_terms: set[str],
    corpora: set[str],
    mixture: Mixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorder, heard = Recorder(), set[str]()
    batch = MixedStream.batch

    def listen(stream: MixedStream, step: int) -> Batch:
        found = batch(stream, step)
        heard.update(name.split("/")[0] for name in found.clip_ids)
        return found

    monkeypatch.setattr(MixedStream, "batch", listen)
    short = {f"training__{name}_steps": 2 for name in ("tokenizer", "model", "predictor")}
    config = apply_preset(make_config(**short), preset).adapt_config()
    adapt(make_base(), mixture, config, recorder.hooks(), Worker())
    every = TOKENIZER | MODEL | {"tokenizer_drift", "contrastive", "feature_drift", "weight_drift"}
    found = {report.stage: every & report.metrics.keys() for report in recorder.reports}
    assert found == {"tokenizer": TOKENIZER | tokenizer_terms, "predictor": MODEL, "model": MODEL | model_terms}
    assert heard == corpora


def test_a_layer_that_the_base_lacks_is_refused_before_anything_is_trained(mixture: Mixture) -> None:
    recorder = Recorder()
    with pytest.raises(ValueError, match="model_layers names layer 9, but the encoder has 2"):
        adapted_tensors(mixture, recorder, {}, distill__model_layers=[9])
    assert recorder.reports == []


def test_an_interpolation_outside_its_line_is_refused() -> None:
    with pytest.raises(ValueError, match=r"interpolation is 1.5; it must lie in \[0, 1\]"):
        TrainingConfig(interpolation=1.5)
