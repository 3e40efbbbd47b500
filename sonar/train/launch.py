"""The same adaptation under Ray Train, for several workers. The only training file that imports Ray."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ray.train
import ray.train.torch
import torch
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig, UserCallback
from ray.train.torch import TorchTrainer
from ray.util.placement_group import get_current_placement_group

from sonar.checkpoint import Checkpoint, load_checkpoint, load_state, save_checkpoint, save_state
from sonar.data.stream import ClipStore
from sonar.files import write_whole_text
from sonar.train.adapt import Mixture, adapt
from sonar.train.loop import StepReport
from sonar.train.memory import BatchTooLargeError
from sonar.train.settings import AdaptConfig
from sonar.train.stages import Hooks, Observe, TrainingStopped, Worker, never, observe_nothing

ADAPTED_FOLDER = "adapted"
STATE_FILE = "state.pt"
DIVERGED_FILE = "diverged.txt"  # why the workers stopped, until the driver has read it
STOPPED_FILE = "stopped.txt"  # likewise, where they were asked to
TOO_LARGE_FILE = "too_large.txt"  # likewise, where one found no memory
PLACEMENT_FILE = "placement_group"  # the id of that of the workers that run, or ran last
MAX_FAILURES = 2  # restarts of the worker group before a trial counts as failed

_ENDS = {DIVERGED_FILE: FloatingPointError, STOPPED_FILE: TrainingStopped, TOO_LARGE_FILE: BatchTooLargeError}
_SAME_ON_EVERY_RANK = (FloatingPointError, TrainingStopped)  # and again after a restart: to Ray they are no failures


class Around(NamedTuple):
    """Who hears of a run of one worker or several, and who may stop it.

    Attributes:
        callbacks: of Ray Train, for several workers; they hear the metrics that rank 0 reports.
        observe: what rank 0 does after every step, see `Hooks`; it travels to the worker.
        is_stopping: see `Hooks`; it travels too, and rank 0 asks it for all.
    """

    callbacks: Sequence[UserCallback] = ()
    observe: Observe = observe_nothing
    is_stopping: Callable[[], bool] = never


NOTHING_AROUND = Around()


class Launched(NamedTuple):
    """A run of several workers: its checkpoint, and the last value of every `stage/term`."""

    checkpoint: Checkpoint
    metrics: dict[str, float]


def launch_adapt(
    base: str,
    mixture: Mixture,
    config: AdaptConfig,
    folder: Path,
    around: Around = NOTHING_AROUND,
) -> Launched:
    """Adapt with `config.training.num_workers` data-parallel workers in a Ray Train `TorchTrainer`.

    A worker that dies is restarted, with all others, from the last saved state; calling again with the same `folder`
    resumes in the same way.

    Args:
        base: folder of the base checkpoint, readable by every worker.
        mixture: stores and rows; every worker opens the stores anew.
        config: what to train.
        folder: of the trial, on storage that every node sees.
        around: who hears of it and may stop it.

    Returns:
        The adapted checkpoint, as rank 0 saved it, and what it last reported.

    Raises:
        TrainingStopped: as `around` asked; every worker stopped after the same step, its state is saved.
        FloatingPointError: training diverged or the codebook collapsed, as all workers found at the same step.
        BatchTooLargeError: a worker found no memory for its part of a step.
        ray.train.TrainingFailedError: the workers failed more often than `MAX_FAILURES`.
    """
    folder = folder.resolve()  # workers of other nodes have other working folders
    (folder / TOO_LARGE_FILE).unlink(missing_ok=True)  # of a driver that died
    trainer = TorchTrainer(
        _worker_loop,
        train_loop_config={
            "base": base,
            "stores": (mixture.new.source, mixture.prior.source),
            "index": (mixture.new_index, mixture.prior_index, mixture.pool_index),
            "kept": (mixture.base_codes, mixture.features),
            "config": config,
            "folder": str(folder),
            "around": around._replace(callbacks=()),
        },
        scaling_config=ScalingConfig(num_workers=config.training.num_workers, use_gpu=torch.cuda.is_available()),
        run_config=RunConfig(
            name="train",
            storage_path=str(folder),
            failure_config=FailureConfig(max_failures=MAX_FAILURES),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
            callbacks=list(around.callbacks),  # type: ignore[arg-type]  # Ray's own annotation names another class
        ),
    )
    metrics = trainer.fit().metrics or {}
    for name, error in _ENDS.items():
        if (folder / name).exists():
            reason = (folder / name).read_text(encoding="utf-8")
            (folder / name).unlink()
            raise error(reason)
    return Launched(load_checkpoint(folder / ADAPTED_FOLDER), {k: v for k, v in metrics.items() if "/" in k})


def _worker_loop(job: dict[str, Any]) -> None:
    """What every worker runs, and how it ends."""
    context = ray.train.get_context()
    worker = Worker(context.get_world_rank(), context.get_world_size(), ray.train.torch.get_device())
    folder = Path(job["folder"])
    if (folder / TOO_LARGE_FILE).exists():  # one of the group before found no memory, and none of this one would
        return
    try:
        adapted = _adapt(job, worker)
    except _SAME_ON_EVERY_RANK as end:
        if worker.rank == 0:
            is_stop = isinstance(end, TrainingStopped)
            write_whole_text(folder / (STOPPED_FILE if is_stop else DIVERGED_FILE), str(end))
        return
    except BatchTooLargeError as end:
        write_whole_text(folder / TOO_LARGE_FILE, str(end))
        raise  # the other ranks wait for this one: only its death, and a new group that ends at once, frees them
    if worker.rank == 0 and not (folder / ADAPTED_FOLDER).exists():  # a group restarted at the very end has it already
        save_checkpoint(adapted, folder / ADAPTED_FOLDER)


def _adapt(job: dict[str, Any], worker: Worker) -> Checkpoint:
    """The adaptation as one of several workers: rank 0 saves states, all of them meet at each report."""
    last: dict[str, float] = {}

    def report(step: StepReport) -> None:
        last.update(step.by_stage(), step=step.step)

    def save(state: dict[str, Any]) -> None:
        with tempfile.TemporaryDirectory() as temporary:
            checkpoint = None
            if worker.rank == 0:
                save_state(state | {"last": dict(last)}, Path(temporary) / STATE_FILE)
                checkpoint = ray.train.Checkpoint.from_directory(temporary)
            ray.train.report(dict(last), checkpoint=checkpoint)

    around: Around = job["around"]
    config: AdaptConfig = job["config"]
    if worker.rank == 0:
        _note_placement(Path(job["folder"]))
    state = _last_state()
    last.update(state["last"] if state else {})
    hooks = Hooks(
        report=report,
        save=save,
        state=state,
        save_every=config.training.checkpoint_every,
        observe=around.observe if worker.rank == 0 else observe_nothing,
        is_stopping=never if around.is_stopping is never else lambda: _rank_0_says(around.is_stopping, worker),
    )
    new, prior = (ClipStore(source) for source in job["stores"])
    new_index, prior_index, pool_index = job["index"]
    mixture = Mixture(new, new_index, prior, prior_index, pool_index, *job["kept"])
    return adapt(load_checkpoint(job["base"]), mixture, config, hooks, worker)


def _rank_0_says(is_true: Callable[[], bool], worker: Worker) -> bool:
    """What rank 0 finds, on every rank: ranks that stopped after different steps would wait for each other for ever."""
    answer = torch.tensor([float(worker.rank == 0 and is_true())], device=worker.device)
    if worker.world_size > 1:
        torch.distributed.broadcast(answer, 0)
    return bool(answer.item())


def _note_placement(folder: Path) -> None:
    """Say which placement group the workers of this trial hold: Train gives it no name."""
    group = get_current_placement_group()
    assert group is not None, "Train places its workers in a group"
    write_whole_text(folder / PLACEMENT_FILE, group.id.hex())


def _last_state() -> dict[str, Any] | None:
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return None
    with checkpoint.as_directory() as folder:
        state: dict[str, Any] = load_state(Path(folder) / STATE_FILE)
    return state
