"""Micro-batches and ranks that add up to the step of one large batch.

Every loss term is a mean over its own tokens, and how many those are depends on how much of a batch is padding. The
gradient of the large batch is therefore the sum, over micro-batches and ranks, of each term's gradient times the share
of the term's tokens that lie there.
"""

# Shapes: A micro-batches, E terms, N tokens, d code width.

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sonar.data.batch import Batch
from sonar.model.ranks import sum_over_ranks, world_size
from sonar.train.objective import CodeAssignment, LossTerms, Objective

Precision = Literal["fp32", "bf16"]
Shares = dict[str, float]


class StepLosses(NamedTuple):
    """The losses of one optimiser step.

    Attributes:
        terms: every shown term and `loss`, over the tokens of all micro-batches and ranks; the same on all ranks.
        assignment: this rank's tokens for the codebook update, or None.
    """

    terms: dict[str, float]
    assignment: CodeAssignment | None


def accumulate(
    objective: nn.Module, batch: Batch, draws: torch.Generator, num_parts: int, precision: Precision
) -> StepLosses:
    """Leave the gradient of the batches of all ranks, as if they were one, in the parameters.

    Args:
        objective: an `Objective`, or one wrapped for data parallel training.
        batch: of this rank.
        draws: on the CPU; micro-batches draw in turn what the whole batch would. Dropout draws otherwise.
        num_parts: micro-batches to split the batch into.
        precision: of the forward pass.
    """
    device = next(objective.parameters()).device
    inner = cast(Objective, objective.module if isinstance(objective, DistributedDataParallel) else objective)
    parts = split_batch(batch, num_parts)
    shares = term_shares([inner.counts(part) for part in parts], device)
    losses: list[LossTerms] = []
    for part, share in zip(parts, shares, strict=True):
        with _gradients_exchanged(objective, len(losses) == len(parts) - 1):
            with torch.autocast(device.type, torch.bfloat16, precision == "bf16"):
                losses.append(objective(part.to(device), draws))
            # Data parallel training averages gradients over the ranks, and the shares are to be summed.
            (shared_loss(losses[-1], share) * world_size()).backward()
    return merge_losses(losses, shares)


def split_batch(batch: Batch, parts: int) -> list[Batch]:
    """Consecutive micro-batches, in the order of the batch; their sizes differ by one clip at most."""
    bounds = [len(batch.clip_ids) * i // parts for i in range(parts + 1)]
    return [batch.rows(begin, end) for begin, end in pairwise(bounds)]


def term_shares(counts: Sequence[dict[str, int]], device: torch.device) -> list[Shares]:
    """Each micro-batch's share of a term's tokens on all ranks.

    Args:
        counts: for every micro-batch of this rank, the tokens that each term is a mean over.
        device: that the ranks exchange tensors on.

    Returns:
        For every micro-batch, the share of each term; 0 for a term that has no token anywhere.
    """
    names = list(counts[0])
    own = torch.tensor([[count[name] for name in names] for count in counts], device=device)  # (A, E) int64
    total = sum_over_ranks(own.sum(0)).clamp(min=1)  # (E,)
    shares = own.double() / total.double()  # (A, E)
    return [dict(zip(names, row, strict=True)) for row in shares.tolist()]


def shared_loss(losses: LossTerms, shares: Shares) -> Tensor:
    """() what a micro-batch adds to the loss of its step; a mean over no token is not a number and left out."""
    uncounted = (losses.parts.keys() | losses.terms.keys()) - shares.keys()
    assert not uncounted, f"the objective's `counts` lack {', '.join(sorted(uncounted))}"
    return torch.stack([value * shares[name] for name, value in losses.parts.items() if shares[name] > 0]).sum()


def merge_losses(losses: Sequence[LossTerms], shares: Sequence[Shares]) -> StepLosses:
    """The step that these micro-batches of this rank, and those of all others, add up to."""
    nothing = torch.zeros((), device=losses[0].total.device)
    sums = dict.fromkeys((*losses[0].terms, "loss"), nothing)
    for one, share in zip(losses, shares, strict=True):
        sums["loss"] = sums["loss"] + shared_loss(one, share).detach()
        for name, value in one.terms.items():
            if share[name] > 0:
                sums[name] = sums[name] + value * share[name]
    values = sum_over_ranks(torch.stack(list(sums.values())))  # (E,)
    return StepLosses(dict(zip(sums, values.tolist(), strict=True)), _merge_assignments(losses))


def _gradients_exchanged(objective: nn.Module, is_last: bool) -> AbstractContextManager[None]:
    """Ranks exchange gradients with the last micro-batch only."""
    if isinstance(objective, DistributedDataParallel) and not is_last:
        return objective.no_sync()
    return nullcontext()


def _merge_assignments(losses: Sequence[LossTerms]) -> CodeAssignment | None:
    given = [one.assignment for one in losses if one.assignment is not None]
    return CodeAssignment(*(torch.cat(field) for field in zip(*given, strict=True))) if given else None
