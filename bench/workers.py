"""Two data-parallel workers of one thread against one worker of one thread; and what N workers would do.

Three ways take turns: one worker alone, two that know nothing of each other, and two that train together. The second
tells what this machine has for two at all; the third what the exchange takes of it. Goal: 0.9 of twice one worker.
"""

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
from harness import Section, main, ratios, spread, table, threads
from memory import CLIP_SECONDS, Noise
from scaling import Network, Parts, efficiency, step_seconds
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

GOAL = 0.9
STEPS = 3  # of a turn; the first is left out, since it makes the optimiser's averages and orders the buckets
PATIENCE_S = 600  # of a worker with the other
WORKERS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
NETWORKS = {"10 Gb/s, 50 us": Network(1.25e9, 50e-6), "100 Gb/s, 10 us": Network(12.5e9, 10e-6)}
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


def parts_of(found: Found, turns: slice) -> Parts:
    """The parts of a step by some of the turns: the exchange that shows is what two together take beyond two apart."""
    apart, together = (statistics.median(found.steps[way][turns]) for way in ("apart", "together"))
    shown = max(0.0, together - apart)
    exchange = statistics.median(found.exchange_s[turns])
    return Parts(
        compute_s=statistics.median(found.steps["alone"][turns]),
        input_s=found.input_s,
        gradient_bytes=found.gradient_bytes,
        hidden=max(0.0, 1 - shown / exchange),
    )


def section(full: bool) -> Section:
    """A middling encoder, and BEATs-base with `full`."""
    middling = EncoderConfig(num_layers=6, width=384, ffn_width=1536, num_heads=6)
    jobs = {"6 layers of 384": Job(middling, 8, 6 if full else 2)}  # of the 16 that the default batch gives each
    if full:
        jobs["BEATs-base"] = Job(EncoderConfig(), 4, 4)
    lines, record = [], dict[str, Any]()
    for name, job in jobs.items():
        found = measure(job)
        lines += [f"### {name}, {job.num_clips} clips of {CLIP_SECONDS} s a worker", "", *_measured(job, found)]
        lines += [*_checked(found), *_predicted(job, found)]
        record[name] = found._asdict()
    return Section("Workers", lines, record)


def _measured(job: Job, found: Found) -> list[str]:
    """Steps and throughput of the three ways."""
    alone = found.steps["alone"]
    shares = {way: ratios(alone, found.steps[way]) for way in ("apart", "together")}
    rows = []
    for way, number in zip(WAYS, (1, 2, 2), strict=True):
        clips = number * job.num_clips / statistics.median(found.steps[way])
        share, processor = spread(shares.get(way, [1.0])), spread(found.processor[way])
        rows.append([f"{way}, {number}", spread(found.steps[way]), f"{clips:.2f}", share, processor])
    reached = _share(found.steps, "alone")
    reached_processor = _share(found.processor, "alone")
    return [
        *table(["workers of one thread", "step, s", "clips/s", "share of one's throughput", "processor, s"], rows),
        f"Goal {GOAL}: {'reached' if reached >= GOAL else 'missed'} with {reached:.2f} by the clock; by time of the "
        f"processor, which others on the machine disturb less, {reached_processor:.2f}. Of what this machine gives two "
        f"workers that know nothing of each other, training together keeps {_share(found.steps, 'apart'):.2f} "
        f"({_share(found.processor, 'apart'):.2f}); the rest is the machine's.",
        "",
    ]


def _share(seconds: dict[str, list[float]], way: str) -> float:
    """Of the speed of a way that two together keep."""
    return statistics.median(ratios(seconds[way], seconds["together"]))


def _checked(found: Found) -> list[str]:
    """The prediction of the first half of the turns against the second half."""
    half = len(found.exchange_s) // 2
    parts = parts_of(found, slice(0, half))
    exchange, latency = (statistics.median(values) for values in (found.exchange_s, found.latency_s))
    slowed = statistics.median(found.steps["apart"][:half]) / parts.compute_s
    network = Network(found.gradient_bytes / exchange, latency / 2)  # two workers: 2 messages of half the bytes
    rows = []
    for number, way in ((1, "alone"), (2, "together")):
        crowded = parts._replace(compute_s=parts.compute_s * (slowed if number > 1 else 1.0))
        expected, seen = step_seconds(number, crowded, network), statistics.median(found.steps[way][half:])
        rows.append([str(number), f"{expected:.2f}", f"{seen:.2f}", f"{expected / seen - 1:+.1%}"])
    return [
        f"Measured parts: computing {parts.compute_s:.2f} s; making a batch {parts.input_s:.3f} s, beside the step "
        f"before; {found.gradient_bytes / 1e6:.0f} MB of gradients, which take {exchange:.3f} s between two processes "
        f"here ({network.bytes_per_s / 1e9:.1f} GB/s, {network.latency_s * 1e6:.0f} us a message), {parts.hidden:.0%} "
        f"of it hidden; two workers on this machine compute {slowed:.2f} times as long as one. From the first half of "
        "the turns, against the second half:",
        "",
        *table(["workers", "predicted step, s", "measured, s", "error"], rows),
    ]


def _predicted(job: Job, found: Found) -> list[str]:
    """Throughput of more workers, each with a processor of its own, over networks that are assumed."""
    parts = parts_of(found, slice(None))
    rows = [
        [str(number)]
        + [
            f"{number * job.num_clips / step_seconds(number, parts, network):.1f} "
            f"({efficiency(number, parts, network):.1%})"
            for network in NETWORKS.values()
        ]
        for number in WORKERS
    ]
    return [
        "Predicted, not measured: clips/s and share of linear where every worker has a core of its own as fast as this "
        "one, gradients go around a ring over such a network, the hidden share is the one measured here, and nobody "
        "straggles:",
        "",
        *table(["workers", *NETWORKS], rows),
    ]


if __name__ == "__main__":
    main(section, "workers")
