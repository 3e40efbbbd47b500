"""Rules by which a codebook follows its tokens and revives unused codes: pure functions.

Source: moving averages of BEATs, arXiv:2212.09058; revival of CVQ-VAE, arXiv:2307.15139.
"""

# Shapes: N tokens, K codes, R revived codes, d code width.

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

AnchorRule = Literal["centroid", "closest", "probrandom", "random"]
HITS_NEEDED = 160  # behind the moving usage of a code at uniform use, for revival to spare healthy codes [inferred]
ANCHOR_BLOCK = 64  # codes whose similarities to all tokens are held at once


def moving_average(old: Tensor, new: Tensor, decay: float) -> Tensor:
    """One step of an exponential moving average: decay * old + (1 - decay) * new."""
    return old * decay + new * (1.0 - decay)


def moved_vectors(vectors: Tensor, sums: Tensor, counts: Tensor, decay: float) -> Tensor:
    """Code vectors after one step of moving averages; codes without a token stay as they are.

    Args:
        vectors: (K, d) unit rows.
        sums: (K, d) sum of the l2-normalised tokens of each code.
        counts: (K,) tokens of each code.
        decay: weight of the old vector.

    Returns:
        (K, d) unit rows: l2(decay v + (1 - decay) l2(mean of tokens)).
    """
    hit = (counts > 0).unsqueeze(1)  # (K, 1)
    moved = moving_average(vectors, functional.normalize(sums, dim=1), decay)
    return torch.where(hit, functional.normalize(moved, dim=1), vectors)


def revive_rate(usage: Tensor, scale: float, decay: float) -> Tensor:
    """How far each code moves to its anchor: near 1 without use, near 0 from a tenth of uniform use on.

    Args:
        usage: (K,) share of all tokens, 1 / K when uniform.
        scale: `revive_scale`, 10 in CVQ-VAE.
        decay: gamma of the usage's moving average.

    Returns:
        (K,) exp(-scale K usage / (1 - decay) - 1e-3).

    Source: CVQ-VAE, arXiv:2307.15139, eq. of alpha.
    """
    return torch.exp(-scale * len(usage) * usage / (1.0 - decay) - 1e-3)


def tokens_needed(num_codes: int, usage_decay: float) -> int:
    """Tokens per step, over all workers, below which chance alone makes healthy rare codes look unused.

    At uniform use the moving average of a code's usage rests on N / (K (1 - gamma)) hits; `HITS_NEEDED` are what 16k
    tokens give K = 1024 at gamma = 0.9.
    """
    return math.ceil(HITS_NEEDED * num_codes * (1.0 - usage_decay) - 1e-6)


def strongest_only(rate: Tensor, most: int) -> Tensor:
    """The rates with all but the `most` highest set to zero: (K,)."""
    kept = rate.argsort(descending=True, stable=True)[:most]
    return torch.zeros_like(rate).index_copy(0, kept, rate[kept])


def find_anchors(
    vectors: Tensor, tokens: Tensor, num_tokens: int, rule: AnchorRule, generator: torch.Generator
) -> Tensor:
    """An anchor for each code, all distinct: no token serves two codes, earlier codes choose first.

    Args:
        vectors: (R, d) unit rows, the codes to revive, the most urgent first.
        tokens: (N, d) unit rows.
        num_tokens: tokens averaged per anchor by "centroid"; the other rules take one.
        rule: "centroid" = mean of the most similar tokens, "closest" = the most similar one, "probrandom" =
            one drawn from softmax(similarity), "random" = any.
        generator: on the tokens' device.

    Returns:
        (min(R, N // tokens per anchor), d).
    """
    size = num_tokens if rule == "centroid" else 1
    claimed = tokens.new_zeros(tokens.shape[0])  # (N,), -inf once taken
    anchors = []
    for block in vectors[: tokens.shape[0] // size].split(ANCHOR_BLOCK):
        for scores in _token_scores(block @ tokens.t(), rule, generator):  # (N,)
            chosen = (scores + claimed).topk(size).indices  # (size,)
            claimed[chosen] = -math.inf
            anchors.append(tokens[chosen].mean(0))
    return torch.stack(anchors) if anchors else vectors[:0]


def _token_scores(similarity: Tensor, rule: AnchorRule, generator: torch.Generator) -> Tensor:
    """Scores (R, N) whose maximum is the rule's choice; Gumbel noise turns a maximum into a softmax draw."""
    if rule in ("centroid", "closest"):
        return similarity
    uniform = torch.rand(similarity.shape, generator=generator, device=similarity.device)
    gumbel = -torch.log(-torch.log(uniform.clamp_(1e-20, 1.0 - 1e-7)))
    return gumbel if rule == "random" else similarity + gumbel


def perplexity(counts: Tensor) -> float:
    """Exponential of the entropy of the counts (K,): K when uniform, 1 when one code takes all."""
    share = counts / counts.sum()
    return float(torch.exp(-torch.xlogy(share, share).sum()))


def cosine_kmeans(samples: Tensor, means: Tensor, num_iterations: int) -> tuple[Tensor, Tensor]:
    """Spherical k-means; a cluster without a sample keeps its mean.

    Args:
        samples: (N, d) unit rows.
        means: (K, d) unit rows to start from.
        num_iterations: assignments to make, 10 in BEATs.

    Returns:
        (K, d) unit means and (K,) samples per cluster at the last assignment.
    """
    counts = samples.new_zeros(means.shape[0])
    for _ in range(num_iterations):
        nearest = (samples @ means.t()).argmax(1)  # (N,)
        counts, sums = code_statistics(samples, nearest, means.shape[0])
        updated = functional.normalize(sums / counts.clamp(min=1.0).unsqueeze(1), dim=1)
        means = torch.where((counts > 0).unsqueeze(1), updated, means)
    return means, counts


def code_statistics(tokens: Tensor, codes: Tensor, num_codes: int) -> tuple[Tensor, Tensor]:
    """Tokens per code (K,) and their sum (K, d), float32."""
    counts = torch.bincount(codes, minlength=num_codes).float()
    sums = tokens.new_zeros(num_codes, tokens.shape[1]).index_add_(0, codes, tokens)
    return counts, sums
