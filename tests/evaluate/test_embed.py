"""Embeddings belong to their clips, whatever stands beside them in a batch."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from tiny import NUM_CODES, RATE, MemoryStore, make_base, make_store

from sonar.data.stream import batch_clips
from sonar.evaluate import embed as embed_module
from sonar.evaluate.embed import embed_batches, tokenize_batches, write_embeddings
from sonar.model.encoder import BeatsEncoder
from sonar.model.fbank import log_mel
from sonar.model.tokenizer import Tokenizer

SECONDS = (0.5, 0.31, 1.0, 1.4, 0.77)


@pytest.fixture(scope="module")
def encoder() -> BeatsEncoder:
    return make_base().encoder


@pytest.fixture(scope="module")
def store() -> MemoryStore:
    return make_store("birds", 40, seconds=SECONDS)


def embed(encoder: BeatsEncoder, store: MemoryStore, rows: list[int], clip_seconds: float = 1.0) -> np.ndarray:
    return embed_batches(encoder, batch_clips(store, np.array(rows), clip_seconds))


def test_a_clips_embedding_does_not_depend_on_its_neighbours(encoder: BeatsEncoder, store: MemoryStore) -> None:
    together = embed(encoder, store, list(range(40)))
    for row in range(len(SECONDS)):
        alone = embed(encoder, store, [row])
        assert alone[0] == pytest.approx(together[row], abs=1e-5)
        assert np.abs(together[row] - together[row + 1]).max() > 1e-3


def test_rows_come_in_the_order_asked_for(encoder: BeatsEncoder, store: MemoryStore) -> None:
    order = np.random.default_rng(0).permutation(40)
    together = embed(encoder, store, list(range(40)))
    assert embed(encoder, store, order.tolist()) == pytest.approx(together[order], abs=1e-5)


def test_a_clip_without_padding_is_the_mean_of_its_patches(encoder: BeatsEncoder, store: MemoryStore) -> None:
    for row, middle in ((0, slice(None)), (2, slice(None)), (3, slice(3200, 3200 + RATE))):  # 1.4 s around its middle
        wave = torch.from_numpy(store.waveforms[row][middle])[None]
        with torch.no_grad():
            expected = encoder(log_mel(wave, encoder.config.fbank)).last[0].mean(0)
        assert embed(encoder, store, [row])[0] == pytest.approx(expected.numpy(), abs=1e-5)


def test_the_length_of_the_padding_is_the_clips_own(encoder: BeatsEncoder, store: MemoryStore) -> None:
    """A clip of 0.31 s is padded to 0.5 s, however long the clips may be at most."""
    short = [embed(encoder, store, [1], clip_seconds=seconds)[0] for seconds in (0.5, 1.0, 10.0)]
    assert np.array_equal(short[0], short[1]) and np.array_equal(short[1], short[2])


def test_a_training_encoder_is_put_into_evaluation(store: MemoryStore) -> None:
    dropping = make_base(dropout=0.5).encoder
    calm = embed(dropping.eval(), store, [0, 1])
    assert np.array_equal(embed(dropping.train(), store, [0, 1]), calm)


def test_a_folder_becomes_one_row_per_good_clip_and_names_the_bad_one(encoder: BeatsEncoder, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in [f"{bird}/{number}" for bird in ("owl", "wren") for number in range(10)]:
        path = tmp_path / "corpus" / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.1 * rng.standard_normal(RATE // 2), RATE)
    (tmp_path / "corpus" / "owl" / "broken.wav").write_bytes(b"no audio")
    scan = write_embeddings(encoder, tmp_path / "corpus", tmp_path / "out.parquet", 1.0)
    assert [Path(bad.path).name for bad in scan.quarantine] == ["broken.wav"]
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column_names == ["clip_id", "path", "embedding"]
    assert len(set(table["clip_id"].to_pylist())) == table.num_rows == len(scan.clips) == 20
    for path, embedding in zip(table["path"].to_pylist(), table["embedding"].to_pylist(), strict=True):
        wave, _ = soundfile.read(path, dtype="float32")
        with torch.no_grad():
            expected = encoder(log_mel(torch.from_numpy(wave)[None], encoder.config.fbank)).last[0].mean(0)
        assert embedding == pytest.approx(expected.tolist(), abs=1e-4)


def test_a_folder_that_is_not_there_is_named(encoder: BeatsEncoder, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no corpus at .*missing"):
        write_embeddings(encoder, tmp_path / "missing", tmp_path / "out.parquet", 1.0)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    found = make_base().tokenizer
    assert found is not None
    return found


def test_a_tokenizers_embeddings_are_those_of_its_encoder(tokenizer: Tokenizer, store: MemoryStore) -> None:
    rows = [7, 1, 30]
    features = tokenize_batches(tokenizer, batch_clips(store, np.array(rows), 1.0))
    assert np.array_equal(features.embeddings, embed(tokenizer.encoder, store, rows))


def test_code_counts_are_those_of_the_clips_own_patches(tokenizer: Tokenizer, store: MemoryStore) -> None:
    rows = [0, 2, 1]  # 0.5 s and 1 s fill their bucket, 0.31 s does not
    counts = tokenize_batches(tokenizer, batch_clips(store, np.array(rows), 1.0)).code_counts
    assert counts.dtype == np.uint16
    for row, count in zip(rows[:2], counts[:2], strict=True):
        mel = log_mel(torch.from_numpy(store.waveforms[row])[None], tokenizer.encoder.config.fbank)
        assert np.array_equal(count, np.bincount(tokenizer.codes(mel)[0].numpy(), minlength=NUM_CODES))
    assert counts.sum(1).tolist() == [24, 48, 15]  # 15 of 24: a patch counts unless all of it is padded


def test_a_clip_of_more_patches_than_a_count_can_hold_is_refused(
    tokenizer: Tokenizer, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed_module, "MAX_PATCHES", 23)
    with pytest.raises(ValueError, match="a clip has 24 patches, at most 23; lower clip_seconds"):
        tokenize_batches(tokenizer, batch_clips(store, np.array([0]), 1.0))
