"""The online clustered codebook: unit code vectors that follow the tokens, revived where unused."""

# Shapes: N tokens, K codes, d code width, (...) any leading shape.

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from sonar.model.ranks import gather_rows, shared_generator, sum_over_ranks
from sonar.model.revival import (
    AnchorRule,
    code_statistics,
    cosine_kmeans,
    find_anchors,
    moved_vectors,
    moving_average,
    perplexity,
    revive_rate,
    strongest_only,
)

Revival = Literal["online", "hard", "none"]
LIVE_RATE = 1e-3  # codes that would move less than this are live and left alone [inferred]
REVIVED_RATE = 0.5  # codes that move more than half of the way count as revived


@dataclass(frozen=True, kw_only=True)
class CodebookConfig:
    """How a codebook is updated; the defaults are SONAR's.

    Source: SONAR, arXiv:2509.15703; CVQ-VAE, arXiv:2307.15139; BEATs, arXiv:2212.09058.
    """

    ema_decay: float = 0.99  # of vectors and cluster sizes, BEATs
    usage_decay: float = 0.9  # gamma, SONAR; revives codes below 2-5 % of uniform use, needs 16k tokens a step
    revive_scale: float = 10.0  # CVQ-VAE; [unknown] in SONAR
    anchor: AnchorRule = "centroid"  # SONAR
    revival: Revival = "online"  # "online" = SONAR; "hard" = replace below dead_threshold; "none"
    dead_threshold: float = 0.02  # relative use, 1 = uniform, below which a code counts as dead
    prior_usage_floor: float = 0.0  # kappa: use counts as at least this times the prior use; 0 = paper, 0.5 = robust
    max_revive_fraction: float = 1.0  # share of all codes that may move in one step; 1 = paper, 0.05 = robust
    freeze_fraction: float = 0.0  # share of the stage's steps, its last, without revival; 0 = paper, 0.2 = robust
    collapse_fraction: float = 0.05  # of the prior perplexity; a run whose use falls below stops; 0: never [inferred]

    def __post_init__(self) -> None:
        """Raise ValueError for values outside their range."""
        checks = {
            "ema_decay": (0 <= self.ema_decay < 1, "lie in [0, 1)"),
            "usage_decay": (0 <= self.usage_decay < 1, "lie in [0, 1)"),
            "revive_scale": (self.revive_scale >= 0, "be 0 or more"),
            "dead_threshold": (self.dead_threshold >= 0, "be 0 or more"),
            "prior_usage_floor": (self.prior_usage_floor >= 0, "be 0 or more"),
            "max_revive_fraction": (0 < self.max_revive_fraction <= 1, "lie in (0, 1]"),
            "freeze_fraction": (0 <= self.freeze_fraction <= 1, "lie in [0, 1]"),
            "collapse_fraction": (0 <= self.collapse_fraction <= 1, "lie in [0, 1]"),
        }
        for name, (is_allowed, allowed) in checks.items():
            if not is_allowed:
                raise ValueError(f"{name} is {getattr(self, name)}: it must {allowed}")
        for name, choices in (("anchor", get_args(AnchorRule)), ("revival", get_args(Revival))):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is {getattr(self, name)!r}: give one of {list(choices)}")

    def at(self, progress: float) -> "CodebookConfig":
        """The rule when this share of the stage's steps is done: no revival in the last `freeze_fraction` of them."""
        return self if progress < 1.0 - self.freeze_fraction else replace(self, revival="none")


class Quantized(NamedTuple):
    """Tokens and their codes."""

    codes: Tensor  # (...) int64
    quantized: Tensor  # (..., d) float32: the code vectors, with the embedding's gradient (straight-through)
    embedding: Tensor  # (..., d) float32, l2-normalised


class CodebookHealth(NamedTuple):
    """One update in numbers, over the tokens of all ranks."""

    revived: int  # codes that moved more than half of the way to an anchor
    perplexity: float  # of this step's codes, 1 to K
    coverage: float  # share of codes that this step used
    dead_share: float  # share of codes whose moving usage is below `dead_threshold`


class Codebook(nn.Module):
    """K unit vectors as float32 buffers: they follow moving averages and never get a gradient."""

    vectors: Tensor  # (K, d) unit rows
    cluster_size: Tensor  # (K,) moving average of tokens per step
    usage: Tensor  # (K,) moving average of the share of tokens
    prior_usage: Tensor  # (K,) share of tokens in the prior corpus, as given to `set_usage`

    def __init__(self, num_codes: int, code_width: int) -> None:
        """Make an empty codebook; fill it by `initialise`, `init_kmeans` or a checkpoint."""
        super().__init__()
        if num_codes < 2 or code_width < 1:
            raise ValueError(f"num_codes is {num_codes} and code_width {code_width}: at least 2 and 1 are needed")
        self.register_buffer("vectors", torch.zeros(num_codes, code_width))
        for name in ("cluster_size", "usage", "prior_usage"):
            self.register_buffer(name, torch.zeros(num_codes))

    @property
    def num_codes(self) -> int:
        """K."""
        return self.vectors.shape[0]

    def initialise(self, generator: torch.Generator) -> None:
        """Random directions, and use as if uniform so far."""
        drawn = torch.randn(self.vectors.shape, generator=generator, device=generator.device)
        self.vectors.copy_(functional.normalize(drawn, dim=1))
        self.cluster_size.zero_()
        self.usage.fill_(1.0 / self.num_codes)
        self.prior_usage.fill_(1.0 / self.num_codes)

    def assign(self, embedding: Tensor) -> Tensor:
        """The nearest code of each token, by the distance of the l2-normalised token.

        Args:
            embedding: (..., d); need not be normalised.

        Returns:
            (...) int64.
        """
        with torch.no_grad(), torch.autocast(embedding.device.type, enabled=False):
            return self._nearest(functional.normalize(embedding.float(), dim=-1))

    def quantize(self, embedding: Tensor) -> Quantized:
        """Codes and code vectors of tokens (..., d); the gradient passes straight to the unit embedding."""
        with torch.autocast(embedding.device.type, enabled=False):
            unit = functional.normalize(embedding.float(), dim=-1)  # (..., d)
            codes = self._nearest(unit.detach())  # (...)
            chosen = functional.embedding(codes, self.vectors)  # (..., d)
            return Quantized(codes, chosen + (unit - unit.detach()), unit)

    def _nearest(self, unit: Tensor) -> Tensor:
        """The code that minimises |unit - v|^2, without the constant |unit|^2: (..., d) to (...)."""
        tokens = unit.reshape(-1, unit.shape[-1])  # (N, d)
        shift = self.vectors.square().sum(1) * -0.5  # (K,)
        return torch.addmm(shift, tokens, self.vectors.t()).argmax(1).view(unit.shape[:-1])

    @torch.no_grad()
    def update(
        self, embedding: Tensor, codes: Tensor, config: CodebookConfig, generator: torch.Generator
    ) -> CodebookHealth:
        """One step of moving averages and revival; call it after the backward pass, on every rank.

        Needs about 16k tokens over all ranks at the default gamma: with under 4k, healthy rare codes are
        overwritten. Memory: when a code moves, all ranks' tokens are gathered on each (see `gather_rows`).

        Args:
            embedding: (N, d) this rank's tokens that are no padding; normalised here.
            codes: (N,) int64 as assigned in this step.
            config: rates and rules, the same on all ranks.
            generator: draws for the random rules; only rank 0's is used.

        Returns:
            `CodebookHealth`.

        Raises:
            ValueError: if there are no tokens on any rank.
        """
        with torch.autocast(embedding.device.type, enabled=False):
            tokens = functional.normalize(embedding.detach().float(), dim=1)  # (N, d)
            counts, sums = code_statistics(tokens, codes, self.num_codes)
            sum_over_ranks(counts)
            sum_over_ranks(sums)
            total = float(counts.sum())
            if total == 0:
                raise ValueError("no tokens to update the codebook with: give at least one that is no padding")
            self.vectors.copy_(moved_vectors(self.vectors, sums, counts, config.ema_decay))
            self.cluster_size.copy_(moving_average(self.cluster_size, counts, config.ema_decay))
            self.usage.copy_(moving_average(self.usage, counts / total, config.usage_decay))
            revived = self._revive(tokens, config, generator)
        coverage = float((counts > 0).float().mean())
        dead_share = float((self.usage * self.num_codes < config.dead_threshold).float().mean())
        return CodebookHealth(revived, perplexity(counts), coverage, dead_share)

    def _revive(self, tokens: Tensor, config: CodebookConfig, generator: torch.Generator) -> int:
        """Move under-used codes towards anchors among all ranks' tokens; returns how many were revived."""
        rate = self._rates(config)  # (K,)
        order = rate.argsort(descending=True, stable=True)
        moving = order[: int((rate >= LIVE_RATE).sum())]  # (R,) most urgent first
        if not len(moving):
            return 0
        tokens = gather_rows(tokens)
        rule: AnchorRule = "random" if config.revival == "hard" else config.anchor
        num_tokens = max(1, tokens.shape[0] // self.num_codes)
        draws = shared_generator(generator, tokens.device)
        anchors = find_anchors(self.vectors[moving], tokens, num_tokens, rule, draws)
        moving = moving[: len(anchors)]  # (R,), fewer where tokens are few
        alpha = rate[moving].unsqueeze(1)  # (R, 1)
        self.vectors[moving] = functional.normalize((1.0 - alpha) * self.vectors[moving] + alpha * anchors, dim=1)
        if config.revival == "hard":
            self.usage[moving] = config.dead_threshold / self.num_codes
        return int((alpha >= REVIVED_RATE).sum())

    def _rates(self, config: CodebookConfig) -> Tensor:
        """How far each code is to move: (K,)."""
        usage = torch.maximum(self.usage, config.prior_usage_floor * self.prior_usage)
        if config.revival == "none":
            return torch.zeros_like(usage)
        if config.revival == "hard":
            rate = (usage * self.num_codes < config.dead_threshold).float()
        else:
            rate = revive_rate(usage, config.revive_scale, config.usage_decay)
        return strongest_only(rate, max(1, int(config.max_revive_fraction * self.num_codes)))

    @torch.no_grad()
    def set_usage(self, codes: Tensor) -> None:
        """Start use from the prior corpus, so that the first steps overwrite no trained code.

        Args:
            codes: (N,) int64 codes of prior tokens of this rank, at least one over all ranks.

        Raises:
            ValueError: if there are none.
        """
        counts = sum_over_ranks(torch.bincount(codes.flatten(), minlength=self.num_codes).float())
        if not counts.sum() > 0:
            raise ValueError("no prior codes given: give the codes of at least one prior token")
        self.prior_usage.copy_(counts / counts.sum())
        self.usage.copy_(self.prior_usage)

    @torch.no_grad()
    def init_kmeans(self, embedding: Tensor, generator: torch.Generator, num_iterations: int = 10) -> None:
        """Set vectors, cluster sizes and use by cosine k-means over the tokens of all ranks.

        Args:
            embedding: (N, d) this rank's tokens, at least K over all ranks; normalised here.
            generator: draws K tokens to start from; only rank 0's is used.
            num_iterations: of k-means, 10 in BEATs.

        Raises:
            ValueError: if there are fewer tokens than codes.
        """
        with torch.autocast(embedding.device.type, enabled=False):
            tokens = gather_rows(functional.normalize(embedding.float(), dim=1))
            if len(tokens) < self.num_codes:
                raise ValueError(f"{len(tokens)} tokens for {self.num_codes} codes: give a larger first batch")
            draws = shared_generator(generator, tokens.device)
            drawn = torch.randperm(len(tokens), generator=draws, device=tokens.device)[: self.num_codes]
            means, counts = cosine_kmeans(tokens, tokens[drawn], num_iterations)
            self.vectors.copy_(means)
            self.cluster_size.copy_(counts)
            self.usage.copy_(counts / len(tokens))
