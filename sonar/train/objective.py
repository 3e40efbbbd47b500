"""What the objectives of all stages share: the weights of the loss terms, and what a step's losses are.

Shapes: N tokens, d code width. The objectives: tokenizer_objective.py and model_objective.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn

from sonar.data.batch import Batch


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """Weights of the loss terms; defaults are the paper's where it gives one.

    Attributes:
        tokenizer_weight: lambda_reg of L3, the pull of the tokenizer encoder to the old one (paper: 1e6).
        tokenizer_reduction: mean or sum over the D dimensions in L3 (inferred: mean).
        model_weight: mu_reg, the pull of the encoder to the old one (inferred: 10).
        model_on: the clips that this pull acts on: all, or those of the prior corpora (inferred: all).
        model_layers: layers whose outputs are pulled, averaged, 1 being the first; none: the last (inferred).
        model_pass: visible: outputs for the visible patches of the masked pass; full: of an extra pass of both
            encoders over all patches (inferred: visible).
        through_predictor: the encoder's outputs pass an MLP, trained along and then dropped, before they are compared
            (CaSSLe, arXiv 2112.04215; paper: no).
        l2sp_weight: weight of half the squared distance of the encoder's parameters to the old ones
            (L2-SP, arXiv 1802.01483; paper: 0).
        contrastive_weight: lambda_contra (paper: 10).
        temperature: tau of the contrastive term (paper: 0.3).
        commitment_weight: beta of L2 (inferred: 10, as ESPnet trains BEATs).
        mask_ratio: share of non-padded patches hidden (BEATs: 0.75).
        label_smoothing: of the masked prediction loss, in [0, 1) (BEATs: 0).
    """

    tokenizer_weight: float = 1e6
    tokenizer_reduction: Literal["mean", "sum"] = "mean"
    model_weight: float = 10.0
    model_on: Literal["all", "prior"] = "all"
    model_layers: tuple[int, ...] = ()
    model_pass: Literal["visible", "full"] = "visible"
    through_predictor: bool = False
    l2sp_weight: float = 0.0
    contrastive_weight: float = 10.0
    temperature: float = 0.3
    commitment_weight: float = 10.0
    mask_ratio: float = 0.75
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        """Refuse negative weights, choices that there are not, and ratios that hide all or nothing."""
        for name in ("tokenizer_weight", "model_weight", "contrastive_weight", "commitment_weight", "l2sp_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; a loss weight is >= 0")
        self._check_model_options()
        if not 0 < self.mask_ratio < 1:
            raise ValueError(f"mask_ratio is {self.mask_ratio}; it must lie strictly between 0 and 1")
        if self.temperature <= 0:
            raise ValueError(f"temperature is {self.temperature}; it must be > 0")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing is {self.label_smoothing}; it must lie in [0, 1)")

    def _check_model_options(self) -> None:
        for name, allowed in (("model_on", ("all", "prior")), ("model_pass", ("visible", "full"))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; allowed: {', '.join(allowed)}")
        layers = self.model_layers
        if any(number < 1 for number in layers) or len(set(layers)) < len(layers):
            raise ValueError(f"model_layers is {list(layers)}; give different layers, counted from 1, or none")


ModuleT = TypeVar("ModuleT", bound=nn.Module)


class CodeAssignment(NamedTuple):
    """The tokens of one step that the codebook learns from.

    Attributes:
        embedding: (N, d) unit rows.
        codes: (N,) int64.
        is_replay: (N,) bool, True for tokens of prior clips.
    """

    embedding: Tensor
    codes: Tensor
    is_replay: Tensor


class LossTerms(NamedTuple):
    """The losses of one batch.

    Attributes:
        parts: name -> () float32, each term times its weight, with its graph; their sum is minimised.
        terms: name -> () detached, unweighted value of each term, and what else is shown.
        assignment: tokens for the codebook update, or None.
    """

    parts: dict[str, Tensor]
    terms: dict[str, Tensor]
    assignment: CodeAssignment | None = None

    @property
    def total(self) -> Tensor:
        """() sum of the parts."""
        return torch.stack(list(self.parts.values())).sum()


class Moment(NamedTuple):
    """Which step it is: `step` steps of the stage's `num_steps` are done."""

    stage: str
    step: int
    num_steps: int

    @property
    def progress(self) -> float:
        """Share of the stage that is done, in [0, 1)."""
        return self.step / self.num_steps

    def __str__(self) -> str:
        return f"stage {self.stage}, step {self.step}"


class Objective(Protocol):
    """What a stage minimises; an nn.Module."""

    def __call__(self, batch: Batch, generator: torch.Generator) -> LossTerms:
        """Losses of one batch."""

    def counts(self, batch: Batch) -> dict[str, int]:
        """How many tokens of the batch each term of its `LossTerms` is a mean over; must not need the models."""

    def after_step(
        self, assignment: CodeAssignment | None, generator: torch.Generator, moment: Moment
    ) -> dict[str, float]:
        """Updates outside autograd that follow the optimiser's step; returns what else the step is to show."""


def freeze(module: ModuleT) -> ModuleT:
    """Put a teacher in eval mode without gradients; returns the same module."""
    return module.eval().requires_grad_(False)


def weighted(terms: dict[str, Tensor], weights: dict[str, float]) -> dict[str, Tensor]:
    """The terms, each times its weight."""
    return {name: weights[name] * value for name, value in terms.items()}


def detached(terms: dict[str, Tensor]) -> dict[str, Tensor]:
    """The terms without their graph, to be shown."""
    return {name: value.detach() for name, value in terms.items()}
