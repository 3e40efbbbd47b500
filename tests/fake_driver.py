"""A sweep's driver without Ray: our searcher and callbacks of Tune, and a loop that does to them what Tune does.

Trials are made up: a few steps, each of which leaves its state in the trial's folder, and results that are a function
of the configuration alone.
"""

import json
import math
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sonar.config import from_dict
from sonar.experiment import TrialConfig
from sonar.files import write_whole_text
from sonar.search.journal import Journal
from sonar.search.run import JOURNAL_FILE
from sonar.search.searcher import TrialSource
from sonar.search.space import Sweep, choice, log_uniform, uniform
from sonar.search.stopping import StopRequest
from sonar.search.trainable import CHECKPOINT, ENDED, FAILED, PAUSED
from sonar.search.tuner import Driver, _JournalCallback, _SourceSearcher

SEED, STEPS, SLOTS = 5, 3, 2
SWEEP = Sweep(
    domain="bio",
    base=TrialConfig(),
    space={
        "sampling.replay_ratio": uniform(0.1, 0.7),
        "distill.model_weight": log_uniform(0.1, 100.0),
        "codebook.anchor": choice("centroid", "closest", "probrandom"),
    },
    objectives={"plasticity": "max", "forgetting_rate": "min"},
    num_trials=11,  # more than Optuna's 8 random ones
)
SETTINGS: dict[str, Any] = {
    "config": {},
    "space": {},
    "objectives": SWEEP.objectives,
    "seed": SEED,
    "forgetting_limit": SWEEP.forgetting_limit,
    "anchors": SWEEP.anchors,
    "num_trials": SWEEP.num_trials,
}


class FakeTrial:
    """What Tune keeps of a trial, as far as our callbacks look at it, and the trial itself."""

    error_file = None

    def __init__(self, config: dict[str, Any], folder: Path) -> None:
        self.config, self.folder = config, folder / "trials" / config["trial_id"]
        self.last_result: dict[str, Any] = {}
        self.folder.mkdir(parents=True, exist_ok=True)

    def step(self, is_stopping: bool) -> dict[str, Any]:
        """One step, or the end: the result if all steps are done, a pause if it is to stop."""
        state = self.folder / "state"
        done = int(state.read_text()) if state.exists() else 0
        if done == STEPS:
            return {ENDED: True, **judge(from_dict(TrialConfig, self.config["config"]), self.folder)}
        with (self.folder / "work.log").open("a") as log:
            log.write(f"{done + 1}\n")
        write_whole_text(state, str(done + 1))
        if is_stopping:
            return {ENDED: True, PAUSED: f"stopped after step {done + 1}"}
        return {"step": done + 1, "model/loss": 1.0 / (done + 1)}


def judge(config: TrialConfig, folder: Path) -> dict[str, Any]:
    """What a trial ends with: some diverge, some are told what is not finite, some lack an objective."""
    ratio, pull = config.sampling.replay_ratio, math.log10(config.distill.model_weight or 0.01)
    if config.codebook.anchor == "probrandom" and ratio > 0.4:
        return {FAILED: "NonFiniteLossError: loss is nan"}
    told = {"plasticity": 8 - pull - 3 * ratio, "forgetting_rate": 30 * (0.7 - ratio) - 2 * pull}
    if config.codebook.anchor == "probrandom":
        told["plasticity"] = math.inf
    return {**told, CHECKPOINT: str(folder / "checkpoint")}


def drive(folder: Path) -> None:
    """Run or resume the sweep in `folder` to its end, or until it is asked to stop."""
    with Journal(folder / JOURNAL_FILE) as journal:
        if not journal.state.settings:
            journal.append("sweep_created", **SETTINGS)
        stop = StopRequest(folder)
        driver = Driver(TrialSource(SWEEP, journal, SEED), journal, stop, lambda: None)
        loop(driver, folder)


def loop(driver: Driver, folder: Path) -> None:
    """Tune's loop: fill the slots, let every running trial take a step, hand on what it says."""
    searcher, callback = _SourceSearcher(driver), _JournalCallback(driver, None, folder / "trials")
    running: list[Any] = []
    while True:
        while len(running) < SLOTS and isinstance(config := searcher.suggest("of tune"), dict):
            running.append(FakeTrial(config, folder))
            callback.on_trial_start(0, running, running[-1])
        if not running:
            return
        for trial in list(running):
            trial.last_result = trial.step(driver.stop())
            callback.on_trial_result(0, running, trial, trial.last_result)
            if ENDED in trial.last_result:
                callback.on_trial_complete(0, running, trial)
                running.remove(trial)


def in_process(work: Callable[..., None], *arguments: Any) -> multiprocessing.process.BaseProcess:
    """Start `work` in a process of its own, forked from one that has imported all this: it starts at once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fake_driver"])
    process = context.Process(target=work, args=arguments, daemon=True)
    process.start()
    return process


def work_done(folder: Path) -> dict[str, list[int]]:
    """The steps that each trial took, in order, the repeated ones too."""
    logs = (folder / "trials").glob("*/work.log")
    return {log.parent.name: [int(line) for line in log.read_text().split()] for log in logs}


def main() -> None:
    """For a process that is to be killed by hand: `python fake_driver.py FOLDER`."""
    import sys

    drive(Path(sys.argv[1]))
    print(json.dumps(work_done(Path(sys.argv[1]))), os.getpid())


if __name__ == "__main__":
    main()
