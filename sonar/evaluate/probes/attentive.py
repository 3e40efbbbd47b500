"""The attentive probe: learned queries pool the patches of a frozen encoder, a linear layer reads what they pooled.

Shapes: N clips, B of a batch, L patches, D width, Q queries, C classes, P candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sonar.evaluate.probes.config import AttentiveConfig
from sonar.evaluate.probes.data import Patches, class_weights
from sonar.evaluate.scores import is_multi_label

QUERY_STD = 0.1  # near 0: the probe starts close to mean pooling

Batch = tuple[Tensor, Tensor]  # (B, L, D) float32 standardised; (B, L) bool, True where padded


class Candidate(NamedTuple):
    """How a probe is trained."""

    lr: float
    weight_decay: float


class AttentivePooling(nn.Module):
    """Q D (1 + C) + C parameters."""

    def __init__(self, width: int, num_queries: int, num_classes: int, generator: torch.Generator) -> None:
        """Queries drawn from `generator`; the linear layer starts at 0."""
        super().__init__()
        self.queries = nn.Parameter(QUERY_STD * torch.randn(num_queries, width, generator=generator))
        self.weight = nn.Parameter(torch.zeros(num_classes, num_queries * width))
        self.bias = nn.Parameter(torch.zeros(num_classes))

    def forward(self, patches: Tensor, padding: Tensor) -> Tensor:
        """(B, L, D) and (B, L), True where padded, to logits (B, C)."""
        affinity = patches @ (self.queries.T / patches.shape[-1] ** 0.5)  # (B, L, Q)
        weights = affinity.masked_fill(padding.unsqueeze(-1), -torch.inf).softmax(dim=1)
        pooled = weights.transpose(1, 2) @ patches  # (B, Q, D)
        return functional.linear(pooled.flatten(1), self.weight, self.bias)


def attentive_scores(
    fitted: Patches,
    targets: np.ndarray,
    others: Patches,
    candidates: Sequence[Candidate],
    config: AttentiveConfig,
    seed: int,
) -> np.ndarray:
    """Logits of several candidates, trained side by side on the same batches.

    Cross-entropy with classes that count alike; in a multi-label task binary cross-entropy. AdamW, cosine to 0.

    Args:
        fitted: N clips; patches are standardised by their mean and deviation.
        targets: (N, C) bool of the fitted clips.
        others: M clips.
        candidates: P of them.
        config: of the probe.
        seed: of the first weights and of the order of the clips.

    Returns:
        (P, M, C) float32.

    Raises:
        ValueError: a candidate has diverged.
    """
    mean, deviation = _moments(fitted, config.batch_size)
    generator = torch.Generator().manual_seed(seed)
    shape = (fitted.table.shape[-1], config.num_queries, targets.shape[1])
    probes = [AttentivePooling(*shape, torch.Generator().manual_seed(seed)) for _ in candidates]
    groups = [{"params": list(p.parameters()), **c._asdict()} for p, c in zip(probes, candidates, strict=True)]
    optimizer = torch.optim.AdamW(groups)
    steps = config.epochs * -(-len(fitted.rows) // config.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    loss_of = _loss(targets)
    for _ in range(config.epochs):
        for rows in torch.randperm(len(fitted.rows), generator=generator).split(config.batch_size):
            batch = _batch(fitted.take(rows.numpy()), mean, deviation)
            truth = torch.from_numpy(targets[rows.numpy()])
            optimizer.zero_grad()
            torch.stack([loss_of(probe(*batch), truth) for probe in probes]).sum().backward()
            optimizer.step()
            schedule.step()
    return _logits(probes, candidates, (_batch(part, mean, deviation) for part in others.parts(config.batch_size)))


@torch.no_grad()
def _logits(
    probes: Sequence[AttentivePooling], candidates: Sequence[Candidate], batches: Iterable[Batch]
) -> np.ndarray:
    tables = torch.cat([torch.stack([probe(*batch) for probe in probes]) for batch in batches], dim=1)  # (P, M, C)
    for candidate, table in zip(candidates, tables, strict=True):
        if not torch.isfinite(table).all():
            raise ValueError(f"the attentive probe has diverged at lr {candidate.lr}; leave it out of attentive.lrs")
    return tables.numpy()


def _loss(targets: np.ndarray) -> Callable[[Tensor, Tensor], Tensor]:
    """Of logits (B, C) and truth (B, C) bool."""
    if is_multi_label(targets):
        return lambda logits, truth: functional.binary_cross_entropy_with_logits(logits, truth.float())
    weights = torch.from_numpy(class_weights(targets)).float()
    return lambda logits, truth: functional.cross_entropy(logits, truth.long().argmax(dim=1), weights)


def _moments(patches: Patches, batch_size: int) -> Batch:
    """Mean and deviation (D,) float32 over all patches that are no padding; a constant dimension has deviation 1."""
    count, first, second = 0, torch.zeros(()).double(), torch.zeros(()).double()
    for part in patches.parts(batch_size):
        values, padding = part.read()
        own = torch.from_numpy(values[~padding]).double()  # (patches of the part, D)
        count, first, second = count + len(own), first + own.sum(0), second + own.square().sum(0)
    mean = first / count
    deviation = (second / count - mean.square()).clamp(min=0).sqrt()
    return mean.float(), torch.where(deviation > 1e-6, deviation, 1.0).float()


def _batch(part: Patches, mean: Tensor, deviation: Tensor) -> Batch:
    values, padding = part.read()
    # Torch widens half precision several times as fast as numpy does.
    return (torch.from_numpy(values).float() - mean) / deviation, torch.from_numpy(padding)
