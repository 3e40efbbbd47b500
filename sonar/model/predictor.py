"""The label predictor: from the encoder's visible patches to the codes of the masked ones."""

# Shapes: B clips, L patches, V visible patches, N masked patches of the batch, K codes, D width.

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from sonar.model.layer import TransformerConfig, TransformerLayer
from sonar.model.masking import Mask
from sonar.model.transformer import INIT_STD, Transformer, initialise_plain


@dataclass(frozen=True, kw_only=True)
class PredictorConfig:
    """A label predictor; the defaults fit BEATs-base. Source: ESPnet's BEATs pre-training (3 layers)."""

    transformer: TransformerConfig = field(default_factory=lambda: TransformerConfig().stack(3))
    num_codes: int = 1024

    def __post_init__(self) -> None:
        """Raise ValueError for a predictor that cannot be built."""
        if self.num_codes < 2:
            raise ValueError(f"num_codes is {self.num_codes}: at least 2 are needed")


class LabelPredictor(nn.Module):
    """Linear, mask token in the hidden places, transformer layers, LayerNorm, Linear to the codes."""

    def __init__(self, config: PredictorConfig) -> None:
        """Make the layers; weights come from a checkpoint or from `initialise`."""
        super().__init__()
        self.config = config
        width = config.transformer.width
        self.inlet = nn.Linear(width, width)
        self.mask_token = nn.Parameter(torch.zeros(width))
        self.transformer = Transformer(config.transformer)
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, config.num_codes)

    def forward(self, encoded: Tensor, mask: Mask, padding: Tensor | None = None) -> Tensor:
        """Predict codes at the masked patches.

        Args:
            encoded: (B, V, D) the encoder's output at `mask.visible`.
            mask: which patches were hidden.
            padding: (B, L) bool, True where padded; None when nothing is.

        Returns:
            (N, K) logits in the order of `mask.rows`, of which the labels are those of the flattened codes.

        Raises:
            ValueError: if `encoded` has not one vector for each of `mask.visible`.
        """
        if encoded.shape[:2] != mask.visible.shape:
            raise ValueError(f"encoded has shape {tuple(encoded.shape)} but the mask shows {tuple(mask.visible.shape)}")
        first = self.transformer.layers[0]
        assert isinstance(first, TransformerLayer)
        shown = ~mask.masked if padding is None else ~(mask.masked | padding)  # (B, L)
        encoded = self.inlet(encoded)  # (B, V, D)
        # All hidden patches enter as one vector, so the first layer projects it once.
        projected = _spread(first.project(encoded), first.project(self.mask_token), shown)  # (B, L, 3 D)
        hidden = _spread(encoded, self.mask_token, shown)  # (B, L, D)
        bias = self.transformer.position_bias(hidden.shape[1])
        (guesses,) = self.transformer(hidden, padding, bias, projected=projected, wanted=mask.rows)  # (N, D)
        return self.out(self.norm(guesses))  # (N, K)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> "LabelPredictor":
        """Set every parameter from the generator; returns the predictor."""
        initialise_plain(self, generator)
        self.mask_token.normal_(std=INIT_STD, generator=generator)
        self.transformer.initialise(generator)
        return self


def _spread(visible: Tensor, hidden: Tensor, shown: Tensor) -> Tensor:
    """Each visible vector at its patch and the hidden one elsewhere: (B, V, D), (D,), (B, L) bool to (B, L, D)."""
    place = (shown.cumsum(1) - 1).clamp(min=0)  # (B, L): the rank of each patch among the visible ones
    spread = visible.gather(1, place.unsqueeze(-1).expand(-1, -1, visible.shape[-1]))  # (B, L, D)
    return torch.where(shown.unsqueeze(-1), spread, hidden.to(visible.dtype))
