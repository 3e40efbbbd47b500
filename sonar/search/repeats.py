"""Runs of one configuration under several seeds, as the journal has them; pure.

A repeat is a trial of kind "reeval", which names the trial that it repeats, or of kind "audit", which repeats the trial
of the base configuration wherever the sweep has one. It is no candidate of its own: its results join that trial's.

The run that put a candidate on the front may be there because it was lucky. So it says whom to repeat, and once there
are repeats it is in no mean: the best of several runs is never reported.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import count
from math import hypot
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import t

from sonar.config import from_dict, override
from sonar.evaluate.axis_intervals import AxisIntervals
from sonar.evaluate.run_folders import SEED_KEYS
from sonar.evaluate.seeds import SeedNoise, pool_noise
from sonar.experiment import TrialConfig
from sonar.search.candidates import CONTENDERS, axes_of, contenders, ranks_of
from sonar.search.records import CandidateKey, CandidateRecord, TrialRecord
from sonar.search.state import SweepState

AUDIT, REEVAL = "audit", "reeval"
REPEATS = (AUDIT, REEVAL)


def seeded(config: TrialConfig, seed: int) -> TrialConfig:
    """The same configuration under another seed: of the draw of the clips, their order, crops, masks and new heads."""
    return override(config, dict.fromkeys(SEED_KEYS, seed))


class Repeat(NamedTuple):
    """A trial to run again.

    Attributes:
        of: the trial; None: the base configuration, whatever trial has it.
        seed: of this run.
        config: under that seed.
    """

    of: str | None
    seed: int
    config: TrialConfig

    @property
    def trial_id(self) -> str:
        """Of the repeat."""
        return f"{self.of or AUDIT}-seed-{self.seed}"


def next_repeat(state: SweepState, trial_id: str) -> Repeat:
    """A trial under the next seed that none of its repeats has; the n-th repeat of every trial has the same seed."""
    config = from_dict(TrialConfig, state.trials[trial_id].config)
    taken = {record.seed for record in repeats_of(state, trial_id)}
    seed = next(seed for seed in count(config.training.seed + 1) if seed not in taken)
    return Repeat(trial_id, seed, seeded(config, seed))


def next_audit(state: SweepState, num_seeds: int) -> Repeat | None:
    """The base configuration under the first of its audit's seeds that was not begun; None where all were."""
    config = from_dict(TrialConfig, state.settings["config"])
    first = config.training.seed + 1
    wanted = (Repeat(None, seed, seeded(config, seed)) for seed in range(first, first + num_seeds))
    return next((repeat for repeat in wanted if repeat.trial_id not in state.trials), None)


class Runs(NamedTuple):
    """What the repeats of one candidate gave at its step and alpha.

    Attributes:
        found: of the repeats that have a result there; of the candidate's own run while there is no repeat that has.
        failed: reason by id of the repeats that have none.
        is_own: whether `found` is the candidate's own run.
    """

    found: tuple[CandidateKey, ...]
    failed: dict[str, str]
    is_own: bool


def repeats_of(state: SweepState, trial_id: str) -> list[TrialRecord]:
    """The repeats of a trial, unfinished ones among them, in the order in which they were suggested."""
    return repeats_by_trial(state).get(trial_id, [])


def repeats_by_trial(state: SweepState) -> dict[str, list[TrialRecord]]:
    """The same of every trial that has some."""
    audited = audited_trial(state)
    found: dict[str, list[TrialRecord]] = {}
    for record in state.trials.values():
        of = audited if record.kind == AUDIT else record.of
        if of is not None:
            found.setdefault(of, []).append(record)
    return found


def audited_trial(state: SweepState) -> str | None:
    """The trial whose configuration was audited, but for the seeds; None where nothing was, or the sweep lacks it."""
    audit = next((record for record in state.trials.values() if record.kind == AUDIT), None)
    if audit is None:
        return None
    wanted = without_keys(audit.config, SEED_KEYS)
    tried = (record for record in state.trials.values() if record.kind in CONTENDERS)
    return next((r.trial_id for r in tried if without_keys(r.config, SEED_KEYS) == wanted), None)


def runs_of(state: SweepState, keys: Iterable[CandidateKey]) -> dict[CandidateKey, Runs]:
    """The finished repeats of candidates."""
    repeats = repeats_by_trial(state)
    return {key: _runs(state, key, repeats.get(key.trial_id, [])) for key in keys}


def _runs(state: SweepState, key: CandidateKey, repeats: list[TrialRecord]) -> Runs:
    found, failed = [], {}
    for record in repeats:
        there = key._replace(trial_id=record.trial_id)
        if there in state.candidates:
            found.append(there)
        elif record.is_finished:
            failed[record.trial_id] = record.reason or f"no result at step {key.step}"
    return Runs(tuple(found) or (key,), failed, is_own=not found)


def values_of(state: SweepState, runs: Runs) -> np.ndarray:
    """(S, 2) plasticity and forgetting rate of the runs that have a result."""
    return np.asarray([axes_of(state.candidates[key]) for key in runs.found], dtype=np.float64)


def is_repeated(state: SweepState) -> bool:
    """Whether any trial was re-evaluated; an audit alone says nothing of the front."""
    return any(record.kind == REEVAL and record.is_finished for record in state.trials.values())


def seed_noise(state: SweepState) -> SeedNoise | None:
    """What another seed changes, from the ends of all trials that have repeats, and of the audit; None before that."""
    ends: dict[str, list[tuple[float, float]]] = {}
    audited = audited_trial(state)
    repeated = {record.of for record in state.trials.values()} | {audited}
    for record in state.trials.values():
        group = record.of or ((audited or AUDIT) if record.kind == AUDIT else record.trial_id)
        if record.status == "told" and record.last_step and (record.kind in REPEATS or group in repeated):
            ends.setdefault(group, []).append((record.metrics["plasticity"], record.metrics["forgetting_rate"]))
    return pool_noise(np.asarray(values) for values in ends.values())


def audit_noise(state: SweepState) -> SeedNoise | None:
    """What the audit alone says; None before two of its runs have a result."""
    told = [record.metrics for record in state.trials.values() if record.kind == AUDIT and record.status == "told"]
    return pool_noise([np.asarray([[run["plasticity"], run["forgetting_rate"]] for run in told])])


def mean_candidates(state: SweepState) -> list[CandidateRecord]:
    """The contenders; where the front was re-evaluated with the means over their repeats in place of their own axes.

    An interval joins what recordings change, as its runs' own intervals say, and what seeds change, by Student's t, as
    independent errors. A candidate without repeats is as it was.
    """
    candidates = contenders(state)
    noise = seed_noise(state) if is_repeated(state) else None
    if noise is None:
        return candidates
    runs = runs_of(state, [candidate.key for candidate in candidates])
    return [_mean(state, candidate, runs[candidate.key], noise) for candidate in candidates]


def ranks_of_means(state: SweepState, candidates: Sequence[CandidateRecord]) -> dict[CandidateKey, int]:
    """Non-dominated rank of every contender, from 1; where the front was re-evaluated by the means over its repeats.

    Those whose weights are kept are then ranked among themselves: no other one can be picked.

    Args:
        state: of the sweep.
        candidates: its `mean_candidates`.
    """
    ranks = ranks_of(contenders(state))
    if not is_repeated(state):
        return ranks
    found = ranks_of([candidate for candidate in candidates if candidate.discarded is None])
    return {key: rank + 1 for key, rank in ranks.items()} | found


def without_keys(config: Mapping[str, Any], keys: Collection[str], where: str = "") -> dict[str, Any]:
    """A nested configuration without what some dotted keys name; `where` is its own place in the whole."""
    left: dict[str, Any] = {}
    for name, value in config.items():
        if (key := f"{where}{name}") not in keys:
            left[name] = without_keys(value, keys, f"{key}.") if isinstance(value, Mapping) else value
    return left


def _mean(state: SweepState, candidate: CandidateRecord, runs: Runs, noise: SeedNoise) -> CandidateRecord:
    if runs.is_own:
        return candidate
    scale = float(t.ppf(0.975, noise.freedom)) / len(runs.found) ** 0.5
    found = [state.candidates[key].metrics for key in runs.found]
    metrics = dict(candidate.metrics)
    for axis, sigma in zip(AxisIntervals._fields, noise.sigma.tolist(), strict=True):
        mean = metrics[axis] = sum(run[axis] for run in found) / len(found)
        for end, sign in (("low", -1.0), ("high", 1.0)):
            reach = [abs(run[f"{axis}_{end}"] - run[axis]) for run in found if f"{axis}_{end}" in run]
            if len(reach) == len(found):
                metrics[f"{axis}_{end}"] = mean + sign * hypot(sum(reach) / len(reach), scale * sigma)
    return candidate._replace(metrics=metrics)
