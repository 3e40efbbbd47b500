"""What the tokenizer stage minimises.

Shapes: B clips, L patches, N tokens, K codes, D width, d code width.
"""

from __future__ import annotations

import torch
from torch import nn

from sonar.data.batch import Batch
from sonar.model.codebook import CodebookConfig
from sonar.model.encoder import BeatsEncoder
from sonar.model.inputs import model_inputs, num_real_patches
from sonar.model.losses import commitment_loss, contrastive_code_loss, cosine_alignment_loss, normalised_l2_loss
from sonar.model.ranks import sum_over_ranks
from sonar.model.revival import perplexity
from sonar.model.tokenizer import Tokenizer
from sonar.train.kept import FeatureStore, KeptFeatures
from sonar.train.objective import CodeAssignment, DistillConfig, LossTerms, Moment, detached, freeze, weighted


class CodebookCollapseError(FloatingPointError):
    """Few codes are left in use, so labels say little; names the stage, the step and what to do."""


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
        features: FeatureStore | None = None,
    ) -> None:
        """Build from the trained tokenizer, the old encoder and the old tokenizer (None: L3 is left out).

        What both old ones say of whole clips is kept in `features`, and read from there.
        """
        super().__init__()
        self.student = student
        self.teacher = freeze(teacher)
        self.old: Tokenizer | None = None if old is None or config.tokenizer_weight == 0 else freeze(old)
        self.kept_teacher = KeptFeatures(self.teacher, features)
        self.kept_old = None if self.old is None else KeptFeatures(self.old.encoder, features)
        self.config = config
        self.codebook = codebook

    def forward(self, batch: Batch, generator: torch.Generator) -> LossTerms:
        """Losses over the non-padded tokens of one batch; the generator is not used here."""
        del generator
        inputs = model_inputs(batch.waveform, batch.padding, self.student.encoder.config.fbank)
        padding = inputs.padding
        target = self.kept_teacher(inputs, batch.keys)  # (B, L, D)
        out = self.student(*inputs)
        keep = ~padding
        embedding = out.embedding[keep]  # (B, L, d) -> (N, d)
        codes = out.codes[keep]  # (B, L) -> (N,)
        vectors = self.student.codebook.vectors
        terms = {
            "alignment": cosine_alignment_loss(self.student.estimate(out.quantized, padding), target, keep),
            "commitment": commitment_loss(out.embedding, vectors[out.codes], keep),
        }
        if self.kept_old is not None:
            old_hidden = self.kept_old(inputs, batch.keys)  # (B, L, D)
            terms["tokenizer_drift"] = normalised_l2_loss(out.hidden, old_hidden, keep, self.config.tokenizer_reduction)
        if self.config.contrastive_weight > 0:
            terms["contrastive"] = contrastive_code_loss(embedding, vectors, codes, self.config.temperature)
        weights = {
            "alignment": 1.0,
            "commitment": self.config.commitment_weight,
            "tokenizer_drift": self.config.tokenizer_weight,
            "contrastive": self.config.contrastive_weight,
        }
        is_replay = batch.is_replay.unsqueeze(1).expand_as(keep)[keep]  # (B,) -> (N,)
        assignment = CodeAssignment(embedding.detach(), codes, is_replay)
        return LossTerms(weighted(terms, weights), detached(terms), assignment)

    def counts(self, batch: Batch) -> dict[str, int]:
        """Every term is a mean over the patches that are no padding."""
        num_tokens = int(num_real_patches(batch.padding, self.student.encoder.config.fbank).sum())
        return dict.fromkeys(("alignment", "commitment", "tokenizer_drift", "contrastive"), num_tokens)

    def after_step(
        self, assignment: CodeAssignment | None, generator: torch.Generator, moment: Moment
    ) -> dict[str, float]:
        """Move the codebook by the tokens of this step (EMA, usage, revival); reduced over all workers.

        Returns:
            The codebook's health.

        Raises:
            CodebookCollapseError: few codes are left in use.
        """
        assert assignment is not None
        codebook, config = self.student.codebook, self.codebook.at(moment.progress)
        health = codebook.update(assignment.embedding, assignment.codes, config, generator)
        self._check_collapse(moment)
        told = {name: float(value) for name, value in health._asdict().items()}
        told |= _perplexity_by_source(assignment, codebook.num_codes)
        return {f"codebook/{name}": value for name, value in told.items()}

    def _check_collapse(self, moment: Moment) -> None:
        """Compare the use of some steps, as the usage's moving average holds it, to that of the prior corpus."""
        used, prior = (perplexity(usage) for usage in (self.student.codebook.usage, self.student.codebook.prior_usage))
        fraction = self.codebook.collapse_fraction
        if used < fraction * prior:
            raise CodebookCollapseError(
                f"{moment}: the codebook has collapsed: the perplexity of its use is {used:.1f}, less than "
                f"collapse_fraction {fraction} of the {prior:.1f} on the prior corpora. Lower optim.lr, raise "
                "sampling.replay_ratio or distill.tokenizer_weight, or go on with codebook.collapse_fraction=0"
            )


def _perplexity_by_source(assignment: CodeAssignment, num_codes: int) -> dict[str, float]:
    """Perplexity of the codes of new and of prior clips on all ranks; without an entry where there are none."""
    codes, is_replay = assignment.codes, assignment.is_replay
    counts = torch.bincount(codes + num_codes * is_replay, minlength=2 * num_codes).float().view(2, num_codes)
    new, prior = sum_over_ranks(counts)  # (K,) each
    return {f"perplexity_{name}": perplexity(c) for name, c in (("new", new), ("prior", prior)) if c.sum() > 0}
