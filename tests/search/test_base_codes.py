"""Base codes are counted once: a run that is given them ends bit for bit as one that counts by itself."""

from pathlib import Path

import numpy as np
import pytest
import torch
from stores import write_store
from tiny import STEPS, Recorder, changed, make_base, make_config, make_mixture, make_store, parts, tensors

from sonar.checkpoint import save_checkpoint
from sonar.data.stream import ClipStore
from sonar.search import base_codes as shared
from sonar.search.base_codes import keep_base_codes, kept_base_codes
from sonar.train import adapt as adapting
from sonar.train import churn
from sonar.train.adapt import Mixture, adapt
from sonar.train.churn import base_codes
from sonar.train.stages import local_worker


def run(mixture: Mixture) -> tuple[dict[str, torch.Tensor], list[float]]:
    """Weights after a whole adaptation, and the churn that it reported."""
    recorder = Recorder()
    config = make_config(training__churn_every=STEPS).adapt_config()
    found = adapt(make_base(), mixture, config, recorder.hooks(), local_worker())
    churned = [r.metrics["label_churn"] for r in recorder.reports if "label_churn" in r.metrics]
    return tensors(found.encoder, found.tokenizer, found.predictor), churned


def test_a_run_that_is_given_the_codes_ends_bit_for_bit_as_one_that_counts_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mixture = make_mixture()
    alone, churned = run(mixture)
    tokenizer, _ = parts(make_base())
    given = base_codes(tokenizer, mixture.prior, mixture.pool_index, make_config().training.clip_seconds)

    def forbidden(*of: object) -> None:
        raise AssertionError("the codes of the base were counted again")

    monkeypatch.setattr(adapting, "clip_codes", forbidden)
    shared_run, same = run(mixture._replace(base_codes=given))
    assert changed(alone, shared_run) == [] and same == churned and len(churned) == 1


def test_they_are_kept_once_and_read_back_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = make_base()
    save_checkpoint(base, tmp_path / "base")
    shards = write_store(tmp_path / "prior", make_store("prior", 6))
    (tmp_path / "embeddings" / "prior").mkdir(parents=True)
    np.save(tmp_path / "embeddings" / "prior" / "rows.npy", np.arange(6))
    assert kept_base_codes(tmp_path / "embeddings") is None
    keep_base_codes(tmp_path / "embeddings", tmp_path / "base", shards, 0.5)
    found = kept_base_codes(tmp_path / "embeddings")
    expected = base_codes(parts(base)[0], ClipStore(shards), np.arange(6), 0.5)
    assert found is not None and all(map(torch.equal, found, expected))
    monkeypatch.setattr(shared, "load_checkpoint", None)  # it would be called
    keep_base_codes(tmp_path / "embeddings", tmp_path / "base", shards, 0.5)


def test_another_number_of_clips_is_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = shared._path(tmp_path / "e")
    monkeypatch.setattr(shared, "CHURN_CLIPS", churn.CHURN_CLIPS + 1)
    assert shared._path(tmp_path / "e") != one
