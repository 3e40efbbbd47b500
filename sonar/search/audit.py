"""Runs of given configurations through the door of trials, and what seeds of one configuration say of its noise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import torch

from sonar.config import override
from sonar.experiment import TrialConfig
from sonar.search.prepare import Prepared
from sonar.search.progress import Say, StepLines
from sonar.search.trial import run_trial


class Outcome(NamedTuple):
    """How a run ended.

    Attributes:
        folder: of the run.
        metrics: of a finished run, None of a failed one.
        reason: why it failed.
    """

    folder: str
    metrics: dict[str, float] | None
    reason: str | None


def seeded(config: TrialConfig, seed: int) -> TrialConfig:
    """The same configuration under another seed: of the draw of the clips, their order, crops, masks and new heads."""
    return override(config, {"training.seed": seed, "sampling.seed": seed})


def run_all(
    configs: Mapping[str, TrialConfig], prepared: Prepared, folder: Path, jobs: int, say: Say
) -> dict[str, Outcome]:
    """Run each configuration in a folder of its name; what is finished is kept, what was cut off goes on.

    Args:
        configs: by name.
        prepared: what all runs share.
        folder: that holds the runs' folders.
        jobs: runs at a time; more than one train in processes of their own with one thread each.
        say: hears a line per run, and the steps where they train in this process.

    Returns:
        The outcome of every run. One that diverged, or that cannot be drawn or scored, is a failure with its reason.

    Raises:
        ValueError: several jobs of several workers each.
    """
    if jobs > 1 and any(config.training.num_workers > 1 for config in configs.values()):
        raise ValueError(f"{jobs} runs at a time with training.num_workers above 1; set one of them to 1")
    outcomes: dict[str, Outcome] = {}
    for name, outcome in (_here if jobs == 1 else _in_processes)(configs, prepared, folder, jobs, say):
        outcomes[name] = outcome
        say(f"{len(outcomes)}/{len(configs)} {name}{'' if outcome.reason is None else f' failed: {outcome.reason}'}")
    return {name: outcomes[name] for name in configs}


def _here(
    configs: Mapping[str, TrialConfig], prepared: Prepared, folder: Path, jobs: int, say: Say
) -> Iterator[tuple[str, Outcome]]:
    for name, config in configs.items():
        yield name, _run(config, prepared, folder / name, say)


def _in_processes(
    configs: Mapping[str, TrialConfig], prepared: Prepared, folder: Path, jobs: int, say: Say
) -> Iterator[tuple[str, Outcome]]:
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        waiting = {pool.submit(_run_alone, config, prepared, folder / name): name for name, config in configs.items()}
        for done in as_completed(waiting):
            yield waiting[done], done.result()


def _run_alone(config: TrialConfig, prepared: Prepared, folder: Path) -> Outcome:
    torch.set_num_threads(1)
    return _run(config, prepared, folder, lambda line: None)


def _run(config: TrialConfig, prepared: Prepared, folder: Path, say: Say) -> Outcome:
    try:
        metrics = run_trial(config, prepared, folder, StepLines(say)).metrics
    except (ValueError, FloatingPointError) as error:
        return Outcome(str(folder), None, f"{type(error).__name__}: {error}")
    return Outcome(str(folder), metrics, None)
