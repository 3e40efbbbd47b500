"""What two workers of one thread measure in turns: one alone, two that know nothing of each other, two together."""

from __future__ import annotations

import copy
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Sequence
from datetime import timedelta
from itertools import pairwise
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, NamedTuple

import torch
from harness import threads
from stage_steps import Noise
from torch import distributed

from sonar.files import write_whole_text
from sonar.model.encoder import BeatsEncoder, EncoderConfig
from sonar.model.predictor import LabelPredictor, PredictorConfig
from sonar.model.tokenizer import RandomProjectionConfig, RandomProjectionTokenizer
from sonar.train.loop import Stage, StageState, StepReport, run_stage
from sonar.train.model_objective import ModelObjective
from sonar.train.objective import DistillConfig
from sonar.train.optim import OptimConfig
from sonar.train.regulariser import Regulariser

STEPS = 3  # of a turn; the first is left out, since it makes the optimiser's averages and orders the buckets
PATIENCE_S = 600  # of a worker with the other
WAYS = ("alone", "apart", "together")


class Job(NamedTuple):
    """What the workers train: the encoder's shape, clips of a worker's batch, and turns of each way."""

    shape: EncoderConfig
    num_clips: int
    rounds: int


class Turn(NamedTuple):
    """Medians of the steps of a turn: seconds, and those of the processor in all threads of the worker."""

    seconds: float
    processor: float


class Found(NamedTuple):
    """What both workers measured.

    Attributes:
        steps: seconds of a step by way, the median of each turn; of two workers the slower one's.
        processor: the same in seconds of the processor, which who else is on the machine disturbs less.
        input_s: seconds of making a batch.
        gradient_bytes: of the trained parameters.
        exchange_s: seconds of an all-reduce of them between the two, alone.
        latency_s: seconds of one of a single number.
    """

    steps: dict[str, list[float]]
    processor: dict[str, list[float]]
    input_s: float
    gradient_bytes: float
    exchange_s: list[float]
    latency_s: list[float]


def measure(job: Job) -> Found:
    """Both workers, each in a process of one thread."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2, timeout=PATIENCE_S)
    with tempfile.TemporaryDirectory() as folder:
        workers = [context.Process(target=_worker, args=(rank, job, Path(folder), barrier)) for rank in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        if any(worker.exitcode for worker in workers):
            raise RuntimeError("a worker failed; what it says stands above")
        ranks = [json.loads((Path(folder) / f"{rank}.json").read_text(encoding="utf-8")) for rank in range(2)]
    rest = {name: ranks[0][name] for name in ("input_s", "gradient_bytes", "exchange_s", "latency_s")}
    return Found(_slower(ranks, 0), _slower(ranks, 1), **rest)


def _slower(ranks: Sequence[dict[str, Any]], field: int) -> dict[str, list[float]]:
    """A field of each turn by way, of the worker that has more of it."""
    turns = {way: [rank[way] for rank in ranks if rank[way]] for way in WAYS}
    return {way: [max(turn[field] for turn in same) for same in zip(*both, strict=True)] for way, both in turns.items()}


def _worker(rank: int, job: Job, folder: Path, barrier: Barrier) -> None:
    """The turns of one worker; the other waits at the barrier, which takes no time of a processor."""
    with threads(1):
        stage = _stage(job, rank)
        found: dict[str, Any] = {way: [] for way in WAYS} | {"exchange_s": [], "latency_s": []}
        for number in range(job.rounds):
            for way in WAYS:
                barrier.wait()
                if way == "alone" and rank:
                    continue
                if way == "together":
                    _join(rank, folder / f"store-{number}")
                found[way].append(_turn(stage))
            found["exchange_s"].append(_all_reduce_seconds(_gradient_numbers(stage), 3))
            found["latency_s"].append(_all_reduce_seconds(1, 200))
            distributed.destroy_process_group()
        found |= {"input_s": _input_seconds(stage), "gradient_bytes": 4 * _gradient_numbers(stage)}
    write_whole_text(folder / f"{rank}.json", json.dumps(found))


def _stage(job: Job, rank: int) -> Stage:
    """The model stage with codes that cost nothing, as codes that were computed once do."""
    generator = torch.Generator().manual_seed(0)
    encoder = BeatsEncoder(job.shape).initialise(generator)
    predictor = LabelPredictor(PredictorConfig(transformer=job.shape.stack(3))).initialise(generator)
    tokenizer = RandomProjectionTokenizer(RandomProjectionConfig(), generator)
    distill = DistillConfig()
    objective = ModelObjective(encoder, predictor, tokenizer, Regulariser(copy.deepcopy(encoder), distill), distill)
    return Stage(
        name="model",
        objective=objective,
        trained=(encoder, predictor),
        stream=Noise(job.num_clips),
        num_steps=STEPS,
        optim=OptimConfig(),
        seed=0,
        rank=rank,
    )


def _join(rank: int, store: Path) -> None:
    """Two workers that train together from here on."""
    patience = timedelta(seconds=PATIENCE_S)
    distributed.init_process_group("gloo", f"file://{store}", rank=rank, world_size=2, timeout=patience)


def _turn(stage: Stage) -> Turn:
    """The steps of a turn but the first."""
    seconds, processor = list[float](), list[float]()

    def told(report: StepReport, state: StageState) -> None:
        seconds.append(report.metrics["step_seconds"])
        processor.append(time.process_time())

    run_stage(stage, told)
    return Turn(statistics.median(seconds[1:]), statistics.median(b - a for a, b in pairwise(processor)))


def _all_reduce_seconds(num_numbers: int, times: int) -> float:
    """Of one exchange of so many numbers, in the buckets of data parallel training."""
    values = torch.zeros(num_numbers)
    distributed.barrier()
    began = time.perf_counter()
    for _ in range(times):
        for bucket in values.split(25 * 2**20 // 4):
            distributed.all_reduce(bucket)
    return (time.perf_counter() - began) / times


def _gradient_numbers(stage: Stage) -> int:
    return sum(parameter.numel() for module in stage.trained for parameter in module.parameters())


def _input_seconds(stage: Stage) -> float:
    began = time.perf_counter()
    stage.stream.batch(STEPS)
    return time.perf_counter() - began
