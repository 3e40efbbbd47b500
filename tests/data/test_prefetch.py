"""Batches ahead of their steps: the same ones, a bounded number, and no thread that stays."""

import threading
import time
from dataclasses import replace

import pytest
import torch
from test_stream import CONFIG, mixed

from sonar.data.batch import Batch
from sonar.data.prefetch import BATCHES_AHEAD, Prefetch


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


def test_batches_are_made_while_a_step_runs_and_no_more_than_the_bound() -> None:
    made: list[int] = []

    def batch(step: int) -> Batch:
        made.append(step)
        return mixed(4, 4).batch(step)

    with Prefetch(batch, range(100)) as ahead:
        for step in range(3):
            next(ahead)  # and a step that takes as long as it takes to make the batches after it
            while len(made) < step + 1 + BATCHES_AHEAD:
                time.sleep(0.001)
            time.sleep(0.02)
            assert made == list(range(step + 1 + BATCHES_AHEAD))
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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_pinned_batch_is_the_same_one_on_a_gpu() -> None:
    batch = mixed(4, 4).batch(0)
    with Prefetch(mixed(4, 4).batch, range(1), pinned=True) as ahead:
        made = next(ahead)
    assert made.waveform.is_pinned()
    there = made.to(torch.device("cuda"))
    torch.cuda.synchronize()
    assert there.clip_ids == batch.clip_ids and there.keys == batch.keys
    assert all(torch.equal(one.cpu(), other) for one, other in zip(there[:3], batch[:3], strict=True))
