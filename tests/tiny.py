"""A tiny base and audio in memory: what the tests of training and evaluation share."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from sonar.checkpoint import Checkpoint
from sonar.config import override
from sonar.data.clip_table import ClipTable
from sonar.data.manifest import Clip
from sonar.data.stream import ClipStore, MixedStream
from sonar.experiment import TrialConfig
from sonar.model.encoder import BeatsEncoder, EncoderConfig
from sonar.model.predictor import LabelPredictor, PredictorConfig
from sonar.model.tokenizer import Tokenizer, TokenizerConfig
from sonar.train.adapt import Mixture
from sonar.train.loop import Stage, StepReport, run_stage
from sonar.train.model_objective import ModelObjective
from sonar.train.objective import DistillConfig
from sonar.train.optim import OptimConfig
from sonar.train.regulariser import Regulariser
from sonar.train.stages import Hooks

RATE = 16_000
NUM_CODES = 16
CLIP_SECONDS = 0.5  # 48 frames, 24 patches
STEPS = 6


def encoder_config(dropout: float = 0.0) -> EncoderConfig:
    return EncoderConfig(
        num_layers=2,
        width=32,
        ffn_width=64,
        num_heads=2,
        patch_width=16,
        position_kernel=4,
        position_groups=4,
        num_buckets=32,
        max_distance=80,
        dropout=dropout,
        attention_dropout=dropout,
    )


def make_base(seed: int = 0, dropout: float = 0.0) -> Checkpoint:
    """A random encoder with a random tokenizer of its own and both heads."""
    generator = torch.Generator().manual_seed(seed)
    shape = encoder_config(dropout)
    tokenizer = TokenizerConfig(encoder=shape, num_codes=NUM_CODES, code_width=8, estimator_layers=1)
    predictor = PredictorConfig(transformer=shape.stack(1), num_codes=NUM_CODES)
    return Checkpoint(
        encoder=BeatsEncoder(shape).initialise(generator).eval(),
        tokenizer=Tokenizer(tokenizer).initialise(generator).eval(),
        predictor=LabelPredictor(predictor).initialise(generator).eval(),
        provenance={"made": "by a test"},
    )


class MemoryStore(ClipStore):
    """Clips without files."""

    def __init__(self, clips: Sequence[Clip], waveforms: Sequence[np.ndarray]) -> None:
        self.clips, self.waveforms = ClipTable.from_clips(clips), list(waveforms)
        self.num_samples = np.asarray([len(wave) for wave in waveforms], dtype=np.int64)

    def waveform(self, row: int, begin: int = 0, num_samples: int | None = None) -> np.ndarray:
        return self.waveforms[row][begin:][:num_samples]


def make_store(
    corpus: str,
    num_clips: int,
    *,
    seconds: Sequence[float] = (CLIP_SECONDS,),
    label: Callable[[int], tuple[str, ...]] = lambda row: (),
    split: Callable[[int], str] = lambda row: "train",
    hertz: Callable[[int], float] = lambda row: 500.0 + 137.0 * row,
) -> MemoryStore:
    """Tones in noise; clip `row` has the length `seconds[row % len(seconds)]`."""
    clips, waves = [], []
    for row in range(num_clips):
        rng = np.random.default_rng([row, *corpus.encode()])
        length = round(RATE * seconds[row % len(seconds)])
        tone = np.sin(2 * np.pi * hertz(row) * np.arange(length) / RATE + rng.uniform(0, 6))
        waves.append((0.2 * tone + 0.01 * rng.standard_normal(length)).astype(np.float32))
        clips.append(
            Clip(
                clip_id=f"{corpus}/{row}.wav",
                path=f"/nowhere/{corpus}/{row}.wav",
                start_s=0.0,
                duration_s=length / RATE,
                sample_rate=RATE,
                channels=1,
                corpus=corpus,
                domain="bio",
                labels=label(row),
                group=f"g{row}",
                split=split(row),
                sha256=f"{row:064x}",
            )
        )
    return MemoryStore(clips, waves)


def make_mixture(num_clips: int = 10) -> Mixture:
    """All of a new and of a prior store; some clips are longer than a crop, some shorter."""
    rows = np.arange(num_clips)
    new, prior = (make_store(name, num_clips, seconds=(0.5, 0.7, 0.4)) for name in ("new", "prior"))
    return Mixture(new=new, new_index=rows, prior=prior, prior_index=rows[::2], pool_index=rows)


def make_config(**changes: Any) -> TrialConfig:
    """`STEPS` steps in every stage; `changes` has dots as double underscores."""
    short: dict[str, Any] = {
        "training.batch_size": 4,
        "training.clip_seconds": CLIP_SECONDS,
        "training.tokenizer_steps": STEPS,
        "training.model_steps": STEPS,
        "training.head_steps": STEPS,
        "training.predictor_steps": STEPS,
    }
    return override(TrialConfig(), short | {key.replace("__", "."): value for key, value in changes.items()})


class Recorder:
    """Hooks that keep the reports."""

    def __init__(self) -> None:
        self.reports: list[StepReport] = []

    def hooks(self, **fields: Any) -> Hooks:
        return Hooks(**{"report": self.reports.append, "save": lambda state: None} | fields)

    def stages(self) -> list[str]:
        return list(dict.fromkeys(report.stage for report in self.reports))


def tensors(*modules: nn.Module | None) -> dict[str, torch.Tensor]:
    """Copies of every parameter and buffer."""
    return {
        f"{index}.{name}": value.clone()
        for index, module in enumerate(modules)
        if module is not None
        for name, value in module.state_dict().items()
    }


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> list[str]:
    """Names of the tensors that differ in any bit."""
    assert before.keys() == after.keys()
    return [name for name in before if not torch.equal(before[name], after[name])]


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def parts(base: Checkpoint) -> tuple[Tokenizer, LabelPredictor]:
    assert base.tokenizer is not None and base.predictor is not None
    return base.tokenizer, base.predictor


def model_objective(base: Checkpoint, config: DistillConfig) -> ModelObjective:
    """A student that equals the old encoder."""
    tokenizer, predictor = parts(base)
    regulariser = Regulariser(copy.deepcopy(base.encoder), config).initialise(draws())
    return ModelObjective(base.encoder, predictor, tokenizer, regulariser, config)


def train(objective: nn.Module, trained: tuple[nn.Module, ...], stream: MixedStream, num_steps: int = 3) -> None:
    """Some steps of one stage, fast ones."""
    stage = Stage(
        name="t",
        objective=objective,
        trained=trained,
        stream=stream,
        num_steps=num_steps,
        optim=OptimConfig(lr=1e-3, warmup_fraction=0.0),
        seed=0,
    )
    run_stage(stage, lambda report, state: None)
