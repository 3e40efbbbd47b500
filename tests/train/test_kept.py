"""What frozen models say of whole clips: the same as they would say now, asked once, and for nothing else."""

import copy
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from tiny import (
    CLIP_SECONDS,
    Recorder,
    changed,
    draws,
    make_base,
    make_config,
    make_mixture,
    make_store,
    parts,
    tensors,
)
from torch import Tensor

from sonar.checkpoint import Checkpoint
from sonar.data.batch import Batch
from sonar.data.stream import MixedStream, Source, StreamConfig
from sonar.model.codebook import CodebookConfig
from sonar.model.encoder import BeatsEncoder
from sonar.model.fbank import log_mel
from sonar.model.inputs import Inputs, model_inputs
from sonar.model.tokenizer import RandomProjectionConfig, RandomProjectionTokenizer, Tokenizer
from sonar.train.adapt import Mixture, adapt
from sonar.train.kept import KeptCodes, KeptFeatures
from sonar.train.model_objective import ModelObjective
from sonar.train.objective import DistillConfig, LossTerms
from sonar.train.stages import Worker
from sonar.train.tokenizer_objective import TokenizerObjective

LENGTHS = (0.5, 0.7, 0.4)  # seconds: whole, longer than a crop, whole and padded
WHOLE = 4  # of the six clips of a side
PARTS = {"tokenizer": "codes", "encoder": "forward"}


class MemoryFeatures:
    """A store that forgets nothing."""

    def __init__(self) -> None:
        self.kept: dict[str, Tensor] = {}

    def read(self, name: str, shape: tuple[int, int]) -> Tensor | None:
        found = self.kept.get(name)
        assert found is None or found.shape == shape
        return found

    def keep(self, name: str, features: Tensor) -> None:
        assert features.dtype == torch.float16
        self.kept[name] = features


class Calls:
    """How many clips passed a model, in which calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, model: Any, name: str) -> None:
        self.sizes: list[int] = []
        inner: Callable[..., Any] = getattr(model, name)

        def counted(log_mel: Tensor, *rest: Any, **named: Any) -> Any:
            self.sizes.append(len(log_mel))
            return inner(log_mel, *rest, **named)

        monkeypatch.setattr(model, name, counted)


def stream_of(batch_size: int = 6, seed: int = 0, clip_seconds: float = CLIP_SECONDS) -> MixedStream:
    new, prior = (Source(make_store(name, 6, seconds=LENGTHS), np.arange(6)) for name in ("new", "prior"))
    config = StreamConfig(batch_size=batch_size, clip_seconds=clip_seconds, replay_ratio=0.5, seed=seed)
    return MixedStream(new, prior, config)


def inputs_of(batch: Batch) -> Inputs:
    return model_inputs(batch.waveform, batch.padding, make_base().encoder.config.fbank)


def alone(compute: Callable[[Tensor, Tensor], Tensor], inputs: Inputs) -> Tensor:
    """The independent truth: every clip by itself."""
    rows = range(len(inputs.padding))
    return torch.cat([compute(inputs.log_mel[i : i + 1], inputs.padding[i : i + 1]) for i in rows])


def random_projection() -> RandomProjectionTokenizer:
    return RandomProjectionTokenizer(RandomProjectionConfig(num_codes=40_000), draws())


@pytest.mark.parametrize("make", [lambda: parts(make_base())[0], random_projection], ids=["int16", "int32"])
def test_codes_are_those_that_the_tokenizer_gives(make: Callable[[], Tokenizer | RandomProjectionTokenizer]) -> None:
    tokenizer, stream = make(), stream_of()
    kept, largest = KeptCodes(tokenizer), 0
    for step in range(4):  # two epochs
        batch = stream.batch(step)
        inputs = inputs_of(batch)
        codes = kept(inputs, batch.keys)
        assert codes.dtype == torch.int64
        assert torch.equal(codes, alone(tokenizer.codes, inputs))
        largest = max(largest, int(codes.max()))
    assert largest > 2**15 or isinstance(tokenizer, Tokenizer)


def test_a_whole_clip_passes_the_tokenizer_once_and_drawn_crops_together_every_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tokenizer, _ = parts(make_base())
    calls, kept, stream = Calls(monkeypatch, tokenizer, "codes"), KeptCodes(tokenizer), stream_of(12)
    for epoch in range(3):
        batch = stream.batch(epoch)
        calls.sizes.clear()
        kept(inputs_of(batch), batch.keys)
        drawn = batch.keys.count(None)
        assert drawn == 2 * (6 - WHOLE)
        assert sorted(calls.sizes) == [*([1] * (12 - drawn) if epoch == 0 else []), drawn]


def test_rows_without_keys_pass_as_the_batch_that_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    base, batch = make_base(), stream_of().batch(0)._replace(keys=())
    tokenizer, _ = parts(base)
    calls = [Calls(monkeypatch, tokenizer, "codes"), Calls(monkeypatch, base.encoder, "forward")]
    store = MemoryFeatures()
    for ask in (KeptCodes(tokenizer), KeptFeatures(base.encoder, store)):
        ask(inputs_of(batch), batch.keys)
        ask(inputs_of(batch), (None,) * 6)
    assert [call.sizes for call in calls] == [[6, 6], [6, 6]]
    assert store.kept == {}


def test_features_are_the_encoders_rounded_to_half_where_a_clip_is_whole() -> None:
    encoder, batch = make_base().encoder, stream_of().batch(0)
    inputs = inputs_of(batch)
    truth, keep = alone(lambda *one: encoder(*one).last, inputs), ~inputs.padding
    store = MemoryFeatures()
    computed, read = (KeptFeatures(encoder, store)(inputs, batch.keys) for _ in range(2))
    assert torch.equal(computed, read)
    for row, key in enumerate(batch.keys):
        own = truth[row][keep[row]]
        expected = own if key is None else own.half().float()
        assert torch.allclose(read[row][keep[row]], expected, atol=0 if key else 1e-5)
    assert len(store.kept) == 6 - batch.keys.count(None)
    assert torch.equal(KeptFeatures(encoder, None)(inputs, batch.keys), encoder(*inputs).last)


def test_what_is_kept_of_a_clip_depends_on_no_neighbour() -> None:
    """Bit by bit, as a run that goes on with nothing kept meets its clips in other batches."""
    base = make_base()
    tokenizer, _ = parts(base)
    met: dict[str, list[Tensor]] = {}
    for seed, batch_size in ((0, 6), (1, 12), (2, 2)):
        stream, store, codes = stream_of(batch_size, seed), MemoryFeatures(), KeptCodes(tokenizer)
        features = KeptFeatures(base.encoder, store)
        for step in range(stream.steps_per_epoch):
            batch = stream.batch(step)
            inputs = inputs_of(batch)
            rows = zip(batch.keys, features(inputs, batch.keys), codes(inputs, batch.keys), strict=True)
            for key, *said in rows:
                if key is not None:
                    met.setdefault(key, []).extend(said)
    assert len(met) == 2 * WHOLE
    for features, codes, *others in met.values():
        assert len(others) == 4
        assert all(torch.equal(other, (features, codes)[index % 2]) for index, other in enumerate(others))


def test_the_front_end_gives_a_clip_the_same_bits_whatever_its_neighbours_are() -> None:
    """On which the property above rests, for clips of more frames than a block has too."""
    fbank = make_base().encoder.config.fbank
    waveform = 0.1 * torch.randn(5, 90_000, generator=draws())
    together = log_mel(waveform, fbank)
    for rows in ([0], [4], [3, 1], [2, 0, 4]):
        assert torch.equal(together[rows], log_mel(waveform[rows], fbank))


def test_another_model_front_end_arithmetic_or_padding_finds_nothing() -> None:
    store, encoder = MemoryFeatures(), make_base().encoder

    def ask(model: BeatsEncoder = encoder, clip_seconds: float = CLIP_SECONDS) -> int:
        """New features for the same audio."""
        before, batch = len(store.kept), stream_of(clip_seconds=clip_seconds).batch(0)
        KeptFeatures(model, store)(inputs_of(batch), batch.keys)
        return len(store.kept) - before

    moved, shifted = make_base().encoder, make_base().encoder
    with torch.no_grad():
        next(moved.parameters()).flatten()[0] += 1e-3
    shifted.config = replace(shifted.config, fbank=replace(shifted.config.fbank, mean=1.0))
    assert ask() > 0 and ask() == 0 and ask(make_base().encoder) == 0
    assert ask(moved) > 0 and ask(shifted) > 0 and ask(clip_seconds=1.0) > 0
    with torch.autocast("cpu", torch.bfloat16):
        assert ask() > 0 and ask() == 0


@pytest.fixture(scope="module")
def mixture() -> Mixture:
    return make_mixture()


class Adapted(NamedTuple):
    """Tensors at the end of a run, and the states that it saved."""

    tensors: dict[str, Tensor]
    states: list[dict[str, Any]]


def adapted(mixture: Mixture, recorder: Recorder, state: dict[str, Any] | None = None, **changes: Any) -> Adapted:
    """A run of three steps of the tokenizer and of the model stage."""
    short = {"training__tokenizer_steps": 3, "training__model_steps": 3, "training__predictor_steps": 0}
    config = make_config(**short | changes).adapt_config()
    states: list[dict[str, Any]] = []
    hooks = recorder.hooks(save=lambda saved: states.append(copy.deepcopy(saved)), save_every=2, state=state)
    result: Checkpoint = adapt(make_base(), mixture, config, hooks, Worker())
    return Adapted(tensors(result.encoder, result.tokenizer, result.predictor), states)


def test_a_run_is_bitwise_the_same_whether_features_were_there_and_wherever_it_was_resumed(mixture: Mixture) -> None:
    store = MemoryFeatures()
    kept = mixture._replace(features=store)
    whole = adapted(kept, Recorder())
    number = len(store.kept)
    assert number > 0
    again = adapted(kept, Recorder())
    assert changed(whole.tensors, again.tensors) == [] and len(store.kept) == number
    (state,) = [s for s in whole.states if 0 < s["stages"]["tokenizer"]["step"] < 3]
    resumed = adapted(mixture._replace(features=MemoryFeatures()), Recorder(), state)  # on a machine that has none
    assert changed(whole.tensors, resumed.tensors) == []


def test_without_a_store_the_losses_are_the_same_but_for_the_rounding(mixture: Mixture) -> None:
    with_store, without = Recorder(), Recorder()
    weight = {"distill__tokenizer_weight": 1e4}
    adapted(mixture._replace(features=MemoryFeatures()), with_store, **weight)
    adapted(mixture, without, **weight)
    pairs = [
        (a.metrics, b.metrics)
        for a, b in zip(with_store.reports, without.reports, strict=True)
        if a.stage == "tokenizer"
    ]
    for rounded, exact in pairs:
        assert rounded["alignment"] == pytest.approx(exact["alignment"], rel=1e-4)
        assert rounded["tokenizer_drift"] == pytest.approx(exact["tokenizer_drift"], rel=1e-2, abs=1e-8)


def test_codes_are_void_when_the_tokenizer_has_moved(mixture: Mixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages in turns: every step of the model has the codes of the tokenizer as it is then."""
    losses, seen = ModelObjective.losses, []

    def checked(self: ModelObjective, inputs: Inputs, codes: Tensor, *rest: Any) -> LossTerms:
        seen.append(codes)
        assert torch.equal(codes, alone(self.tokenizer.codes, inputs))
        return losses(self, inputs, codes, *rest)

    monkeypatch.setattr(ModelObjective, "losses", checked)
    changes = {"schedule": "interleaved", "interleave_steps": 1, "batch_size": 20}
    adapted(mixture, Recorder(), optim__tokenizer_lr=1e-2, **{f"training__{k}": v for k, v in changes.items()})
    assert len(seen) == 3
    assert all((before.sort(0).values != after.sort(0).values).any() for before, after in pairwise(seen))


def test_the_tokenizer_stage_reads_what_it_would_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    base, store, batch = make_base(), MemoryFeatures(), stream_of(12).batch(0)
    tokenizer, _ = parts(base)
    old = copy.deepcopy(base.encoder), copy.deepcopy(tokenizer)
    config = DistillConfig(tokenizer_weight=1.0)
    first, second = (TokenizerObjective(tokenizer, *old, config, CodebookConfig(), store) for _ in range(2))
    expected = first(batch, draws()).terms
    calls = [Calls(monkeypatch, old[0], "forward"), Calls(monkeypatch, old[1].encoder, "forward")]
    found = second(batch, draws()).terms
    assert [call.sizes for call in calls] == [[2 * (6 - WHOLE)]] * 2
    assert {name: float(value) for name, value in found.items()} == {k: float(v) for k, v in expected.items()}
