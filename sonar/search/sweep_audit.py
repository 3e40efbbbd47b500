"""The noise audit of a sweep: the base configuration under several seeds, before anything is searched."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from sonar.evaluate.bootstrap import Resampling
from sonar.evaluate.noise import AXES, NOISE_FILE, Noise, describe_noise, measure_noise, resolves, verdict
from sonar.evaluate.record import read_evaluation, split_folder
from sonar.evaluate.run_folders import SPLIT
from sonar.files import write_whole_text
from sonar.search.journal import Journal, SweepState
from sonar.search.prepare import read_baseline
from sonar.search.progress import Say
from sonar.search.repeat_source import RepeatSource
from sonar.search.repeats import AUDIT, next_audit
from sonar.search.source import Source


def audit_sweep(
    journal: Journal, num_seeds: int, folder: Path, baseline: str, run: Callable[[Source], None], say: Say
) -> Noise | None:
    """Run what is missing of the audit, write `noise.json` into the sweep's folder and say what it means.

    Args:
        journal: of the sweep.
        num_seeds: runs of the base configuration; 0: no audit.
        folder: of the sweep.
        baseline: of `Prepared`.
        run: runs the trials of a source to their end.
        say: hears what the probe sets resolve.

    Returns:
        None where it was stopped before its end, or none was asked for.

    Raises:
        ValueError: fewer than two runs have a result, with the reasons of the others.
    """
    if num_seeds == 0:
        return None
    if _is_missing(journal.state, num_seeds):
        say(f"auditing the noise: {num_seeds} seeds of the base configuration")
        run(RepeatSource(journal, AUDIT, lambda: next_audit(journal.state, num_seeds)))
        if _is_missing(journal.state, num_seeds):
            return None
    noise = _measure(journal.state, folder, baseline)
    limit = journal.state.settings["forgetting_limit"]
    made_by = {"config": journal.state.settings["config"], "base": Path(baseline).stem}
    write_whole_text(folder / NOISE_FILE, json.dumps(describe_noise(noise, abs(limit) or 1.0, made_by), indent=1))
    for line in describe_audit(noise, limit):
        say(line)
    return noise


def describe_audit(noise: Noise, limit: float) -> list[str]:
    """Sigma of both axes, the seeds that failed, and warnings: a limit, or what adapting changes, that noise hides."""
    lines = [
        f"noise of one run over {len(noise.runs)} seeds: sigma of plasticity {noise.plasticity.sigma:.2g} %, "
        f"of forgetting {noise.forgetting_rate.sigma:.2g} %"
    ]
    lines += [f"{name} failed and is not in sigma: {reason}" for name, reason in noise.failed.items()]
    if limit > 0 and not resolves(noise, limit):
        lines.append(f"warning: the forgetting limit: {verdict('forgetting_rate', noise.forgetting_rate, limit)}")
    for name in AXES:
        axis = noise.axis(name)
        if axis.sigma == 0:
            lines.append(
                f"warning: no seed changed {name.replace('_', ' ')}: its noise is not 0 but too small for these probe "
                "sets to show, or the runs are too short; nothing is settled by it"
            )
        if axis.mean and not resolves(noise, axis.mean, name):
            change = verdict(name, axis, round(abs(axis.mean), 2) or abs(axis.mean))
            lines.append(f"warning: what the base configuration changes: {change}")
    return lines


def _is_missing(state: SweepState, num_seeds: int) -> bool:
    is_begun = any(record.kind == AUDIT and not record.is_finished for record in state.trials.values())
    return is_begun or next_audit(state, num_seeds) is not None


def _measure(state: SweepState, folder: Path, baseline: str) -> Noise:
    audits = [record for record in state.trials.values() if record.kind == AUDIT]
    told = [record.trial_id for record in audits if record.status == "told"]
    failed = {
        record.trial_id: record.reason or record.status for record in audits if record.status in ("failed", "pruned")
    }
    runs = {name: read_evaluation(split_folder(folder / "trials" / name, SPLIT)) for name in told}
    return measure_noise(runs, failed, read_baseline(baseline), Resampling())
