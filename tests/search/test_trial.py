"""A trial's folder belongs to one run."""

import json
from pathlib import Path

import pytest

from sonar.config import override
from sonar.experiment import TrialConfig
from sonar.search.prepare import Prepared
from sonar.search.trial import run_trial

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
