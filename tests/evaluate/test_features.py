"""Features are made once, and named by what they are computed from."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import MemoryStore, make_base, make_store

from sonar.data.stream import batch_clips
from sonar.evaluate import features
from sonar.evaluate.embed import embed_batches, embed_layers, embed_patches
from sonar.evaluate.features import FeatureCache, LogMelStatistics
from sonar.evaluate.probes.config import ProbeConfig
from sonar.model.encoder import BeatsEncoder
from sonar.model.fbank import FbankConfig, log_mel
from sonar.model.weights import weights_hash

SECONDS = (0.5, 0.31, 1.0, 1.4, 0.77)
ROWS = np.arange(20)[::-1].copy()


@pytest.fixture(scope="module")
def store() -> MemoryStore:
    return make_store("birds", 20, seconds=SECONDS)


@pytest.fixture
def encoder() -> BeatsEncoder:
    return make_base().encoder


class Passes:
    """Counts the forward passes of an encoder."""

    def __init__(self, encoder: BeatsEncoder) -> None:
        self.count = 0
        encoder.register_forward_hook(self._add)

    def _add(self, *_: Any) -> None:
        self.count += 1


def test_every_layers_mean_is_that_of_its_hidden_states(encoder: BeatsEncoder, store: MemoryStore) -> None:
    layers = embed_layers(encoder, batch_clips(store, ROWS, 1.0))
    assert layers.shape == (20, 2, 32)
    assert np.array_equal(layers[:, -1], embed_batches(encoder, batch_clips(store, ROWS, 1.0)))
    row = int(np.flatnonzero(ROWS == 2)[0])  # 1 s, nothing padded
    with torch.no_grad():
        mel = log_mel(torch.from_numpy(store.waveforms[2])[None], encoder.config.fbank)
        hidden = encoder(mel, return_hidden=True).hidden
    assert layers[row, 0] == pytest.approx(hidden[1][0].mean(0).numpy(), abs=1e-5)


def test_a_second_evaluation_does_no_forward_pass(encoder: BeatsEncoder, store: MemoryStore, tmp_path: Path) -> None:
    passes = Passes(encoder)
    first = FeatureCache(encoder, tmp_path).layers(store, ROWS, 1.0)
    made = passes.count
    assert made > 0
    second = FeatureCache(encoder, tmp_path).layers(store, ROWS, 1.0)
    assert passes.count == made and np.array_equal(first, second)
    assert isinstance(second, np.memmap)
    assert np.array_equal(second, embed_layers(encoder, batch_clips(store, ROWS, 1.0)))


def test_what_changes_a_feature_misses_the_cache(encoder: BeatsEncoder, store: MemoryStore, tmp_path: Path) -> None:
    def entry(
        encoder: BeatsEncoder = encoder, store: MemoryStore = store, rows: Any = ROWS, seconds: float = 1.0
    ) -> str:
        return FeatureCache(encoder, tmp_path).layers_entry(store, rows, seconds)

    nudged = make_base().encoder
    with torch.no_grad():
        nudged.norm.bias[3] += 1e-6
    other_fbank = make_base().encoder
    object.__setattr__(other_fbank.config, "fbank", FbankConfig(mean=12.0))
    assert entry(make_base().encoder) == entry()
    changed = [
        entry(nudged),
        entry(other_fbank),
        entry(seconds=0.5),
        entry(rows=ROWS[:-1]),
        entry(rows=ROWS[::-1]),
        entry(store=MemoryStore([c._replace(sha256="f" * 64) for c in store.clips], store.waveforms)),
    ]
    assert len({entry(), *changed}) == len(changed) + 1


def test_names_and_shapes_are_part_of_the_weights(encoder: BeatsEncoder) -> None:
    swapped = make_base().encoder
    first, second = swapped.transformer.layers[0], swapped.transformer.layers[1]
    swapped.transformer.layers[0], swapped.transformer.layers[1] = second, first
    assert weights_hash(swapped, "c") != weights_hash(encoder, "c") == weights_hash(make_base().encoder, "c")


def test_an_entry_that_was_not_finished_is_made_anew(
    encoder: BeatsEncoder, store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "BLOCK_CLIPS", 8)
    made = features.embed_layers

    def fail(*arguments: Any) -> np.ndarray:
        if len(list(tmp_path.glob(".*.partial/*"))) and fail.calls == 1:  # type: ignore[attr-defined]
            raise KeyboardInterrupt
        fail.calls += 1  # type: ignore[attr-defined]
        return made(*arguments)

    fail.calls = 0  # type: ignore[attr-defined]
    monkeypatch.setattr(features, "embed_layers", fail)
    with pytest.raises(KeyboardInterrupt):
        FeatureCache(encoder, tmp_path).layers(store, ROWS, 1.0)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(features, "embed_layers", made)
    whole = FeatureCache(encoder, tmp_path).layers(store, ROWS, 1.0)
    np.testing.assert_allclose(whole, embed_layers(encoder, batch_clips(store, ROWS, 1.0)), atol=1e-5)


def test_patches_are_those_of_the_clips_and_zero_after_them(
    encoder: BeatsEncoder, store: MemoryStore, tmp_path: Path
) -> None:
    found = FeatureCache(encoder, tmp_path).patches(store, ROWS, 1.0, max_gigabytes=1.0)
    values, padding = found.read()
    means = embed_batches(encoder, batch_clips(store, ROWS, 1.0))
    for row in range(20):
        assert values[row][~padding[row]].mean(0) == pytest.approx(means[row], abs=2e-3)  # half precision
        assert not values[row][padding[row]].any()
    passes = Passes(encoder)
    again = FeatureCache(encoder, tmp_path).patches(store, ROWS, 1.0, max_gigabytes=1.0)
    assert passes.count == 0 and np.array_equal(again.table, found.table)


def test_patches_that_take_too_much_are_refused_before_any_pass(
    encoder: BeatsEncoder, store: MemoryStore, tmp_path: Path
) -> None:
    passes = Passes(encoder)
    with pytest.raises(ValueError, match=r"the patches of 20 clips take 0\.0 GB, more than max_gigabytes = 1e-06"):
        FeatureCache(encoder, tmp_path).patches(store, ROWS, 1.0, max_gigabytes=1e-6)
    assert passes.count == 0


def test_patches_come_batch_by_batch(encoder: BeatsEncoder, store: MemoryStore) -> None:
    buckets = list(embed_patches(encoder, batch_clips(store, ROWS, 1.0)))
    assert len(buckets) == 2  # of half a second and of one
    assert sorted(np.concatenate([bucket.positions for bucket in buckets])) == list(range(20))


def test_log_mel_statistics_are_those_of_the_bands(store: MemoryStore) -> None:
    found = LogMelStatistics(FbankConfig()).of_probe(store, ROWS, ProbeConfig(clip_seconds=1.0))
    for row in (0, 1, 2):  # 0.31 s is padded to 0.5 s, and none of that counts
        bands = log_mel(torch.from_numpy(store.waveforms[row])[None], FbankConfig())[0].numpy()
        expected = np.concatenate([bands.mean(0), bands.std(0)])
        assert found[np.flatnonzero(ROWS == row)[0]] == pytest.approx(expected, abs=1e-5)


def test_without_a_folder_the_same_is_made_and_nothing_kept(
    encoder: BeatsEncoder, store: MemoryStore, tmp_path: Path
) -> None:
    kept, fleeting = FeatureCache(encoder, tmp_path), FeatureCache(encoder, None)
    for probe in ("ridge", "attentive"):
        config = ProbeConfig(probe=probe, clip_seconds=1.0)
        first, second = (cache.of_probe(store, ROWS, config) for cache in (kept, fleeting))
        if probe == "ridge":
            assert np.array_equal(first, second) and not isinstance(second, np.memmap)
        else:
            assert np.array_equal(first.table, second.table) and np.array_equal(first.num_patches, second.num_patches)
