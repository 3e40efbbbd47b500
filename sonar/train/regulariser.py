"""What keeps the encoder of the model stage near the old one: feature distillation and L2-SP.

Shapes: B clips, L patches, V visible patches, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sonar.model.encoder import BeatsEncoder, EncoderOutput
from sonar.model.inputs import Inputs
from sonar.model.losses import normalised_l2_loss, start_point_penalty
from sonar.model.masking import Mask
from sonar.model.transformer import initialise_plain
from sonar.train.objective import DistillConfig, freeze

MLP_WIDTH = 2048  # hidden units of CaSSLe's predictor


class Regulariser(nn.Module):
    """The terms of the model stage that pull the encoder to the old one, unweighted.

    Attributes:
        old: the old encoder, frozen: the teacher of features and the start of the parameters.
        layers: the distilled layers, 1 being the first.
        heads: of CaSSLe, one per distilled layer, to be trained with the encoder; empty without `through_predictor`.

    Source: the paper's L_MAM for the drift of features; CaSSLe, arXiv:2112.04215; L2-SP, arXiv:1802.01483.
    """

    def __init__(self, old: BeatsEncoder, config: DistillConfig) -> None:
        """Build from the old encoder; the heads get their weights from `initialise` or a saved state.

        Raises:
            ValueError: a distilled layer that the encoder does not have.
        """
        super().__init__()
        depth, width = old.config.num_layers, old.config.width
        absent = [number for number in config.model_layers if number > depth]
        if absent:
            raise ValueError(
                f"model_layers names layer {absent[0]}, but the encoder has {depth}; "
                f"give numbers from 1 to {depth}, or none for the last layer"
            )
        self.config = config
        self.old = freeze(old)
        self.layers = config.model_layers or (depth,)
        has_heads = config.through_predictor and config.model_weight > 0
        self.heads = nn.ModuleList(_mlp(width) for _ in self.layers if has_heads)

    def initialise(self, generator: torch.Generator) -> Regulariser:
        """Set every parameter of the heads from the generator; returns the regulariser."""
        initialise_plain(self.heads, generator)
        return self

    @property
    def reads_hidden(self) -> bool:
        """Whether a distilled layer is not the last, so that the encoder must return all of them."""
        return self.config.model_weight > 0 and self.layers != (self.old.config.num_layers,)

    def forward(
        self, student: BeatsEncoder, encoded: EncoderOutput, inputs: Inputs, mask: Mask, is_replay: Tensor
    ) -> dict[str, Tensor]:
        """The terms whose weight is not 0: feature_drift, weight_drift.

        Args:
            student: the trained encoder.
            encoded: its output for the visible patches, with hidden layers where `reads_hidden`.
            inputs: of the batch.
            mask: which patches were visible.
            is_replay: (B,) bool, True for clips of the prior corpora.
        """
        terms = {}
        if self.config.model_weight > 0:
            terms["feature_drift"] = self._feature_drift(student, encoded, inputs, mask, is_replay)
        if self.config.l2sp_weight > 0:
            terms["weight_drift"] = start_point_penalty(student.parameters(), self.old.parameters())
        return terms

    def counts(self, num_real: Tensor, num_masked: Tensor, is_replay: Tensor) -> dict[str, int]:
        """How many tokens each term of a batch is a mean over; the drift of parameters counts as one for each clip.

        Args:
            num_real: (B,) int64 patches of each clip that are no padding.
            num_masked: (B,) int64 those of them that are hidden.
            is_replay: (B,) bool, True for clips of the prior corpora.
        """
        compared = num_real if self.config.model_pass == "full" else num_real - num_masked  # (B,)
        if self.config.model_on == "prior":
            compared = compared * is_replay
        return {"feature_drift": int(compared.sum()), "weight_drift": len(num_real)}

    def _feature_drift(
        self, student: BeatsEncoder, encoded: EncoderOutput, inputs: Inputs, mask: Mask, is_replay: Tensor
    ) -> Tensor:
        """() mean over the distilled layers of the squared distance of unit outputs, in [0, 4]."""
        shown: tuple[Tensor, ...]
        if self.config.model_pass == "full":
            shown, keep = tuple(inputs), ~inputs.padding  # (B, L)
            encoded = student(*shown, return_hidden=self.reads_hidden)
        else:
            shown, keep = (*inputs, mask.visible, mask.visible_padding), ~mask.visible_padding  # (B, V)
        if self.config.model_on == "prior":
            keep = keep & is_replay.unsqueeze(1)
        with torch.no_grad():
            target = self.old(*shown, return_hidden=self.reads_hidden)
        drifts = []
        for place, layer in enumerate(self.layers):
            features = self._output(encoded, layer)
            features = self.heads[place](features) if len(self.heads) else features
            drifts.append(normalised_l2_loss(features, self._output(target, layer), keep, "sum"))
        return torch.stack(drifts).mean()

    def _output(self, encoded: EncoderOutput, layer: int) -> Tensor:
        """(B, V or L, D) of a layer; the last one after the final norm, where the encoder has one."""
        return encoded.last if layer == self.old.config.num_layers else encoded.hidden[layer]


def _mlp(width: int) -> nn.Sequential:
    """CaSSLe's predictor; over tokens a LayerNorm stands for its BatchNorm (inferred: no statistics over workers)."""
    return nn.Sequential(nn.Linear(width, MLP_WIDTH), nn.LayerNorm(MLP_WIDTH), nn.ReLU(), nn.Linear(MLP_WIDTH, width))
