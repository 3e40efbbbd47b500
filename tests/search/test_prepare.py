"""From audio to a mixture: no evaluation clip in it, whatever it is called, and a manifest that says what it is."""

import csv
import json
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
from tiny import RATE, make_config

from sonar.checkpoint import load_tokenizer
from sonar.config import override
from sonar.data.corpora import load_corpus
from sonar.data.manifest import Clip
from sonar.data.sampling import NO_STRATUM, Retrieval
from sonar.data.stream import ClipStore, batch_clips
from sonar.data.synth import write_synth_corpus
from sonar.evaluate.embed import tokenize_batches
from sonar.experiment import TrialConfig
from sonar.search import trial
from sonar.search.embeddings import read_embeddings
from sonar.search.mixture import read_mixture, write_mixture
from sonar.search.prepare import Prepared, Sources, prepare
from sonar.search.trial import run_trial

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

TINY_BASE = {
    "num_layers": 1, "width": 32, "ffn_width": 32, "num_heads": 2, "patch_width": 16, "position_kernel": 4,
    "num_codes": 16, "code_width": 8, "projection_steps": 1, "tokenizer_steps": 1, "model_steps": 1, "batch_size": 4,
    "clip_seconds": 0.5,
}  # fmt: skip


def config(**changes: object) -> TrialConfig:
    tiny = {f"base.pretrain.{key}": value for key, value in TINY_BASE.items()}
    return override(make_config(), tiny | {"probe.clip_seconds": 0.5, "sampling.num_clusters": 4} | changes)


class Storage(NamedTuple):
    """A storage, the corpora that are prepared in it, and what was said last."""

    folder: Path
    sources: Sources
    said: list[str]

    def prepare(self) -> Prepared:
        self.said.clear()
        return prepare(config(), self.sources, self.folder, self.said.append)


@pytest.fixture(scope="module")
def storage(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Storage:
    """Two embedded corpora; a test clip of the new one also stands in the prior training split, quieter and as Ogg."""
    root = tmp_path_factory.mktemp("prepare")
    for name in ("bio", "prior"):
        write_synth_corpus(name, root / name, clips_per_class=6)
    held_out = next(clip for clip in load_corpus(root / "bio", domain="bio").clips if clip.split == "test")
    wave, _ = soundfile.read(held_out.path, dtype="float32")
    soundfile.write(root / "prior" / "leak.ogg", 0.5 * wave[700:], RATE)
    with (root / "prior" / "metadata.csv").open("a", newline="") as file:
        csv.DictWriter(file, fields(root / "prior")).writerow(
            {"file": "leak.ogg", "label": "rain", "split": "train", "source_id": "another"}
        )
    return Storage(root / "runs", Sources("bio", str(root / "bio"), (str(root / "prior"),)), [])


def fields(corpus: Path) -> list[str]:
    return (corpus / "metadata.csv").read_text().splitlines()[0].split(",")


@pytest.fixture(scope="module")
def prepared(storage: Storage) -> Prepared:
    return storage.prepare()


def test_a_re_encoded_evaluation_clip_is_in_no_store_and_on_the_list(storage: Storage, prepared: Prepared) -> None:
    assert "prior/leak.ogg" not in {clip.clip_id for clip in ClipStore(prepared.prior_shards).clips}
    (path,) = (storage.folder / "cache").glob("near-duplicates-*.json")
    of_new, (pair,) = json.loads(path.read_text())
    assert of_new == []
    assert pair["clip_id"] == "prior/leak.ogg"
    assert pair["evaluation_clip_id"].startswith("bio/")
    assert pair["offset_s"] == pytest.approx(700 / RATE, abs=0.01)


@pytest.mark.parametrize("retrieval", get_args(Retrieval))
def test_a_mixture_is_of_training_clips_that_no_evaluation_split_shares(prepared: Prepared, retrieval: str) -> None:
    drawn = read_mixture(config(**{"sampling.retrieval": retrieval}).sampling, prepared).mixture
    held_out = [clip for store in (drawn.new, drawn.prior) for clip in store.clips if clip.split != "train"]
    assert held_out
    sides = ((drawn.new, drawn.new_index), (drawn.prior, drawn.prior_index), (drawn.prior, drawn.pool_index))
    for store, index in sides:
        clips = [store.clips[row] for row in index]
        assert {clip.split for clip in clips} == {"train"}
        for attribute in ("sha256", "group"):
            assert not {getattr(c, attribute) for c in clips} & {getattr(c, attribute) for c in held_out}


def test_the_written_mixture_is_the_draw(prepared: Prepared, tmp_path: Path) -> None:
    drawn = read_mixture(config(**{"sampling.uniform_fraction": 0.25}).sampling, prepared)
    for path in (tmp_path / "a.parquet", tmp_path / "b.parquet"):
        write_mixture(drawn, path)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    rows = pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert [row.pop("source") for row in rows] == ["new"] * len(drawn.draw.new_index) + ["replay"] * len(drawn.draw[1])
    strata = np.concatenate([drawn.draw.new_stratum, drawn.draw.prior_stratum])
    assert [row.pop("stratum") for row in rows] == strata.tolist()
    assert NO_STRATUM in strata
    mixture = drawn.mixture
    clips = [mixture.new.clips[row] for row in mixture.new_index] + [
        mixture.prior.clips[row] for row in mixture.prior_index
    ]
    assert [Clip(**row | {"labels": tuple(row["labels"])}) for row in rows] == clips


class Stopped(Exception):
    """In place of training."""


def test_a_trial_trains_on_the_clips_that_it_writes_down(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the whole prior corpus, whose natural share is then that of every batch."""
    given: list[Any] = []

    def adapt(*arguments: object) -> None:
        given.extend(arguments)
        raise Stopped

    monkeypatch.setattr(trial, "adapt", adapt)
    with pytest.raises(Stopped):
        run_trial(config(**{"sampling.retrieval": "all"}), prepared, tmp_path / "run", lambda step: None)
    _, mixture, adapt_config, *_ = given
    rows = pq.read_table(tmp_path / "run" / "mixture.parquet").to_pylist()
    sides = (("new", mixture.new, mixture.new_index), ("replay", mixture.prior, mixture.prior_index))
    for source, store, index in sides:
        assert [row["clip_id"] for row in rows if row["source"] == source] == [store.clips[i].clip_id for i in index]
    num_new, num_prior = (len(ClipStore(path).index(split="train")) for path in prepared[:2])
    assert len(mixture.prior_index) == num_prior
    assert adapt_config.replay_ratio == num_prior / (num_prior + num_new)


def test_embeddings_are_those_of_the_base_and_mapped_into_memory(prepared: Prepared) -> None:
    stores = ClipStore(prepared.new_shards), ClipStore(prepared.prior_shards)
    tokenizer = load_tokenizer(prepared.base)
    for store, side in zip(stores, read_embeddings(Path(prepared.embeddings), stores), strict=True):
        assert isinstance(side.pool.embeddings, np.memmap) and isinstance(side.pool.code_counts, np.memmap)
        assert np.array_equal(side.rows, store.index(split="train"))
        here = tokenize_batches(tokenizer, batch_clips(store, side.rows, config().training.clip_seconds))
        np.testing.assert_allclose(side.pool.embeddings, here.embeddings, atol=1e-5)
        assert np.array_equal(side.pool.code_counts, here.code_counts)
        assert side.pool.labels == [store.clips[row].labels for row in side.rows]


def test_a_second_preparation_finds_everything(storage: Storage, prepared: Prepared) -> None:
    before = {path: path.stat().st_mtime_ns for path in (storage.folder / "cache").rglob("*")}
    assert storage.prepare() == prepared
    assert {path: path.stat().st_mtime_ns for path in (storage.folder / "cache").rglob("*")} == before
    assert not [line for line in storage.said if "embedding" in line or "scoring" in line or "pre-training" in line]
    assert any("1 training clips left out" in line for line in storage.said)
