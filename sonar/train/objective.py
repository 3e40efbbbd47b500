"""What each stage minimises: models and a batch in, named and weighted loss terms out.

Shapes: B clips, T samples, F frames, M mel bins, L patches, V visible patches, K codes, D width, d code width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from sonar.data.stream import Batch
from sonar.model.codebook import CodebookConfig, CodebookHealth
from sonar.model.encoder import BeatsEncoder
from sonar.model.inputs import Inputs, model_inputs
from sonar.model.losses import (
    commitment_loss,
    contrastive_code_loss,
    cosine_alignment_loss,
    masked_prediction_loss,
    normalised_l2_loss,
)
from sonar.model.masking import random_mask
from sonar.model.predictor import LabelPredictor
from sonar.model.tokenizer import RandomProjectionTokenizer, Tokenizer


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """Weights of the loss terms; defaults are the paper's where it gives one.

    Attributes:
        tokenizer_weight: lambda_reg of L3, the pull of the tokenizer encoder to the old one (paper: 1e6).
        tokenizer_reduction: mean or sum over the D dimensions in L3 (inferred: mean).
        model_weight: mu_reg, the pull of the encoder to the old one (inferred: 10).
        contrastive_weight: lambda_contra (paper: 10).
        temperature: tau of the contrastive term (paper: 0.3).
        commitment_weight: beta of L2 (inferred: 10, as ESPnet trains BEATs).
        mask_ratio: share of non-padded patches hidden (BEATs: 0.75).
        label_smoothing: of the masked prediction loss, in [0, 1) (BEATs: 0).
    """

    tokenizer_weight: float = 1e6
    tokenizer_reduction: Literal["mean", "sum"] = "mean"
    model_weight: float = 10.0
    contrastive_weight: float = 10.0
    temperature: float = 0.3
    commitment_weight: float = 10.0
    mask_ratio: float = 0.75
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        """Refuse negative weights and ratios that hide all or nothing."""
        for name in ("tokenizer_weight", "model_weight", "contrastive_weight", "commitment_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; a loss weight is >= 0")
        if not 0 < self.mask_ratio < 1:
            raise ValueError(f"mask_ratio is {self.mask_ratio}; it must lie strictly between 0 and 1")
        if self.temperature <= 0:
            raise ValueError(f"temperature is {self.temperature}; it must be > 0")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing is {self.label_smoothing}; it must lie in [0, 1)")


ModuleT = TypeVar("ModuleT", bound=nn.Module)


class CodeAssignment(NamedTuple):
    """The tokens of one step that the codebook learns from: embedding (N, d) unit rows, codes (N,)."""

    embedding: Tensor
    codes: Tensor


class LossTerms(NamedTuple):
    """One step's losses.

    Attributes:
        total: () float32, the weighted sum that is minimised.
        terms: name -> () detached, unweighted value of each term.
        assignment: tokens for the codebook update, or None.
    """

    total: Tensor
    terms: dict[str, Tensor]
    assignment: CodeAssignment | None = None


def freeze(module: ModuleT) -> ModuleT:
    """Put a teacher in eval mode without gradients; returns the same module."""
    return module.eval().requires_grad_(False)


def _weighted(terms: dict[str, Tensor], weights: dict[str, float]) -> Tensor:
    return torch.stack([weights[name] * value for name, value in terms.items()]).sum()


def _detached(terms: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in terms.items()}


class TokenizerObjective(nn.Module):
    """Stage T: L1 + L2 + L3 + contrastive term, and the codebook update after the step.

    Source: the paper's L_TOK and L_codebook (docs/method.md, stage T).
    """

    def __init__(
        self,
        student: Tokenizer,
        teacher: BeatsEncoder,
        old: Tokenizer | None,
        config: DistillConfig,
        codebook: CodebookConfig,
    ) -> None:
        """Build from the trained tokenizer, the old encoder and the old tokenizer (None: L3 is left out)."""
        super().__init__()
        self.student = student
        self.teacher = freeze(teacher)
        self.old: Tokenizer | None = None if old is None or config.tokenizer_weight == 0 else freeze(old)
        self.config = config
        self.codebook = codebook

    def forward(self, batch: Batch, generator: torch.Generator) -> LossTerms:
        """Losses over the non-padded tokens of one batch; the generator is not used here."""
        del generator
        mel, padding = model_inputs(batch.waveform, batch.padding, self.student.encoder.config.fbank)
        with torch.no_grad():
            target = self.teacher(mel, padding).last  # (B, L, D)
        out = self.student(mel, padding)
        keep = ~padding
        embedding = out.embedding[keep]  # (B, L, d) -> (N, d)
        codes = out.codes[keep]  # (B, L) -> (N,)
        vectors = self.student.codebook.vectors
        terms = {
            "alignment": cosine_alignment_loss(self.student.estimate(out.quantized, padding), target, keep),
            "commitment": commitment_loss(out.embedding, vectors[out.codes], keep),
        }
        if self.old is not None:
            with torch.no_grad():
                old_hidden = self.old.encoder(mel, padding).last
            terms["tokenizer_drift"] = normalised_l2_loss(out.hidden, old_hidden, keep, self.config.tokenizer_reduction)
        if self.config.contrastive_weight > 0:
            terms["contrastive"] = contrastive_code_loss(embedding, vectors, codes, self.config.temperature)
        weights = {
            "alignment": 1.0,
            "commitment": self.config.commitment_weight,
            "tokenizer_drift": self.config.tokenizer_weight,
            "contrastive": self.config.contrastive_weight,
        }
        assignment = CodeAssignment(embedding.detach(), codes)
        return LossTerms(_weighted(terms, weights), _detached(terms), assignment)

    def after_step(self, losses: LossTerms, generator: torch.Generator) -> CodebookHealth:
        """Move the codebook by the tokens of this step (EMA, usage, revival); reduced over all workers."""
        assert losses.assignment is not None
        return self.student.codebook.update(
            losses.assignment.embedding, losses.assignment.codes, self.codebook, generator
        )


class ModelObjective(nn.Module):
    """Stage M: cross-entropy of the masked codes + mu_reg times the distance to the old encoder.

    The encoder sees visible patches only; the old encoder sees the same ones.
    Source: the paper's L_MAM (docs/method.md, stage M); BEATs, arXiv:2212.09058, for the masked prediction.
    """

    def __init__(
        self,
        student: BeatsEncoder,
        predictor: LabelPredictor,
        tokenizer: Tokenizer | RandomProjectionTokenizer,
        old: BeatsEncoder | None,
        config: DistillConfig,
    ) -> None:
        """Build from the trained encoder and predictor, a frozen tokenizer, and the old encoder or None."""
        super().__init__()
        self.student = student
        self.predictor = predictor
        self.tokenizer = freeze(tokenizer)
        self.old: BeatsEncoder | None = None if old is None or config.model_weight == 0 else freeze(old)
        self.config = config

    def forward(self, batch: Batch, generator: torch.Generator) -> LossTerms:
        """Losses of one batch; `generator` (on the CPU) draws the mask."""
        inputs = model_inputs(batch.waveform, batch.padding, self.student.config.fbank)
        return self.losses(inputs, self.tokenizer.codes(*inputs), generator)

    def losses(self, inputs: Inputs, codes: Tensor, generator: torch.Generator) -> LossTerms:
        """Losses of inputs that have passed the front end and the tokenizer; codes (B, L)."""
        mel, padding = inputs
        mask = random_mask(padding, self.config.mask_ratio, generator)
        visible = self.student(mel, padding, mask.visible, mask.visible_padding).last  # (B, V, D)
        logits = self.predictor(visible, mask, padding)  # (N, K), the masked patches in row order
        labels = codes[mask.masked]  # (N,)
        terms = {"masked_prediction": masked_prediction_loss(logits, labels, self.config.label_smoothing)}
        if self.old is not None:
            with torch.no_grad():
                old_visible = self.old(mel, padding, mask.visible, mask.visible_padding).last
            terms["feature_drift"] = normalised_l2_loss(visible, old_visible, ~mask.visible_padding, "sum")
        weights = {"masked_prediction": 1.0, "feature_drift": self.config.model_weight}
        shown = _detached(terms)
        shown["masked_accuracy"] = (logits.detach().argmax(-1) == labels).float().mean()
        return LossTerms(_weighted(terms, weights), shown)

    def after_step(self, losses: LossTerms, generator: torch.Generator) -> None:
        """Nothing follows a step of this stage."""


class HeadObjective(nn.Module):
    """Head warm-up: the estimator learns with the tokenizer frozen, the predictor with the encoder frozen.

    Inferred: public checkpoints carry neither head, and the gradients of random heads wreck the encoder
    (docs/method.md, step 0).
    """

    def __init__(
        self, tokenizer: Tokenizer, encoder: BeatsEncoder, predictor: LabelPredictor, config: DistillConfig
    ) -> None:
        """Build from the models whose heads are to be warmed; only the heads' parameters are to be optimised."""
        super().__init__()
        self.tokenizer = tokenizer
        self.masked = ModelObjective(encoder, predictor, tokenizer, None, config)

    def forward(self, batch: Batch, generator: torch.Generator) -> LossTerms:
        """Alignment of the estimator plus cross-entropy of the predictor, both with weight 1."""
        encoder = self.masked.student
        inputs = model_inputs(batch.waveform, batch.padding, encoder.config.fbank)
        with torch.no_grad():
            target = encoder(*inputs).last
            tokens = self.tokenizer(*inputs)
        masked = self.masked.losses(inputs, tokens.codes, generator)
        estimate = self.tokenizer.estimate(tokens.quantized, inputs.padding)
        alignment = cosine_alignment_loss(estimate, target, ~inputs.padding)
        return LossTerms(masked.total + alignment, {**masked.terms, "alignment": alignment.detach()})

    def after_step(self, losses: LossTerms, generator: torch.Generator) -> None:
        """Nothing follows a step of this stage."""
