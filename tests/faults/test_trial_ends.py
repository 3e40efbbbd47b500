"""How a trial's process ends whatever happens in it: a result, a reason, or a pause when its storage is full."""

import errno
from pathlib import Path
from typing import Any

import pytest
import torch
from ray.train import ControllerError

from sonar.checkpoint import load_state, save_state
from sonar.config import to_dict
from sonar.experiment import TrialConfig
from sonar.search import trainable as module
from sonar.search.prepare import Prepared
from sonar.search.trainable import CHECKPOINT, ENDED, FAILED, PAUSED, trainable
from sonar.search.trial import TrialResult
from sonar.train.loop import NonFiniteLossError
from sonar.train.memory import BatchTooLargeError
from sonar.train.stages import TrainingStopped, never


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    reports = list[dict[str, Any]]()
    monkeypatch.setattr(module.tune, "report", reports.append)
    return reports


def run(monkeypatch: pytest.MonkeyPatch, folder: Path, trial: Any) -> None:
    monkeypatch.setattr(module, "run_trial", trial)
    config = {"trial_id": "trial-000", "config": to_dict(TrialConfig())}
    trainable(config, prepared=Prepared(*"abcde"), folder=str(folder), threads=1, is_stopping=never)


def raises(error: BaseException) -> Any:
    def trial(config: TrialConfig, prepared: Prepared, folder: Path, *rest: Any, **named: Any) -> TrialResult:
        folder.mkdir(parents=True)
        raise error

    return trial


@pytest.mark.parametrize(
    ("error", "key", "said"),
    [
        (NonFiniteLossError("loss is nan"), FAILED, "NonFiniteLossError: loss is nan"),
        (BatchTooLargeError("a micro-batch of 8 fits"), FAILED, "BatchTooLargeError: a micro-batch of 8 fits"),
        (ValueError("first line\n  no class is left"), FAILED, "ValueError: no class is left"),
        (KeyError(), FAILED, "KeyError"),
        (TrainingStopped("stopped after step 3 of model"), PAUSED, "stopped after step 3 of model"),
        (OSError(errno.ENOSPC, "No space left on device"), PAUSED, "OSError: [Errno 28] No space left on device"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), PAUSED, "OSError: [Errno 122] Disk quota exceeded"),
        (OSError(errno.EACCES, "Permission denied"), FAILED, "PermissionError: [Errno 13] Permission denied"),
    ],
)
def test_what_happens_in_a_trial_is_how_it_ends(
    error: BaseException, key: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reported: list[Any]
) -> None:
    run(monkeypatch, tmp_path, raises(error))
    assert reported == [{ENDED: True, key: said}]
    kept = tmp_path / "trials" / "trial-000" / "error.txt"
    assert kept.exists() is not isinstance(error, TrainingStopped)
    assert not kept.exists() or "Traceback" in kept.read_text()


def test_workers_that_could_not_start_are_left_to_tune_which_begins_the_trial_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reported: list[Any]
) -> None:
    with pytest.raises(ControllerError):
        run(monkeypatch, tmp_path, raises(ControllerError(RuntimeError("no room for the workers"))))
    assert reported == []


def test_a_result_is_told_with_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reported: list[Any]
) -> None:
    run(monkeypatch, tmp_path, lambda *given, **named: TrialResult({"plasticity": 1.5}, "c", {}))
    assert reported == [{ENDED: True, "plasticity": 1.5, CHECKPOINT: "c"}]


def test_a_full_disk_pauses_the_trial_and_leaves_its_last_good_state(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch, reported: list[Any]
) -> None:
    """torch says RuntimeError, not OSError, when the disk is full: both are understood."""

    def trial(config: TrialConfig, prepared: Prepared, folder: Path, *rest: Any, **named: Any) -> TrialResult:
        for step in range(1, 20):
            save_state({"step": step, "weights": torch.zeros(step * 50_000)}, folder / "state.pt")
        raise AssertionError("the disk was never full")

    run(monkeypatch, small_disk, trial)
    (end,) = reported
    assert end.keys() == {ENDED, PAUSED}
    state = load_state(small_disk / "trials" / "trial-000" / "state.pt")
    assert len(state["weights"]) == state["step"] * 50_000 and 5 < state["step"] < 19
    assert [path.name for path in (small_disk / "trials" / "trial-000").iterdir() if "partial" in path.name] == []
