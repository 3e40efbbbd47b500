"""One trial in a process of Ray Tune: what it reports while it runs, and the way in which it ends."""

from __future__ import annotations

import contextlib
import errno
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from ray import tune
from ray.train import ControllerError
from ray.tune.integration.ray_train import TuneReportCallback

from sonar.config import from_dict
from sonar.experiment import TrialConfig
from sonar.files import write_whole_text
from sonar.search.prepare import Prepared
from sonar.search.trial import TrialResult, run_trial
from sonar.search.watch import CURVE_TERMS
from sonar.train.launch import Around
from sonar.train.loop import StepReport
from sonar.train.stages import TrainingStopped

# Keys of the last report of a trial, beside its metrics.
ENDED, CHECKPOINT, FAILED, PAUSED = "has_ended", "checkpoint_path", "failed_because", "paused_because"
REPORT_INTERVAL_S = 2.0  # of one trial's metrics to the driver; the end of a stage and points of its curve go at once


def trainable(
    config: dict[str, Any], *, prepared: Prepared, folder: str, threads: int, is_stopping: Callable[[], bool]
) -> None:
    """One trial in its own process; it ends with a result, the reason why there is none, or to be gone on with."""
    torch.set_num_threads(threads)
    trial_folder = Path(folder) / "trials" / config["trial_id"]
    try:
        result = _run(from_dict(TrialConfig, config["config"]), prepared, trial_folder, is_stopping)
    except TrainingStopped as stop:
        end: dict[str, Any] = {PAUSED: str(stop)}
    except ControllerError:  # its workers could not be placed or started: Tune begins it again, as after a death
        raise
    except Exception as error:  # whatever it is, it is why this trial has no result; only a death is worth a restart
        end = {PAUSED if is_disk_full(error) else FAILED: _one_line(error)}
        _keep_traceback(error, trial_folder)
    else:
        end = {**result.metrics, CHECKPOINT: result.checkpoint}
    tune.report({ENDED: True, **end})


def _run(config: TrialConfig, prepared: Prepared, folder: Path, is_stopping: Callable[[], bool]) -> TrialResult:
    sent = 0.0

    def report(step: StepReport) -> None:
        nonlocal sent
        is_due = step.step == step.num_steps or time.monotonic() - sent >= REPORT_INTERVAL_S
        if is_due or step.metrics.keys() & CURVE_TERMS:
            sent = time.monotonic()
            tune.report(step.by_stage() | {"step": step.step})

    callbacks = (TuneReportCallback(),) if config.training.num_workers > 1 else ()
    around = Around(callbacks=callbacks, is_stopping=is_stopping)
    return run_trial(config, prepared, folder, report, around, keep_candidates=True)


def is_disk_full(error: BaseException) -> bool:
    """Whether an error is that of a storage without room: no fault of the trial, which can go on when there is room.

    torch raises an error of its own in the place of the system's, which is looked for behind it.
    """
    behind: BaseException | None = error
    while behind is not None:
        if isinstance(behind, OSError) and behind.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        behind = behind.__cause__ or behind.__context__
    return False


def _one_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[-1].strip()}" if text else type(error).__name__


def _keep_traceback(error: BaseException, folder: Path) -> None:
    """Beside the trial's other files, where its storage still takes it."""
    with contextlib.suppress(OSError):
        write_whole_text(folder / "error.txt", "".join(traceback.format_exception(error)))
