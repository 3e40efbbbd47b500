"""How much memory a worker takes for BEATs-base on clips of 10 s; what checkpointing and torch.compile gain and cost.

Peak of a whole step with its optimiser, after a first step on one clip that made the optimiser's averages: on a CPU the
resident memory of a process that does nothing else, on a GPU what torch has allocated. Sizes that the machine cannot
hold are worked out from the two before, and marked. There is no goal but that the figures are known.
"""

from __future__ import annotations

import ctypes
import itertools
import multiprocessing
import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import torch
from harness import Section, main, ratios, spread, table, threads
from stage_steps import CLIP_SECONDS, DEVICE, Kind, Layers, Models, StageName

from sonar.train.accumulation import Precision
from sonar.train.loop import StageState, StepReport, run_stage
from sonar.train.stages import TrainingStopped

GIB = 2**30
PRICED_CLIPS = 2
STEPS_OF_TURN = 3
SIZES = (2, 4, 8, 16, 32)
ROOM = 0.85  # of the free memory that a case may be expected to take


class Peak(NamedTuple):
    """Bytes of a worker before and, at most, during a step, and whether that was measured or worked out."""

    before: int
    most: int
    is_measured: bool = True


def measure(kind: Kind, sizes: Sequence[int]) -> dict[int, Peak]:
    """Peaks at rising sizes, on a CPU in a process of its own; worked out where there is no room for a step."""
    if DEVICE.type == "cuda":
        return _measure(kind, sizes, 1)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found: dict[int, Peak] = pool.apply(_measure, (kind, sizes, torch.get_num_threads()))
    return found


def _measure(kind: Kind, sizes: Sequence[int], num_threads: int) -> dict[int, Peak]:
    """A first step on one clip, which makes the averages of the optimiser, then one of each size."""
    found, before = dict[int, Peak](), 0

    def told(step: StepReport, state: StageState) -> None:
        nonlocal before
        if step.step > 1:
            found[sizes[step.step - 2]] = Peak(before, _most())
        if len(found) > 1 and not state.ended and _line(found, sizes[step.step - 1]).most > ROOM * (_taken() + _room()):
            raise TrainingStopped
        before = _taken()
        _forget_most()

    with threads(num_threads), suppress(TrainingStopped):
        run_stage(Models().stage(kind, 1, *sizes), told)
    for size in sizes[len(found) :]:
        found[size] = _line(found, size)
    return found


def _most() -> int:
    return torch.cuda.max_memory_allocated() if DEVICE.type == "cuda" else _status("VmHWM")


def _taken() -> int:
    if DEVICE.type == "cuda":
        return torch.cuda.memory_allocated()
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)  # what is kept for the next step is not taken
    return _status("VmRSS")


def _forget_most() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _status(name: str) -> int:
    """A line of what Linux counts for this process, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def _line(found: dict[int, Peak], size: int) -> Peak:
    """On the line through the two largest sizes."""
    (small, low), (large, high) = list(found.items())[-2:]
    slope = (high.most - low.most) / (large - small)
    return Peak(high.before, round(high.most + slope * (size - large)), False)


def _room() -> int:
    if DEVICE.type == "cuda":
        return torch.cuda.mem_get_info()[0]
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))


class Price(NamedTuple):
    """Seconds of steps on `PRICED_CLIPS`: the very first one, in which layers may be compiled, and later ones."""

    first: float
    later: list[float]


def price(kinds: Sequence[Kind], rounds: int) -> dict[Kind, Price]:
    """Steps of every kind, in turns in one process; the first of a turn makes the averages and is left out."""
    models = Models()
    with tempfile.TemporaryDirectory() as empty:  # else the first step may find what an earlier run has compiled
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = empty
        turns = [{kind: _seconds(models, kind) for kind in kinds} for _ in range(rounds)]
    return {kind: Price(turns[0][kind][0], [one for turn in turns for one in turn[kind][1:]]) for kind in kinds}


def _seconds(models: Models, kind: Kind) -> list[float]:
    """Of the steps of a turn."""
    found: list[float] = []
    sizes = [PRICED_CLIPS] * STEPS_OF_TURN
    run_stage(models.stage(kind, *sizes), lambda step, state: found.append(step.metrics["step_seconds"]))
    return found


def cases(full: bool) -> dict[Kind, Sequence[int]]:
    """The kinds of steps, and the sizes of each that are measured."""
    stages: tuple[StageName, ...] = ("model", "tokenizer")
    precisions: tuple[Precision, ...] = ("fp32", "bf16") if full else ("bf16",)
    layers: tuple[Layers, ...] = ("plain", "checkpointed", "compiled") if full else ("plain", "checkpointed")
    found: dict[Kind, Sequence[int]] = {
        Kind(*kind): SIZES if full else SIZES[:2] for kind in itertools.product(stages, precisions, layers)
    }
    if DEVICE.type == "cpu":  # where a step of 32 clips takes a minute
        found = {kind: sizes for kind, sizes in found.items() if not _is_long(kind)}
    return found


def _is_long(kind: Kind) -> bool:
    """Whether a CPU is spared a kind of the tokenizer stage."""
    return kind.stage == "tokenizer" and (kind.precision == "fp32" or kind.layers == "compiled")


def section(full: bool) -> Section:
    """Peaks at rising batch sizes; the price and the gain of checkpointing and of compiling."""
    kinds = cases(full)
    found = {kind: measure(kind, sizes) for kind, sizes in kinds.items()}
    before = next(iter(found.values()))[SIZES[0]].before
    prices = price([kind for kind in kinds if full or kind.stage == "model"], 3 if full else 1)
    shown = [f"{size} clips" for size in (SIZES if full else SIZES[:2])]
    header = ["step", "layers", *shown, "a clip more", f"s of {PRICED_CLIPS} clips"]
    lines = [
        f"BEATs-base, clips of {CLIP_SECONDS} s: peak of a worker in GiB ({_measured_by()}). Between steps it holds "
        f"{before / GIB:.1f}: the encoder, the tokenizer, their old selves, the predictor and "
        "Adam's averages. With ~: worked out from the two sizes before, as this machine has no room for it.",
        "",
        *table(header, [_row(kind, found[kind], prices.get(kind)) for kind in kinds]),
        *(_verdict(kind, found, prices) for kind in kinds if kind.layers != "plain"),
    ]
    record = {
        "peaks": [
            {**kind._asdict(), "num_clips": size, **one._asdict()}
            for kind, by_size in found.items()
            for size, one in by_size.items()
        ],
        "seconds": [{**kind._asdict(), **one._asdict()} for kind, one in prices.items()],
    }
    return Section("Memory of a worker", lines, record)


def _measured_by() -> str:
    return "allocated by torch" if DEVICE.type == "cuda" else "resident memory of a process that does nothing else"


def _row(kind: Kind, found: dict[int, Peak], price: Price | None) -> list[str]:
    """A line of the table."""
    sizes = [f"{'' if one.is_measured else '~'}{one.most / GIB:.1f}" for one in found.values()]
    clip = f"{_per_clip(found) / GIB:.2f}"
    return [f"{kind.stage}, {kind.precision}", kind.layers, *sizes, clip, spread(price.later) if price else "-"]


def _per_clip(found: dict[int, Peak]) -> float:
    """Bytes that one more clip takes, by the smallest and the largest size that were measured."""
    measured = [(size, one) for size, one in found.items() if one.is_measured]
    (small, low), *_, (large, high) = measured
    return (high.most - low.most) / (large - small)


def _verdict(kind: Kind, found: dict[Kind, dict[int, Peak]], prices: dict[Kind, Price]) -> str:
    """What another way of running the layers gives and takes in a kind of step."""
    plain = kind._replace(layers="plain")
    share = _per_clip(found[kind]) / _per_clip(found[plain])
    here, there = prices.get(kind), prices.get(plain)
    cost = f", for {spread(ratios(here.later, there.later))} of the time" if here and there else ""
    begun = f"; its first step takes {here.first:.0f} s" if here and kind.layers == "compiled" else ""
    return f"- {kind.stage}, {kind.precision}, {kind.layers}: a clip takes {share:.2f} of the memory{cost}{begun}."


if __name__ == "__main__":
    main(section, "memory")
