"""Batches ahead of their steps: the same ones, a bounded number, and no thread that stays."""

import threading
import time
from dataclasses import replace

import pytest
import torch
from test_stream import CONFIG, mixed

from sonar.data.prefetch import BATCHES_AHEAD, Prefetch
from sonar.data.stream import Batch


def test_the_batches_are_those_of_the_stream_from_any_step_on() -> None:
    stream = mixed(9, 5)
    for first in (0, 3):
        with Prefetch(mixed(9, 5).batch, range(first, 7)) as ahead:
            made = list(ahead)
        assert len(made) == 7 - first
        for step, batch in enumerate(made, start=first):
            expected = stream.batch(step)
            assert batch.clip_ids == expected.clip_ids
            assert torch.equal(batch.waveform, expected.waveform) and torch.equal(batch.padding, expected.padding)


def test_no_more_batches_are_made_than_the_bound_however_slow_the_steps_are() -> None:
    made: list[int] = []

    def batch(step: int) -> Batch:
        made.append(step)
        return mixed(4, 4).batch(step)

    with Prefetch(batch, range(100)) as ahead:
        for step in range(3):
            next(ahead)
            time.sleep(0.05)
            assert made == list(range(step + 1 + BATCHES_AHEAD))
    time.sleep(0.05)
    assert len(made) == 3 + BATCHES_AHEAD


def test_an_error_is_raised_by_the_step_that_it_belongs_to_and_no_thread_stays() -> None:
    def batch(step: int) -> Batch:
        if step == 2:
            raise OSError("the disk is gone")
        return mixed(4, 4, replace(CONFIG, seed=step)).batch(step)

    with pytest.raises(OSError, match="the disk is gone"), Prefetch(batch, range(9)) as ahead:
        assert next(ahead).clip_ids and next(ahead).clip_ids
        next(ahead)
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def test_a_step_waits_for_nothing_where_batches_are_made_faster_than_steps_are_done() -> None:
    def batch(step: int) -> Batch:
        time.sleep(0.02)
        return mixed(4, 4).batch(step)

    waited = 0.0
    with Prefetch(batch, range(8)) as ahead:
        next(ahead)
        for _ in range(7):
            time.sleep(0.06)  # a training step
            began = time.perf_counter()
            next(ahead)
            waited += time.perf_counter() - began
    assert waited < 0.05
