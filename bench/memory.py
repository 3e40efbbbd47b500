"""How much memory a worker takes for BEATs-base on clips of 10 s, and what activation checkpointing gains and costs.

Peak of a whole step with its optimiser, after a first step on one clip that made the optimiser's averages: on a CPU the
resident memory of a process that does nothing else, on a GPU what torch has allocated. Sizes that the machine cannot
hold are worked out from the two before, and marked. There is no goal but that the figures are known.
"""

from __future__ import annotations

import copy
import itertools
import multiprocessing
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from harness import Section, main, ratios, spread, table, take_turns, threads
from torch import nn

from sonar.data.batch import Batch
from sonar.model.codebook import CodebookConfig
from sonar.model.encoder import BeatsEncoder, EncoderConfig
from sonar.model.fbank import SAMPLE_RATE
from sonar.model.predictor import LabelPredictor, PredictorConfig
from sonar.model.tokenizer import Tokenizer, TokenizerConfig
from sonar.train.accumulation import Precision
from sonar.train.loop import Stage, StageState, StepReport, run_stage
from sonar.train.model_objective import ModelObjective
from sonar.train.objective import DistillConfig
from sonar.train.optim import OptimConfig
from sonar.train.regulariser import Regulariser
from sonar.train.stages import TrainingStopped
from sonar.train.tokenizer_objective import TokenizerObjective

GIB = 2**30
CLIP_SECONDS = 10
PRICED_CLIPS = 2
ROOM = 0.85  # of the free memory that a case may be expected to take
StageName = Literal["model", "tokenizer"]
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Kind(NamedTuple):
    """A kind of step: its stage, its precision, whether activations are checkpointed."""

    stage: StageName
    precision: Precision
    checkpointed: bool


class Noise:
    """Batches of noise in memory."""

    def __init__(self, *sizes: int) -> None:
        """Of so many clips each, the last size again and again."""
        generator = torch.Generator().manual_seed(0)
        wave = 0.1 * torch.randn(max(sizes), CLIP_SECONDS * SAMPLE_RATE, generator=generator)
        ids = tuple(str(number) for number in range(len(wave)))
        self._batch = Batch(wave, torch.zeros(wave.shape, dtype=torch.bool), torch.arange(len(wave)) % 2 == 1, ids)
        self._sizes = sizes

    def batch(self, step: int) -> Batch:
        """The batch of a step."""
        return self._batch.rows(0, self._sizes[min(step, len(self._sizes) - 1)])


class Models:
    """BEATs-base with its heads, and a teacher of each kind, as an adaptation holds them."""

    def __init__(self) -> None:
        """Draw the weights."""
        generator = torch.Generator().manual_seed(0)
        shape = EncoderConfig()
        self.encoder = BeatsEncoder(shape).initialise(generator).to(DEVICE)
        self.predictor = LabelPredictor(PredictorConfig()).initialise(generator).to(DEVICE)
        self.tokenizer = Tokenizer(TokenizerConfig(encoder=shape)).initialise(generator).to(DEVICE)
        self.old_encoder = copy.deepcopy(self.encoder)
        self.old_tokenizer = copy.deepcopy(self.tokenizer)

    def stage(self, kind: Kind, *sizes: int) -> Stage:
        """A stage of such steps, one on each of so many clips."""
        objective: nn.Module
        distill = DistillConfig()
        if kind.stage == "model":
            held = Regulariser(self.old_encoder, distill)
            objective = ModelObjective(self.encoder, self.predictor, self.tokenizer, held, distill)
            trained: tuple[nn.Module, ...] = (self.encoder, self.predictor)
        else:
            codebook = CodebookConfig(revival="none", collapse_fraction=0.0)
            objective = TokenizerObjective(self.tokenizer, self.old_encoder, self.old_tokenizer, distill, codebook)
            trained = (self.tokenizer,)
        return Stage(
            name=kind.stage,
            objective=objective,
            trained=trained,
            stream=Noise(*sizes),
            num_steps=len(sizes),
            optim=OptimConfig(),
            seed=0,
            precision=kind.precision,
            checkpoint_activations=kind.checkpointed,
        )


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
    return torch.cuda.memory_allocated() if DEVICE.type == "cuda" else _status("VmRSS")


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


def price(kinds: Sequence[Kind], rounds: int) -> dict[Kind, list[float]]:
    """Seconds of a step of every kind on `PRICED_CLIPS`, in turns in one process."""
    models = Models()

    def step(kind: Kind) -> Callable[[], object]:
        stage = models.stage(kind, PRICED_CLIPS)
        return lambda: run_stage(stage, lambda *report: None)

    seconds = take_turns({str(number): step(kind) for number, kind in enumerate(kinds)}, rounds)
    return dict(zip(kinds, seconds.values(), strict=True))


def section(full: bool) -> Section:
    """Peaks at rising batch sizes; the price and the gain of checkpointing."""
    stages: tuple[StageName, ...] = ("model", "tokenizer")
    precisions: tuple[Precision, ...] = ("fp32", "bf16") if full else ("bf16",)
    kinds = [Kind(*kind) for kind in itertools.product(stages, precisions, (False, True))]
    if DEVICE.type == "cpu":  # where such a step of 32 clips takes minutes
        kinds = [kind for kind in kinds if (kind.stage, kind.precision) != ("tokenizer", "fp32")]
    sizes = (2, 4, 8, 16, 32) if full else (2, 4)
    found = {kind: measure(kind, sizes) for kind in kinds}
    seconds = price([kind for kind in kinds if full or kind.stage == "model"], 3 if full else 1)
    header = ["step", "activations", *(f"{size} clips" for size in sizes), "a clip more", f"s of {PRICED_CLIPS} clips"]
    lines = [
        f"BEATs-base, clips of {CLIP_SECONDS} s: peak of a worker in GiB ({_measured_by()}). Between steps it holds "
        f"{found[kinds[0]][2].before / GIB:.1f}: the encoder, the tokenizer, their old selves, the predictor and "
        "Adam's averages. With ~: worked out from the two sizes before, as this machine has no room for it.",
        "",
        *table(header, [_row(kind, found[kind], seconds.get(kind)) for kind in kinds]),
        *(_verdict(kind, found, seconds) for kind in kinds if kind.checkpointed),
    ]
    record = {
        "peaks": [
            {**kind._asdict(), "num_clips": size, **one._asdict()}
            for kind, by_size in found.items()
            for size, one in by_size.items()
        ],
        "seconds": [{**kind._asdict(), "seconds": values} for kind, values in seconds.items()],
    }
    return Section("Memory of a worker", lines, record)


def _measured_by() -> str:
    return "allocated by torch" if DEVICE.type == "cuda" else "resident memory of a process that does nothing else"


def _row(kind: Kind, found: dict[int, Peak], seconds: list[float] | None) -> list[str]:
    """A line of the table."""
    sizes = [f"{'' if one.is_measured else '~'}{one.most / GIB:.1f}" for one in found.values()]
    kept = "checkpointed" if kind.checkpointed else "kept"
    clip = f"{_per_clip(found) / GIB:.2f}"
    return [f"{kind.stage}, {kind.precision}", kept, *sizes, clip, spread(seconds) if seconds else "-"]


def _per_clip(found: dict[int, Peak]) -> float:
    """Bytes that one more clip takes, by the largest two sizes that were measured."""
    measured = [(size, one) for size, one in found.items() if one.is_measured]
    (small, low), (large, high) = measured[-2:]
    return (high.most - low.most) / (large - small)


def _verdict(kind: Kind, found: dict[Kind, dict[int, Peak]], seconds: dict[Kind, list[float]]) -> str:
    """What checkpointing gives and takes in a kind of step."""
    kept = kind._replace(checkpointed=False)
    gain = _per_clip(found[kept]) / _per_clip(found[kind])
    here, there = seconds.get(kind), seconds.get(kept)
    cost = f", for {spread(ratios(here, there))} of the time" if here and there else ""
    return f"- {kind.stage}, {kind.precision}: a checkpointed clip takes 1/{gain:.1f} of the memory{cost}."


if __name__ == "__main__":
    main(section, "memory")
