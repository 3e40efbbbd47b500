"""Some steps of a trial on noise, timed: what a plan rests on where no sweep has run yet."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from sonar.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from sonar.config import override
from sonar.data.clip_table import ClipTable
from sonar.data.manifest import Clip
from sonar.data.stream import ClipStore
from sonar.experiment import TrialConfig
from sonar.search.disk import model_bytes
from sonar.search.plan import STAGES, Measured, quantiles
from sonar.train.adapt import Mixture, adapt
from sonar.train.loop import StepReport
from sonar.train.pretrain import pretrain
from sonar.train.stages import Hooks, local_worker

PROBE_STEPS = 4  # of each stage; the first is left out, since it warms up
RATE = 16_000


class NoiseStore(ClipStore):
    """Clips of noise in memory, `seconds` long."""

    def __init__(self, corpus: str, num_clips: int, seconds: float) -> None:
        """Nothing is written."""
        self.source = ""
        self.num_samples = np.full(num_clips, round(seconds * RATE), dtype=np.int64)
        self.clips = ClipTable.from_clips(_clip(corpus, row, seconds) for row in range(num_clips))

    def waveform(self, row: int, begin: int = 0, num_samples: int | None = None) -> np.ndarray:
        """(T,) float32, the same every time."""
        noise = np.random.default_rng(row).standard_normal(int(self.num_samples[row])).astype(np.float32)
        return 0.1 * noise[begin:][:num_samples]


def probe(config: TrialConfig, threads: int) -> Measured:
    """Time `PROBE_STEPS` steps of every stage on this device, with the base as the configuration has it.

    Args:
        config: of a trial; of several workers, one with its part of the batch is timed.
        threads: of torch, as a trial gets them.
    """
    torch.set_num_threads(threads)
    workers = config.training.num_workers
    short = {"batch_size": config.training.batch_size // workers, "num_workers": 1, "head_steps": 0}
    config = override(config, {"training": short | dict.fromkeys(STAGES.values(), PROBE_STEPS)})
    base, base_s = _base(config)
    seconds: dict[str, list[float]] = defaultdict(list)

    def report(step: StepReport) -> None:
        if step.step > 1:
            seconds[step.stage].append(step.metrics["step_seconds"])

    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "checkpoint"
        hooks = Hooks(report=report, save=lambda state: None)
        save_checkpoint(adapt(base, _mixture(config), config.adapt_config(), hooks, local_worker()), checkpoint)
        size = model_bytes(checkpoint)
    return Measured(
        basis=f"{PROBE_STEPS - 1} steps of each stage on noise, here and now",
        step_s={stage: quantiles(taken) for stage, taken in seconds.items()},
        rest_s=None,
        size=size,
        num_steps={},
        base_s=base_s,
    )


def _base(config: TrialConfig) -> tuple[Checkpoint, float | None]:
    """The base, or one of its shape, and the seconds that building it takes; None where it is given."""
    if config.base.checkpoint is not None:
        return load_checkpoint(config.base.checkpoint, config.base.tokenizer), None
    wanted = config.base.pretrain
    names = ("projection_steps", "tokenizer_steps", "model_steps")
    seconds: dict[str, list[float]] = defaultdict(list)
    short = replace(wanted, **dict.fromkeys(names, 2))
    store = NoiseStore("prior", 2 * wanted.batch_size, wanted.clip_seconds)
    hooks = Hooks(report=lambda step: seconds[step.stage].append(step.metrics["step_seconds"]), save=lambda state: None)
    base = pretrain(store, np.arange(len(store)), short, hooks, local_worker())
    return base, sum(getattr(wanted, name) * seconds[name.removesuffix("_steps")][-1] for name in names)


def _mixture(config: TrialConfig) -> Mixture:
    count = PROBE_STEPS * config.training.batch_size  # none comes twice, when its codes would be known
    new, prior = (NoiseStore(name, count, config.training.clip_seconds) for name in ("new", "prior"))
    rows = np.arange(count)
    return Mixture(new=new, new_index=rows, prior=prior, prior_index=rows, pool_index=rows)


def _clip(corpus: str, row: int, seconds: float) -> Clip:
    return Clip(
        clip_id=f"{corpus}/{row}",
        path=f"{corpus}/{row}.wav",
        start_s=0.0,
        duration_s=seconds,
        sample_rate=RATE,
        channels=1,
        corpus=corpus,
        domain=corpus,
        labels=(),
        group=str(row),
        split="train",
        sha256="0" * 64,
    )
