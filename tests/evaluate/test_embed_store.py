"""The actor pool gives what the same computation in this process gives."""

from pathlib import Path

import numpy as np
import pytest
from stores import write_store
from tiny import NUM_CODES, make_base, make_store

from sonar.checkpoint import load_checkpoint, load_tokenizer, save_checkpoint
from sonar.data.stream import ClipStore, batch_clips
from sonar.evaluate import embed_store
from sonar.evaluate.embed import embed_layers, tokenize_batches
from sonar.evaluate.features import FeatureCache

SECONDS = (0.5, 0.31, 1.0, 1.4, 0.77)


@pytest.mark.parametrize(
    ("num_clips", "cluster", "expected"),
    [
        (10, {"CPU": 8.0}, 1),
        (1023, {"CPU": 8.0}, 1),
        (1024, {"CPU": 8.0}, 2),
        (10**6, {"CPU": 8.0}, 8),
        (10**6, {"CPU": 8.0, "GPU": 2.0}, 2),
        (10**6, {"CPU": 0.5}, 1),
    ],
)
def test_actors_are_as_many_as_devices_and_clips_keep_busy(
    num_clips: int, cluster: dict[str, float], expected: int
) -> None:
    assert embed_store.num_actors(num_clips, cluster) == expected


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_actors_give_the_features_of_one_process_in_the_order_asked_for(
    local_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed_store, "BLOCK_CLIPS", 8)
    monkeypatch.setattr(embed_store, "CLIPS_PER_ACTOR", 16)  # two actors, five blocks
    store = write_store(tmp_path / "shards", make_store("birds", 40, seconds=SECONDS))
    save_checkpoint(make_base(), tmp_path / "base")
    rows = np.random.default_rng(0).permutation(40)[:37]
    embed_store.embed_store(tmp_path / "base", store, rows, 1.0, tmp_path)
    here = tokenize_batches(load_tokenizer(tmp_path / "base"), batch_clips(ClipStore(store), rows, 1.0))
    embeddings, counts = (np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in here._fields)
    assert embeddings.dtype == np.float32 and counts.dtype == np.uint16
    assert counts.shape == (37, NUM_CODES)
    np.testing.assert_allclose(embeddings, here.embeddings, atol=1e-5)
    assert np.array_equal(counts, here.code_counts)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_cache_that_the_actors_filled_is_read_without_a_forward_pass(
    local_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed_store, "BLOCK_CLIPS", 8)
    store = write_store(tmp_path / "shards", make_store("birds", 20, seconds=SECONDS))
    save_checkpoint(make_base(), tmp_path / "base")
    rows = np.random.default_rng(0).permutation(20)
    encoder, clips = load_checkpoint(tmp_path / "base").encoder, ClipStore(store)
    expected = embed_layers(encoder, batch_clips(clips, rows, 1.0))
    encoder.register_forward_hook(lambda *_: pytest.fail("a forward pass"))
    features = FeatureCache(encoder, tmp_path / "cache")
    embed_store.fill_cache(features, tmp_path / "base", clips, rows, 1.0)
    found = features.layers(clips, rows, 1.0)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    monkeypatch.setattr(embed_store, "embed_store", lambda *_, **__: pytest.fail("made twice"))
    embed_store.fill_cache(features, tmp_path / "base", clips, rows, 1.0)
