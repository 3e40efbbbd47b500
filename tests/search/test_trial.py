"""A trial's folder belongs to one run."""

import json
from pathlib import Path

import pytest
import torch

from sonar.config import override
from sonar.experiment import TrialConfig
from sonar.search.prepare import Prepared
from sonar.search.trial import kept_features, run_trial

PREPARED = Prepared("shards-a", "shards-b", "base-c", "baseline-d.json", "embeddings-e.npz")


def never(step: object) -> None:
    raise AssertionError("a finished trial trained again")


def finished(folder: Path) -> Path:
    with pytest.raises(FileNotFoundError):  # it claims the folder, then finds no embeddings to train on
        run_trial(TrialConfig(), PREPARED, folder, never)
    result = {"metrics": {"plasticity": 1.5}, "checkpoint": "somewhere", "worst": {}}
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
    return folder


def test_a_finished_trial_gives_its_result_without_training_again(tmp_path: Path) -> None:
    result = run_trial(TrialConfig(), PREPARED, finished(tmp_path / "run"), never)
    assert result.metrics == {"plasticity": 1.5}


def test_the_same_audio_in_a_moved_storage_is_the_same_run(tmp_path: Path) -> None:
    moved = Prepared(*(f"/elsewhere/{name}" for name in PREPARED))
    assert run_trial(TrialConfig(), moved, finished(tmp_path / "run"), never).checkpoint == "somewhere"


def test_the_same_base_made_in_another_way_is_the_same_run(tmp_path: Path) -> None:
    config = override(TrialConfig(), {"base.pretrain.lr": 1e-5, "base.checkpoint": "base-c"})
    assert run_trial(config, PREPARED, finished(tmp_path / "run"), never).checkpoint == "somewhere"


@pytest.mark.parametrize("other", ["config", "audio", "base"])
def test_a_folder_of_another_run_is_refused(other: str, tmp_path: Path) -> None:
    config = override(TrialConfig(), {"training.seed": 1}) if other == "config" else TrialConfig()
    others = {"audio": {"new_shards": "shards-z"}, "base": {"base": "base-z"}}
    prepared = PREPARED._replace(**others.get(other, {}))
    with pytest.raises(ValueError, match="holds a run of another configuration, audio or base"):
        run_trial(config, prepared, finished(tmp_path / "run"), never)


def test_trials_from_one_base_share_their_features_and_none_are_kept_where_none_may_be(tmp_path: Path) -> None:
    def kept(base: str, gigabytes: float) -> list[Path]:
        prepared = PREPARED._replace(base=base, embeddings=str(tmp_path / "cache" / "embeddings-e"))
        store = kept_features(override(TrialConfig(), {"training.feature_cache_gb": gigabytes}), prepared)
        if store is not None:
            store.keep(f"{len(base)}-{gigabytes}-00", torch.zeros(4, 8, dtype=torch.float16))
        return sorted(tmp_path.rglob("*-00"))

    assert kept("base-c", 0.0) == [] and kept("base-c", 1e-8) == []
    assert len(kept("base-c", 1.0)) == 1 and len(kept("base-c", 2.0)) == 2 and len(kept("base-other", 1.0)) == 3
    assert {path.parents[1].name for path in kept("base-c", 0.0)} == {"features-base-c", "features-base-other"}
    assert {path.parents[2] for path in kept("base-c", 0.0)} == {tmp_path / "cache"}
