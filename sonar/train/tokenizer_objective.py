"""What the tokenizer stage minimises.

Shapes: B clips, L patches, N tokens, K codes, D width, d code width.
"""

from __future__ import annotations

import torch
from torch import nn

from sonar.data.stream import Batch
from sonar.model.codebook import CodebookConfig, CodebookHealth
from sonar.model.encoder import BeatsEncoder
from sonar.model.inputs import model_inputs
from sonar.model.losses import commitment_loss, contrastive_code_loss, cosine_alignment_loss, normalised_l2_loss
from sonar.model.tokenizer import Tokenizer
from sonar.train.objective import CodeAssignment, DistillConfig, LossTerms, detached, freeze, weighted


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
        return LossTerms(weighted(terms, weights), detached(terms), assignment)

    def after_step(self, losses: LossTerms, generator: torch.Generator) -> CodebookHealth:
        """Move the codebook by the tokens of this step (EMA, usage, revival); reduced over all workers."""
        assert losses.assignment is not None
        return self.student.codebook.update(
            losses.assignment.embedding, losses.assignment.codes, self.codebook, generator
        )
