"""What the model stage and the head warm-up minimise.

Shapes: B clips, L patches, V visible patches, N masked patches, K codes, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sonar.data.batch import Batch
from sonar.model.encoder import BeatsEncoder
from sonar.model.inputs import Inputs, model_inputs, num_real_patches
from sonar.model.losses import cosine_alignment_loss, masked_prediction_loss
from sonar.model.masking import num_masked, random_mask
from sonar.model.predictor import LabelPredictor
from sonar.model.tokenizer import RandomProjectionTokenizer, Tokenizer
from sonar.train.kept import KeptCodes
from sonar.train.objective import CodeAssignment, DistillConfig, LossTerms, Moment, detached, freeze, weighted
from sonar.train.regulariser import Regulariser


class ModelObjective(nn.Module):
    """Stage M: cross-entropy of the masked codes, plus the pull to the old encoder; the encoder sees visible patches.

    Source: the paper's L_MAM (docs/method.md, stage M); BEATs, arXiv:2212.09058, for the masked prediction.
    """

    def __init__(
        self,
        student: BeatsEncoder,
        predictor: LabelPredictor,
        tokenizer: Tokenizer | RandomProjectionTokenizer,
        regulariser: Regulariser | None,
        config: DistillConfig,
    ) -> None:
        """Build from the trained encoder and predictor, a frozen tokenizer, and the pull to the old encoder or None.

        The tokenizer must not change as long as this objective lives: the codes of whole clips are computed once.
        """
        super().__init__()
        self.student = student
        self.predictor = predictor
        self.tokenizer = freeze(tokenizer)
        self.codes = KeptCodes(self.tokenizer)
        self.regulariser = regulariser
        self.config = config

    def forward(self, batch: Batch, generator: torch.Generator) -> LossTerms:
        """Losses of one batch; `generator` (on the CPU) draws the mask."""
        inputs = model_inputs(batch.waveform, batch.padding, self.student.config.fbank)
        return self.losses(inputs, self.codes(inputs, batch.keys), batch.is_replay, generator)

    def losses(self, inputs: Inputs, codes: Tensor, is_replay: Tensor, generator: torch.Generator) -> LossTerms:
        """Losses of inputs that have passed the front end and the tokenizer; codes (B, L), is_replay (B,)."""
        mask = random_mask(inputs.padding, self.config.mask_ratio, generator)
        reads_hidden = self.regulariser is not None and self.regulariser.reads_hidden
        encoded = self.student(*inputs, mask.visible, mask.visible_padding, return_hidden=reads_hidden)
        logits = self.predictor(encoded.last, mask, inputs.padding)  # (N, K), the masked patches in row order
        labels = codes[mask.masked]  # (N,)
        terms = {"masked_prediction": masked_prediction_loss(logits, labels, self.config.label_smoothing)}
        if self.regulariser is not None:
            terms |= self.regulariser(self.student, encoded, inputs, mask, is_replay)
        weights = {
            "masked_prediction": 1.0,
            "feature_drift": self.config.model_weight,
            "weight_drift": self.config.l2sp_weight,
        }
        shown = detached(terms)
        shown["masked_accuracy"] = (logits.detach().argmax(-1) == labels).float().mean()
        return LossTerms(weighted(terms, weights), shown)

    def counts(self, batch: Batch) -> dict[str, int]:
        """Patches that each term is a mean over."""
        real = num_real_patches(batch.padding, self.student.config.fbank)
        masked = num_masked(real, self.config.mask_ratio)
        num_hidden = int(masked.sum())
        counts = {"masked_prediction": num_hidden, "masked_accuracy": num_hidden}
        return counts if self.regulariser is None else counts | self.regulariser.counts(real, masked, batch.is_replay)

    def after_step(
        self, assignment: CodeAssignment | None, generator: torch.Generator, moment: Moment
    ) -> dict[str, float]:
        """Nothing follows a step of this stage."""
        return {}


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
        codes = self.masked.codes(inputs, batch.keys)
        masked = self.masked.losses(inputs, codes, batch.is_replay, generator)
        estimate = self.tokenizer.estimate(self.tokenizer.codebook.vectors[codes], inputs.padding)
        alignment = cosine_alignment_loss(estimate, target, ~inputs.padding)
        parts = {**masked.parts, "alignment": alignment}
        return LossTerms(parts, {**masked.terms, "alignment": alignment.detach()})

    def counts(self, batch: Batch) -> dict[str, int]:
        """Patches that each term is a mean over."""
        real = num_real_patches(batch.padding, self.masked.student.config.fbank)
        return {**self.masked.counts(batch), "alignment": int(real.sum())}

    def after_step(
        self, assignment: CodeAssignment | None, generator: torch.Generator, moment: Moment
    ) -> dict[str, float]:
        """Nothing follows a step of this stage."""
        return {}
