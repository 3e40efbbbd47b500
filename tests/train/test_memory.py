"""A step that finds no memory says which micro-batch fits: true where the memory is limited, and nothing is changed."""

import re
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_loop import Toy, stage
from tiny import changed, make_base, make_store, tensors
from torch import multiprocessing

from sonar.data.batch import Batch
from sonar.data.stream import MixedStream, Source, StreamConfig
from sonar.train.loop import Stage, StepReport, run_stage
from sonar.train.memory import BatchTooLargeError, is_out_of_memory
from sonar.train.model_objective import ModelObjective
from sonar.train.objective import DistillConfig, LossTerms
from sonar.train.optim import OptimConfig
from sonar.train.settings import TrainingConfig

REFUSAL = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to ..."


class Hungry(Toy):
    """Finds no memory for more than `room` clips, from step `at` on."""

    def __init__(self, room: int, at: int = 0, error: Exception | None = None) -> None:
        super().__init__()
        self.room, self.at, self.error, self.sizes = room, at, error or RuntimeError(REFUSAL), list[int]()

    def forward(self, batch: Batch, generator: torch.Generator) -> LossTerms:
        self.sizes.append(len(batch.clip_ids))
        if len(batch.clip_ids) > self.room and batch.waveform[0, 0] >= self.at:
            raise self.error
        return super().forward(batch, generator)


class TwelveClips:
    """Batches of twelve clips; their samples are the step."""

    def batch(self, step: int) -> Batch:
        ids = tuple(str(number) for number in range(12))
        return Batch(torch.full((12, 32_000), float(step)), torch.zeros(12, 1), torch.zeros(12), ids)


def starve(objective: Hungry, **fields: Any) -> str:
    """What the error says, when parameters and buffers have stayed as they were after the last good step."""
    seen = [tensors(objective)]
    with pytest.raises(BatchTooLargeError) as raised:
        run_stage(
            stage(objective, **{"stream": TwelveClips()} | fields), lambda *report: seen.append(tensors(objective))
        )
    assert changed(seen[-1], tensors(objective)) == [] and all(p.grad is None for p in objective.parameters())
    return str(raised.value)


@pytest.mark.parametrize(
    ("room", "at", "tried", "fits"), [(11, 0, [7], 6), (5, 2, [7, 5], 4), (1, 0, [7, 5, 4, 3, 1], 1)]
)
def test_the_largest_micro_batch_that_finds_memory_and_some_more_is_named(
    room: int, at: int, tried: list[int], fits: int
) -> None:
    objective = Hungry(room, at)
    said = starve(objective)
    assert f"stage toy, step {at}: no memory for a micro-batch of 12 clips of 2 s" in said
    assert f"a micro-batch of {fits} fits, as tried. Split the batch into {12 // fits} micro-batches" in said
    sizes = objective.sizes[at + 1 :]
    assert list(dict.fromkeys(sizes)) == tried and sizes[-2:] == [tried[-1]] * 2  # the second beside a gradient


def test_micro_batches_that_are_too_large_are_named_as_such() -> None:
    said = starve(Hungry(3), accumulation=2)
    assert "no memory for a micro-batch of 6 clips" in said and "a micro-batch of 2 fits" in said


def test_where_no_clip_fits_it_says_so() -> None:
    assert re.search("not even one clip fits. Give shorter clips$", starve(Hungry(0)))


def test_the_allocators_of_gpus_and_of_python_are_understood_and_other_errors_left_alone() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory.")) and is_out_of_memory(MemoryError())
    with pytest.raises(RuntimeError, match="a bug"):
        run_stage(stage(Hungry(0, error=RuntimeError("a bug"))), lambda *report: None)


def test_the_advice_names_settings_that_may_be_set() -> None:
    training = TrainingConfig(batch_size=32, num_workers=2, accumulation=2)  # micro-batches of 8
    assert training.for_memory(4) == (
        "Set training.accumulation=4, which keeps the step what it is, or training.batch_size=16, which makes it a "
        "smaller one"
    )
    TrainingConfig(batch_size=32, num_workers=2, accumulation=4)
    TrainingConfig(batch_size=16, num_workers=2, accumulation=2)  # micro-batches of 4, as with accumulation=4
    assert training.for_memory(None).startswith("Set training.checkpoint_activations=true, or shorten training.clip_")
    spare = TrainingConfig(checkpoint_activations=True)
    assert spare.for_memory(None) == "Shorten training.clip_seconds, or train on a machine with more memory"


CLIPS = 16
SHARE = 0.8  # of what the whole batch takes beside what a process holds before


def real_stage(accumulation: int, num_steps: int) -> Stage:
    """The model stage of a tiny base on sixteen clips of 10 s."""
    base, store = make_base(), make_store("new", CLIPS, seconds=(10.0,))
    assert base.tokenizer is not None and base.predictor is not None
    objective = ModelObjective(base.encoder, base.predictor, base.tokenizer, None, DistillConfig())
    rows = np.arange(CLIPS)
    config = StreamConfig(batch_size=CLIPS, clip_seconds=10.0, replay_ratio=0.0, seed=0)
    return Stage(
        name="model",
        objective=objective,
        trained=(base.encoder, base.predictor),
        stream=MixedStream(Source(store, rows), Source(store, rows[:0]), config),
        num_steps=num_steps,
        optim=OptimConfig(),
        seed=0,
        accumulation=accumulation,
        advise=TrainingConfig(batch_size=CLIPS, accumulation=accumulation).for_memory,
    )


def taken() -> int:
    """Bytes of addresses of a process that has made one step, and so holds what it takes once and for all."""
    torch.set_num_threads(1)
    run_stage(real_stage(CLIPS, 1), lambda *report: None)
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def train_in_enough_memory(rank: int, folder: str) -> None:
    """What two steps of the whole batch take beside that, where nothing is limited."""
    before = taken()
    run_stage(real_stage(1, 2), lambda *report: None)
    status = Path("/proc/self/status").read_text()
    peak = 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmPeak")))
    Path(folder, "needed").write_text(str(peak - before))


def train_in_little_memory(rank: int, folder: str) -> None:
    """In a process whose addresses are limited: what the error names, and then that it is true."""
    resource.setrlimit(resource.RLIMIT_AS, (taken() + int(SHARE * int(Path(folder, "needed").read_text())),) * 2)
    starved = real_stage(1, 2)
    before = tensors(starved.objective)
    with pytest.raises(BatchTooLargeError) as raised:
        run_stage(starved, lambda *report: None)
    assert changed(before, tensors(starved.objective)) == []
    said = str(raised.value)
    Path(folder, "said").write_text(said)
    del raised, starved  # and with the frames of the error the batches that were made ahead
    named = int(said.split("training.accumulation=")[1].split(",")[0])
    reports: list[StepReport] = []
    run_stage(real_stage(named, 2), lambda report, state: reports.append(report))
    assert len(reports) == 2


@pytest.mark.slow
def test_the_named_accumulation_runs_within_the_limit_that_the_batch_broke(tmp_path: Path) -> None:
    multiprocessing.spawn(train_in_enough_memory, (str(tmp_path),))
    multiprocessing.spawn(train_in_little_memory, (str(tmp_path),))
    said = (tmp_path / "said").read_text()
    assert re.match(r"stage model, step 0: no memory for a micro-batch of 16 clips of 10 s; the machine has ", said)
    assert re.search(r" may take \d+\.\d \(ulimit\); a micro-batch of \d fits, as tried. Set training.accum", said)
