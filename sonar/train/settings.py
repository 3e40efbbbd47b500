"""The configuration of one adaptation: how long and on what each stage trains."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from sonar.data.audio import seconds_to_samples
from sonar.model.codebook import CodebookConfig
from sonar.model.fbank import num_patches
from sonar.model.revival import tokens_needed
from sonar.train.accumulation import Precision
from sonar.train.objective import DistillConfig
from sonar.train.optim import OptimConfig

Schedule = Literal["staged", "interleaved"]
_NOT_NEGATIVE = ("epochs", "tokenizer_steps", "model_steps", "head_steps", "predictor_steps", "plateau_window",
                 "plateau_gain", "churn_every", "feature_cache_gb")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How long and on what each stage trains.

    Attributes:
        batch_size: clips per optimiser step over all workers (inferred: 32).
        clip_seconds: length of a training crop in seconds (inferred: 10).
        epochs: passes over the mixture in each of the tokenizer and the model stage (paper: 10).
        tokenizer_steps: optimiser steps of the tokenizer stage; None: from `epochs`; 0: stage left out.
        model_steps: the same for the model stage.
        head_steps: most steps of the head warm-up on prior audio; 0: none (inferred: 200).
        plateau_window: steps; the head warm-up ends when the masked accuracy of such a window is not better than that
            of the window before by more than `plateau_gain`; 0: it takes all its steps (inferred: 25).
        plateau_gain: share of the masked patches, in [0, 1] (inferred: 0.005).
        predictor_steps: steps of the predictor re-warm after the tokenizer stage (inferred: 100).
        schedule: "staged" = the tokenizer stage, then the model stage (BEATs; the paper does not say); "interleaved" =
            blocks of both in turn, without a predictor re-warm.
        interleave_steps: steps of a block (inferred: 10).
        interpolation: alpha of the encoder that is kept, old + alpha (trained - old), in [0, 1]; 1: as trained (paper).
        reset_heads: start from random heads even if the checkpoint holds trained ones.
        num_workers: processes that train together.
        accumulation: micro-batches per step and worker, for less memory; the step stays that of the whole batch.
        checkpoint_activations: keep the inputs of the trained transformer layers only and compute the rest again in the
            backward pass; the step stays what it is (bench/memory.py: its price and gain).
        compile_layers: fuse the transformer layers with torch.compile; the step stays what it is but for rounding, the
            first one takes a minute. It may pay for large batches on a GPU (docs/speed.md, "Compiled layers").
        precision: fp32, or bf16 autocast with the codebook in fp32.
        feature_cache_gb: most gigabytes on disk, for each base, of what the old encoder and tokenizer say of whole
            clips, in half precision, shared by the trials of a sweep (BEATs-base: 0.55 an hour of audio); 0: none.
        checkpoint_every: steps between two saved states.
        churn_every: steps of the tokenizer stage between two measurements of label churn, which is measured at the
            stage's end too; 0: never (inferred: 50).
        seed: of every draw of a run.
    """

    batch_size: int = 32
    clip_seconds: float = 10.0
    epochs: float = 10.0
    tokenizer_steps: int | None = None
    model_steps: int | None = None
    head_steps: int = 200
    plateau_window: int = 25
    plateau_gain: float = 0.005
    predictor_steps: int = 100
    schedule: Schedule = "staged"
    interleave_steps: int = 10
    interpolation: float = 1.0
    reset_heads: bool = False
    num_workers: int = 1
    accumulation: int = 1
    checkpoint_activations: bool = False
    compile_layers: bool = False
    precision: Precision = "fp32"
    feature_cache_gb: float = 16.0
    checkpoint_every: int = 200
    churn_every: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse sizes that cannot train."""
        for name in ("batch_size", "num_workers", "accumulation", "interleave_steps", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be >= 1")
        if self.batch_size % (self.num_workers * self.accumulation):
            raise ValueError(
                f"batch_size {self.batch_size} does not divide by num_workers {self.num_workers} x accumulation "
                f"{self.accumulation}; give a multiple"
            )
        for name in _NOT_NEGATIVE:
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be >= 0")
        if self.schedule not in get_args(Schedule):
            raise ValueError(f"schedule is {self.schedule!r}; give one of {list(get_args(Schedule))}")
        if not 0 <= self.interpolation <= 1:
            raise ValueError(f"interpolation is {self.interpolation}; it must lie in [0, 1]")

    def for_memory(self, num_parts: int | None) -> str:
        """What to set where a step found no memory.

        Args:
            num_parts: micro-batches that a worker's batch must be split into; None: not even single clips fit.
        """
        if num_parts is None:
            less = "" if self.checkpoint_activations else "Set training.checkpoint_activations=true, or shorten "
            return f"{less or 'Shorten '}training.clip_seconds, or train on a machine with more memory"
        size = self.batch_size * self.accumulation // num_parts
        return (
            f"Set training.accumulation={num_parts}, which keeps the step what it is, or training.batch_size={size}, "
            "which makes it a smaller one"
        )


@dataclass(frozen=True, kw_only=True)
class AdaptConfig:
    """The part of a trial's configuration that training reads; see the owners of its fields."""

    distill: DistillConfig
    codebook: CodebookConfig
    optim: OptimConfig
    training: TrainingConfig
    replay_ratio: float

    def token_shortage(self, num_codes: int) -> str | None:
        """A warning where a step of full clips has too few tokens for the codebook's revival, or None."""
        if self.codebook.revival != "online" or self.training.tokenizer_steps == 0:
            return None
        gamma = self.codebook.usage_decay
        most = self.training.batch_size * num_patches(seconds_to_samples(self.training.clip_seconds))
        needed = tokens_needed(num_codes, gamma)
        if most >= needed:
            return None
        enough = math.ceil(1e4 * (1 - (1 - gamma) * most / needed)) / 1e4
        return (
            f"warning: a step has {most} tokens at most, and revival of {num_codes} codes at codebook.usage_decay "
            f"{gamma} needs {needed}: healthy rare codes may be overwritten. Raise training.batch_size or "
            f"training.clip_seconds, or codebook.usage_decay to {enough}"
        )
