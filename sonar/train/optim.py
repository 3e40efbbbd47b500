"""Adam with linear warm-up and cosine decay."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import nn


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Optimiser of the tokenizer and model stages.

    Attributes:
        lr: peak learning rate (paper: 1e-4 with Adam).
        tokenizer_lr: that of the tokenizer stage; None: `lr`, as the paper gives one (BEATs: a tenth of the encoder's).
        final_lr: learning rate at the last step (inferred: 1e-6).
        warmup_fraction: share of the steps with a linear rise (inferred: 0.05).
        betas: Adam's moment decays (ESPnet's BEATs: 0.9, 0.98).
        eps: Adam's denominator term.
        clip_norm: largest gradient norm (inferred: 1.0).
        head_lr: learning rate of the head warm-up (inferred: 5e-4).
    """

    lr: float = 1e-4
    tokenizer_lr: float | None = None
    final_lr: float = 1e-6
    warmup_fraction: float = 0.05
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-8
    clip_norm: float = 1.0
    head_lr: float = 5e-4

    def __post_init__(self) -> None:
        """Refuse rates that cannot train."""
        for name in ("lr", "tokenizer_lr", "head_lr"):
            rate = getattr(self, name)
            if rate is not None and not rate > 0:
                raise ValueError(f"{name} is {rate}; a learning rate is > 0")
        if not 0 <= self.final_lr <= self.lr:
            raise ValueError(f"final_lr {self.final_lr} must lie in [0, lr = {self.lr}]")
        if not 0 <= self.warmup_fraction < 1:
            raise ValueError(f"warmup_fraction {self.warmup_fraction} must lie in [0, 1)")
        if self.clip_norm <= 0:
            raise ValueError(f"clip_norm {self.clip_norm} must be > 0")

    def at_rate(self, lr: float | None) -> OptimConfig:
        """The same with another peak rate, and a final one that is not above it; None: as it is."""
        return self if lr is None else replace(self, lr=lr, final_lr=min(self.final_lr, lr))


def learning_rate(step: int, num_steps: int, config: OptimConfig) -> float:
    """Learning rate at `step` of `num_steps`: linear rise to `lr`, then cosine to `final_lr`."""
    warmup_steps = math.ceil(config.warmup_fraction * num_steps)
    if step < warmup_steps:
        return config.lr * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, num_steps - 1 - warmup_steps)
    return config.final_lr + 0.5 * (config.lr - config.final_lr) * (1 + math.cos(math.pi * min(1.0, progress)))


def make_optimizer(parameters: Iterable[nn.Parameter], config: OptimConfig) -> torch.optim.Adam:
    """Adam over the parameters; the loop sets the learning rate before every step."""
    return torch.optim.Adam(parameters, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)
