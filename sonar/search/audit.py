"""Runs of given configurations through the door of trials, and what seeds of one configuration say of its noise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import torch

from sonar.evaluate.bootstrap import Resampling
from sonar.evaluate.noise import Noise, measure_noise
from sonar.evaluate.record import read_evaluation, split_folder
from sonar.evaluate.run_folders import SPLIT, base_beside, check_same_base, check_seeds, read_run
from sonar.experiment import TrialConfig
from sonar.search.prepare import Prepared, read_baseline
from sonar.search.progress import Say, StepLines
from sonar.search.repeats import seeded
from sonar.search.trial import run_trial


@dataclass(frozen=True, kw_only=True)
class AuditConfig:
    """How noise is measured.

    Attributes:
        seeds: runs of the configuration, under the seeds 0, 1, ...
        jobs: runs at a time.
        resampling: of the recordings.
    """

    seeds: int = 5
    jobs: int = 1
    resampling: Resampling = field(default_factory=Resampling)

    def __post_init__(self) -> None:
        """Refuse what gives no spread."""
        if self.seeds < 2:
            raise ValueError(f"{self.seeds} seeds have no spread; give 2 or more, better 5")
        if self.jobs < 1:
            raise ValueError(f"jobs is {self.jobs}; give 1 or more")


class Outcome(NamedTuple):
    """How a run ended.

    Attributes:
        metrics: of a finished run, None of a failed one.
        reason: why it failed.
    """

    metrics: dict[str, float] | None
    reason: str | None


def audit_seeds(config: TrialConfig, prepared: Prepared, folder: Path, audit: AuditConfig, say: Say) -> Noise:
    """Run a configuration under several seeds and measure its noise; runs that are there are not repeated.

    Args:
        config: of every run, but for the seeds.
        prepared: what all runs share.
        folder: gets a folder per seed, `seed-0` and so on.
        audit: how many, and how it is measured.
        say: hears lines of progress.

    Raises:
        ValueError: fewer than two runs have a result, with the reasons of the others; or as `run_all`.
    """
    configs = {f"seed-{seed}": seeded(config, seed) for seed in range(audit.seeds)}
    outcomes = run_all(configs, prepared, folder, audit.jobs, say)
    failed = {name: outcome.reason for name, outcome in outcomes.items() if outcome.reason is not None}
    runs = {name: read_evaluation(split_folder(folder / name, SPLIT)) for name in outcomes if name not in failed}
    return measure_noise(runs, failed, read_baseline(prepared.baseline), audit.resampling)


def audit_existing(folders: Sequence[Path], base: Path | None, resampling: Resampling) -> Noise:
    """Noise from finished runs of one configuration.

    Args:
        folders: of the runs.
        base: folder of the base's evaluation; None: `anchor-base` of the sweep that all runs belong to.
        resampling: of the recordings.

    Raises:
        FileNotFoundError: a run or the base has no evaluation.
        ValueError: the runs differ in more than their seeds, two of the same seed, or the bases differ.
    """
    runs = [read_run(folder) for folder in folders]
    check_same_base(*runs)
    check_seeds(*runs)
    base = base or base_beside(*runs)
    if base is None:
        raise FileNotFoundError("no evaluation of the base beside the runs; give the folder of one by --base")
    return measure_noise({run.name: run.evaluation for run in runs}, {}, read_run(base).evaluation, resampling)


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
    ended = _here(configs, prepared, folder, say) if jobs == 1 else _in_processes(configs, prepared, folder, jobs)
    for name, outcome in ended:
        outcomes[name] = outcome
        say(f"{len(outcomes)}/{len(configs)} {name}{'' if outcome.reason is None else f' failed: {outcome.reason}'}")
    return {name: outcomes[name] for name in configs}


def _here(
    configs: Mapping[str, TrialConfig], prepared: Prepared, folder: Path, say: Say
) -> Iterator[tuple[str, Outcome]]:
    for name, config in configs.items():
        yield name, _run(config, prepared, folder / name, say)


def _in_processes(
    configs: Mapping[str, TrialConfig], prepared: Prepared, folder: Path, jobs: int
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
        return Outcome(None, f"{type(error).__name__}: {error}")
    return Outcome(metrics, None)
