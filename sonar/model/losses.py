"""Losses of both stages: pure functions of tensors, in float32; the caller weights them."""

# Shapes: N tokens, K codes, d code width, (...) any leading shape, usually (B, L).

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Reduction = Literal["mean", "sum"]


def masked_prediction_loss(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy of the tokenizer's labels at the masked patches.

    Args:
        logits: (N, K) of the masked patches, unnormalised; N at least 1.
        labels: (N,) int64 in [0, K).
        label_smoothing: share of the target spread evenly over all codes, in [0, 1).

    Returns:
        () float32, nats per masked patch; uniform logits cost log K.

    Raises:
        ValueError: if there is no masked patch or the shapes disagree.

    Source: BEATs, arXiv:2212.09058, masked audio modelling loss.
    """
    if logits.ndim != 2 or logits.shape[0] == 0 or labels.shape != logits.shape[:1]:
        raise ValueError(
            f"logits {tuple(logits.shape)} and labels {tuple(labels.shape)} do not fit: "
            "give (N, K) and (N,), N at least 1"
        )
    return functional.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing)


def cosine_alignment_loss(estimate: Tensor, target: Tensor, keep: Tensor) -> Tensor:
    """Mean of 1 - cos(estimate, target) over the kept tokens: L1 of SONAR's tokenizer stage.

    Args:
        estimate: (..., D) output of the tokenizer's estimator.
        target: (..., D) the teacher's features; gets no gradient.
        keep: (...) bool, False at padding; never all False (that gives NaN).

    Returns:
        () float32 in [0, 2].

    Source: BEATs, arXiv:2212.09058, self-distilled tokenizer.
    """
    _check_shapes(estimate, target, keep)
    cosine = functional.cosine_similarity(estimate.float(), target.detach().float(), dim=-1)  # (...)
    return _mean_kept(1.0 - cosine, keep)


def commitment_loss(embedding: Tensor, vectors: Tensor, keep: Tensor, reduction: Reduction = "mean") -> Tensor:
    """Squared distance of the embedding to its code vector: L2 of SONAR's tokenizer stage, before its weight.

    Args:
        embedding: (..., d) l2-normalised.
        vectors: (..., d) the chosen code vectors; get no gradient (the codebook moves by moving averages).
        keep: (...) bool, False at padding; never all False.
        reduction: over d: "mean" as mse_loss (BEATs, ESPnet: a weight of 10 then is usual), or "sum".

    Returns:
        () float32.

    Source: VQ-VAE, arXiv:1711.00937; BEATs, arXiv:2212.09058.
    """
    _check_shapes(embedding, vectors, keep)
    return _mean_kept(_squared(embedding.float() - vectors.detach().float(), reduction), keep)


def normalised_l2_loss(student: Tensor, teacher: Tensor, keep: Tensor, reduction: Reduction = "mean") -> Tensor:
    """Squared distance of l2-normalised features: SONAR's L3 (tokenizer) and feature distillation (model).

    Args:
        student: (..., D).
        teacher: (..., D) from the frozen previous model; gets no gradient.
        keep: (...) bool, False at padding and at clips that are not to be distilled; may be all False.
        reduction: over D: "mean", or "sum" = squared norm, which is 2 (1 - cos).

    Returns:
        () float32; exactly 0 for equal inputs, and where no token is kept.

    Source: SONAR, arXiv:2509.15703, L3 and L_MAM; the reduction is [unknown] there.
    """
    _check_shapes(student, teacher, keep)
    difference = functional.normalize(student.float(), dim=-1) - functional.normalize(teacher.detach().float(), dim=-1)
    return _squared(difference, reduction).masked_fill(~keep, 0.0).sum() / keep.sum().clamp(min=1)


def start_point_penalty(parameters: Iterable[Tensor], start: Iterable[Tensor]) -> Tensor:
    """Half the squared distance of parameters to their start: L2-SP, whose gradient is theta - theta0.

    Args:
        parameters: theta, any shapes.
        start: theta0, the same shapes in the same order; gets no gradient.

    Returns:
        () float32; exactly 0 at the start.

    Source: L2-SP, arXiv:1802.01483, the term of the pre-trained weights.
    """
    halves = [0.5 * (now.float() - then.detach().float()).square().sum()
              for now, then in zip(parameters, start, strict=True)]  # fmt: skip
    return torch.stack(halves).sum()


def contrastive_code_loss(embedding: Tensor, vectors: Tensor, codes: Tensor, temperature: float) -> Tensor:
    """Feature-anchored InfoNCE: pulls each token to its code and away from all others.

    Args:
        embedding: (N, d) tokens; normalised here.
        vectors: (K, d) the codebook; gets no gradient.
        codes: (N,) int64, each token's code.
        temperature: divides the cosines, above 0 (SONAR: 0.3).

    Returns:
        () float32, nats per token; log K when all codes are equally near.

    Raises:
        ValueError: for a temperature that is not positive or no tokens.

    Source: SONAR, arXiv:2509.15703, contrastive loss; its form for a moving-average codebook is [inferred].
    """
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}: it must be above 0")
    if embedding.ndim != 2 or embedding.shape[0] == 0 or codes.shape != embedding.shape[:1]:
        raise ValueError(
            f"embedding {tuple(embedding.shape)} and codes {tuple(codes.shape)} do not fit: "
            "give (N, d) and (N,), N at least 1"
        )
    with torch.autocast(embedding.device.type, enabled=False):
        tokens = functional.normalize(embedding.float(), dim=-1)
        cosines = tokens @ functional.normalize(vectors.detach().float(), dim=-1).t()  # (N, K)
        return functional.cross_entropy(cosines / temperature, codes)


def _squared(difference: Tensor, reduction: Reduction) -> Tensor:
    """Squares (..., D) reduced over the last axis: (...)."""
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction is {reduction!r}: give 'mean' or 'sum'")
    squares = difference.square()
    return squares.mean(-1) if reduction == "mean" else squares.sum(-1)


def _mean_kept(values: Tensor, keep: Tensor) -> Tensor:
    """Mean of the kept values: (...) to ()."""
    return values.masked_fill(~keep, 0.0).sum() / keep.sum()


def _check_shapes(features: Tensor, target: Tensor, keep: Tensor) -> None:
    """Raise ValueError unless both features are (..., D) and keep is (...)."""
    if features.shape != target.shape or keep.shape != features.shape[:-1]:
        raise ValueError(
            f"shapes {tuple(features.shape)}, {tuple(target.shape)} and keep {tuple(keep.shape)} do not fit: "
            "give (..., D) twice and (...)"
        )
