"""What keeping freed memory gains (`sonar.model.heap`): passes of BEATs-base with it and without, process by process.

    python bench/heap.py runs/bench [--full]

Clips of 10 s. glibc's own thresholds move with what a process frees, so each way has processes of its own, which
take turns. In each of them a pass is run once before it is timed. Page faults are those that the system counts in a
timed pass: for each it has zeroed a page.
"""

from __future__ import annotations

import multiprocessing
import resource
import statistics
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import NamedTuple

import torch
from encoder import Case, way_of
from harness import Section, main, ratios, seconds_of, spread, table, threads
from steps import TimedStep, base_models, noise_batch

from sonar.model.encoder import EncoderConfig
from sonar.model.fbank import log_mel as log_mel_of
from sonar.model.heap import freed_memory_kept
from sonar.train.accumulation import Precision

SIZES = (2, 8)  # clips of a batch; the second with --full
PASSES = 3
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
WAYS: dict[str, Callable[[], AbstractContextManager[None]]] = {"default": nullcontext, "kept": freed_memory_kept}


class Pass(NamedTuple):
    """One timed pass: seconds, and page faults in it."""

    seconds: float
    faults: int


Found = dict[str, list[Pass]]


def measured(way: str, num_clips: int) -> Found:
    """Every pass, in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found: Found = pool.apply(_measure, (way, num_clips, torch.get_num_threads()))
    return found


def _measure(way: str, num_clips: int, num_threads: int) -> Found:
    with threads(num_threads), WAYS[way]():
        return {name: [_timed(run) for _ in range(PASSES + 1)][1:] for name, run in _passes(num_clips).items()}


def _timed(run: Callable[[], object]) -> Pass:
    before = _faults()
    return Pass(seconds_of(run), _faults() - before)


def _faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def _passes(num_clips: int) -> dict[str, Callable[[], object]]:
    """What is timed, by name."""
    batch, models = noise_batch(num_clips), base_models(EncoderConfig())
    step, log_mel = TimedStep(models, batch), log_mel_of(batch.waveform, models.student.config.fbank)
    found: dict[str, Callable[[], object]] = {}
    for name in PRECISIONS:
        case = Case("cpu", torch.get_num_threads(), name, num_clips, 10, backward=False)
        found[f"forward, {name}"] = way_of(models.teacher, log_mel, case)
    return found | {f"step of the model stage, {name}": partial(step, name) for name in PRECISIONS}


def section(full: bool) -> Section:
    """Seconds and page faults of every pass, either way."""
    rows, record = [], {}
    for num_clips in SIZES if full else SIZES[:1]:
        turns = [{way: measured(way, num_clips) for way in WAYS} for _ in range(3 if full else 2)]
        for name in turns[0]["kept"]:
            ways = {way: [one for turn in turns for one in turn[way][name]] for way in WAYS}
            rows.append(_row(f"{name}, {num_clips} clips", ways))
            record[rows[-1][0]] = {way: [one._asdict() for one in ones] for way, ones in ways.items()}
    header = ["pass", "by default, s", "kept, s", "times as fast", "page faults: by default", "kept"]
    return Section("Freed memory that is kept", ["BEATs-base, clips of 10 s:", "", *table(header, rows)], record)


def _row(name: str, ways: dict[str, list[Pass]]) -> list[str]:
    """A line of the table."""
    slow, fast = ([one.seconds for one in ways[way]] for way in WAYS)
    faults = [f"{statistics.median(one.faults for one in ways[way]):.0f}" for way in WAYS]
    return [name, spread(slow), spread(fast), spread(ratios(slow, fast), ".2f"), *faults]


if __name__ == "__main__":
    main(section, "heap")
