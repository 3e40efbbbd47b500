"""The configuration of one adaptation: how long and on what each stage trains."""

from __future__ import annotations

from dataclasses import dataclass

from sonar.model.codebook import CodebookConfig
from sonar.train.loop import Precision
from sonar.train.objective import DistillConfig
from sonar.train.optim import OptimConfig


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How long and on what each stage trains.

    Attributes:
        batch_size: clips per optimiser step over all workers (inferred: 32).
        clip_seconds: length of a training crop in seconds (inferred: 10).
        epochs: passes over the mixture in each of the tokenizer and the model stage (paper: 10).
        tokenizer_steps: optimiser steps of the tokenizer stage; None: from `epochs`; 0: stage left out.
        model_steps: the same for the model stage.
        head_steps: steps of the head warm-up on prior audio; 0: none (inferred: 200).
        predictor_steps: steps of the predictor re-warm after the tokenizer stage (inferred: 100).
        interpolation: alpha of the encoder that is kept, old + alpha (trained - old), in [0, 1]; 1: as trained (paper).
        reset_heads: start from random heads even if the checkpoint holds trained ones.
        num_workers: processes that train together.
        precision: fp32, or bf16 autocast with the codebook in fp32.
        checkpoint_every: steps between two saved states.
        seed: of every draw of a run.
    """

    batch_size: int = 32
    clip_seconds: float = 10.0
    epochs: float = 10.0
    tokenizer_steps: int | None = None
    model_steps: int | None = None
    head_steps: int = 200
    predictor_steps: int = 100
    interpolation: float = 1.0
    reset_heads: bool = False
    num_workers: int = 1
    precision: Precision = "fp32"
    checkpoint_every: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse sizes that cannot train."""
        for name in ("batch_size", "num_workers", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be >= 1")
        if self.batch_size % self.num_workers:
            raise ValueError(f"batch_size {self.batch_size} does not divide by num_workers {self.num_workers}")
        for name in ("head_steps", "predictor_steps", "epochs", "tokenizer_steps", "model_steps"):
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be >= 0")
        if not 0 <= self.interpolation <= 1:
            raise ValueError(f"interpolation is {self.interpolation}; it must lie in [0, 1]")


@dataclass(frozen=True, kw_only=True)
class AdaptConfig:
    """The part of a trial's configuration that training reads; see the owners of its fields."""

    distill: DistillConfig
    codebook: CodebookConfig
    optim: OptimConfig
    training: TrainingConfig
    replay_ratio: float
