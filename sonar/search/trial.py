"""One trial: configuration in, adapted encoder and its two objectives out; resumable."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from sonar.checkpoint import CheckpointError, load_checkpoint, load_state, save_checkpoint, save_state
from sonar.config import config_hash, to_dict
from sonar.evaluate.record import Evaluation, split_folder, write_evaluation
from sonar.experiment import TrialConfig
from sonar.files import write_whole_text
from sonar.search.mixture import MIXTURE_FILE, read_mixture, write_mixture
from sonar.search.prepare import Prepared, record_dev_use
from sonar.search.records import LAST_STEP
from sonar.search.watch import Watch
from sonar.train.adapt import adapt
from sonar.train.feature_folder import FeatureFolder
from sonar.train.launch import NOTHING_AROUND, Around, Launched, launch_adapt
from sonar.train.loop import StepReport
from sonar.train.stages import Hooks, local_worker

log = logging.getLogger(__name__)


class TrialResult(NamedTuple):
    """What a trial is told with.

    Attributes:
        metrics: plasticity, forgetting_rate, forgetting_worst (percent), forgetting_worst_class (points), the ends of
            the axes' intervals, retention and probes by task, the curve's summary, last losses, codebook health, cost.
        checkpoint: folder of the adapted model.
        worst: the prior task and the class behind forgetting_worst and forgetting_worst_class.
    """

    metrics: dict[str, float]
    checkpoint: str
    worst: dict[str, str]


def run_trial(
    config: TrialConfig,
    prepared: Prepared,
    folder: Path,
    report: Callable[[StepReport], None],
    around: Around = NOTHING_AROUND,
    keep_candidates: bool = False,
) -> TrialResult:
    """Adapt the base and judge the result.

    Args:
        config: the whole of the trial.
        prepared: what all trials share.
        folder: of this trial; holds `mixture.parquet`, what it trains on, `curve.jsonl` and the state to resume
            from, `candidates/`, then `evaluation/dev`, `checkpoint/`, `provenance.json` and `result.json`. A folder
            with a result is not run again.
        report: called after every step.
        around: who else hears of it, and who may stop it.
        keep_candidates: leave the encoder of every point of the curve in the folder, for a driver that deletes them.

    Raises:
        TrainingStopped: as asked; the folder holds the state to go on from.
        NonFiniteLossError: training diverged.
        ValueError: the mixture asked for cannot be drawn, a probe cannot be scored, or the folder holds another run.
    """
    _claim(folder, config, prepared)
    result_path = folder / "result.json"
    if result_path.exists():
        return TrialResult(**json.loads(result_path.read_text()))
    began = time.perf_counter()
    watch = Watch(config, prepared, folder, keep_candidates=keep_candidates)
    adapted, last = _adapt(config, prepared, folder, report, around._replace(observe=watch))
    trained_s = time.perf_counter() - began - watch.seconds
    evaluation, change = watch.score(adapted.encoder)
    write_evaluation(evaluation, split_folder(folder, "dev"))
    steps = int(last.get(LAST_STEP, 0))
    metrics = {
        **watch.judge(evaluation, change),
        **_probe_metrics(evaluation),
        **last,
        **watch.end(steps, evaluation, change),
        **watch.interpolate(adapted.encoder, steps),
        "train_seconds": trained_s,
        "evaluation_seconds": watch.seconds,
        "trial_seconds": time.perf_counter() - began,
    }
    checkpoint = folder / "checkpoint"
    shutil.rmtree(checkpoint, ignore_errors=True)  # of a driver that died before it wrote the result
    made_by = adapted.provenance | watch.made_by()
    save_checkpoint(replace(adapted, provenance=made_by), checkpoint)
    write_whole_text(folder / "provenance.json", json.dumps(made_by, indent=2))  # outlives the checkpoint
    record_dev_use(prepared.baseline, checkpoint, _purpose(config, folder))
    result = TrialResult(metrics, str(checkpoint), change.worst())
    write_whole_text(result_path, json.dumps(result._asdict(), indent=1))
    (folder / "state.pt").unlink(missing_ok=True)
    return result


def _purpose(config: TrialConfig, folder: Path) -> str:
    """What the ledger says: a trial, and how often it was looked at on its way."""
    every, alphas = config.evaluation.every, config.evaluation.alphas
    on_the_way = f", every {every} steps" if every else ""
    return f"trial {folder.name}{on_the_way}{f', at {len(alphas)} alphas' if alphas else ''}"


def _claim(folder: Path, config: TrialConfig, prepared: Prepared) -> None:
    """Write what the folder is for, or refuse a folder that is for something else."""
    shared = {name: Path(path).name for name, path in prepared._asdict().items()}
    # The folder of the base is named by its content; how a base would be made changes nothing where it is there.
    key = config_hash({"config": to_dict(config), "prepared": shared}, ignore=("config.base",))
    path = folder / "run_id"
    if path.exists() and path.read_text() != key:
        raise ValueError(f"{folder} holds a run of another configuration, audio or base; give another folder")
    folder.mkdir(parents=True, exist_ok=True)
    write_whole_text(path, key)


def _adapt(
    config: TrialConfig,
    prepared: Prepared,
    folder: Path,
    report: Callable[[StepReport], None],
    around: Around,
) -> Launched:
    """Train in this process, or with several workers under Ray Train."""
    drawn = read_mixture(config.sampling, prepared)
    write_mixture(drawn, folder / MIXTURE_FILE)
    mixture = drawn.mixture._replace(features=kept_features(config, prepared))
    adapt_config = replace(config.adapt_config(), replay_ratio=drawn.replay_ratio)
    if config.training.num_workers > 1:
        return launch_adapt(prepared.base, mixture, adapt_config, folder, around)
    state_path = folder / "state.pt"
    state = _read_state(state_path)
    last: dict[str, float] = state["last"] if state else {}

    def keep_last(step: StepReport) -> None:
        last.update(step.by_stage())
        report(step)

    hooks = Hooks(
        report=keep_last,
        save=lambda state: save_state(state | {"last": dict(last)}, state_path),
        state=state,
        save_every=config.training.checkpoint_every,
        observe=around.observe,
        is_stopping=around.is_stopping,
    )
    base = load_checkpoint(prepared.base)
    return Launched(adapt(base, mixture, adapt_config, hooks, local_worker()), last)


def kept_features(config: TrialConfig, prepared: Prepared) -> FeatureFolder | None:
    """Where all trials from this base keep what it says of whole clips: beside their embeddings; None: nowhere."""
    max_bytes = int(1e9 * config.training.feature_cache_gb)
    folder = Path(prepared.embeddings).with_name(f"features-{Path(prepared.base).name}")
    return FeatureFolder(folder, max_bytes) if max_bytes else None


def _read_state(path: Path) -> dict[str, Any] | None:
    """The state to go on from; a damaged one is set aside, and the trial begins anew and ends the same."""
    try:
        state: dict[str, Any] | None = load_state(path) if path.exists() else None
    except CheckpointError as error:
        path.replace(path.with_suffix(".damaged"))
        log.warning("%s; it is kept as %s and the trial begins anew", error, path.with_suffix(".damaged").name)
        return None
    return state


def _probe_metrics(evaluation: Evaluation) -> dict[str, float]:
    return {f"probe/{result.role}/{result.name}/{result.metric}": result.score.score for result in evaluation.results}
