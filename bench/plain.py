"""BEATs done plainly: what one gets by writing the public architecture down, for the benches of speed to stand against.

Apart q, k and v, two bmm with a float32 softmax between them, every patch in every layer, codes on the fly. Of the
same weights it makes the same numbers as `sonar.model` (tests/test_plain.py, and the golden vectors through it), so
that both sides of a bench do the same work. The position bias is computed once per forward, as in the public code.

Source: BEATs, arXiv:2212.09058; gate of WavLM, arXiv:2110.13900; T5's buckets, arXiv:1910.10683. Written from these.
"""

# Shapes: B clips, F frames, M mel bins, L patches, N masked ones, K codes, H heads, D width, E width of a head.

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from sonar.model.encoder import EncoderConfig, EncoderOutput
from sonar.model.layer import ACTIVATIONS, TransformerConfig
from sonar.model.predictor import PredictorConfig
from sonar.model.tokenizer import TokenizerConfig


class PlainAttention(nn.Module):
    """One product at a time."""

    def __init__(self, config: TransformerConfig) -> None:
        """Make the projections."""
        super().__init__()
        width, self.num_heads, self.dropout = config.width, config.num_heads, config.attention_dropout
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        self.gate = nn.Linear(width // self.num_heads, 8) if config.gated else None
        self.gate_scale = nn.Parameter(torch.ones(1, self.num_heads, 1, 1)) if config.gated else None

    def forward(self, hidden: Tensor, bias: Tensor | None, padding: Tensor | None) -> Tensor:
        """(B, L, D) to (B, L, D); bias (B, H, L, L), padding (B, L) True where padded."""
        clips, length, width = hidden.shape
        query, key, value = (self._heads(project(hidden)) for project in (self.q, self.k, self.v))  # (B, H, L, E)
        scale = query.shape[-1] ** -0.5
        logits = torch.bmm((query * scale).flatten(0, 1), key.flatten(0, 1).transpose(1, 2))  # (B H, L, L)
        logits = logits.view(clips, self.num_heads, length, length)
        if bias is not None:
            logits = logits + self._gated(query, bias)
        if padding is not None:
            logits = logits.masked_fill(padding[:, None, None], -math.inf)
        weights = logits.softmax(-1, dtype=torch.float32).to(value.dtype)
        weights = functional.dropout(weights, self.dropout, self.training)
        mixed = torch.bmm(weights.flatten(0, 1), value.flatten(0, 1))  # (B H, L, E)
        mixed = mixed.view(clips, self.num_heads, length, -1).transpose(1, 2)  # (B, L, H, E)
        return self.out(mixed.reshape(clips, length, width))

    def _heads(self, projected: Tensor) -> Tensor:
        """(B, L, D) to (B, H, L, E)."""
        return projected.unflatten(-1, (self.num_heads, -1)).transpose(1, 2).contiguous()

    def _gated(self, query: Tensor, bias: Tensor) -> Tensor:
        """The bias times the gate of each query."""
        if self.gate is None:
            return bias
        groups = self.gate(query).unflatten(-1, (2, 4)).sum(-1)  # (B, H, L, 2)
        first, second = groups.sigmoid().chunk(2, dim=-1)  # (B, H, L, 1) each
        return (first * (second * self.gate_scale - 1.0) + 2.0) * bias


class PlainLayer(nn.Module):
    """Attention and feed-forward, each followed by its norm."""

    def __init__(self, config: TransformerConfig) -> None:
        """Make one layer."""
        super().__init__()
        self.residual_scale = (2 * config.num_layers) ** 0.25 if config.deep_norm else 1.0
        self.activation, self.dropout = ACTIVATIONS[config.activation], nn.Dropout(config.dropout)
        self.activation_dropout = nn.Dropout(config.activation_dropout)
        self.attention = PlainAttention(config)
        self.attention_norm = nn.LayerNorm(config.width)
        self.fc1 = nn.Linear(config.width, config.ffn_width)
        self.fc2 = nn.Linear(config.ffn_width, config.width)
        self.ffn_norm = nn.LayerNorm(config.width)

    def forward(self, hidden: Tensor, bias: Tensor | None, padding: Tensor | None) -> Tensor:
        """(B, L, D) to (B, L, D)."""
        attended = self.dropout(self.attention(hidden, bias, padding))
        hidden = self.attention_norm(hidden * self.residual_scale + attended)
        fed = self.dropout(self.fc2(self.activation_dropout(self.activation(self.fc1(hidden)))))
        return self.ffn_norm(hidden * self.residual_scale + fed)


class PlainTransformer(nn.Module):
    """Layers that share one table of position biases."""

    def __init__(self, config: TransformerConfig) -> None:
        """Make the layers; those with the norm first, or left out at random, no bench needs."""
        super().__init__()
        if config.norm_first or config.layer_drop:
            raise ValueError("norm_first=True and layer_drop > 0 are not in the plain stack: give the defaults")
        self.config = config
        self.relative_bias = nn.Embedding(config.num_buckets, config.num_heads) if config.relative_position else None
        self.layers = nn.ModuleList(PlainLayer(config) for _ in range(config.num_layers))

    def forward(self, hidden: Tensor, padding: Tensor | None) -> list[Tensor]:
        """The input and every layer's output, (B, L, D) each."""
        bias = self._bias(*hidden.shape[:2])
        states = [hidden]
        for layer in self.layers:
            entry = states[-1]
            if self.config.gradient_decay != 1.0 and entry.requires_grad:
                entry = entry.clone()
                entry.register_hook(lambda gradient: gradient * self.config.gradient_decay)
            states.append(layer(entry, bias, padding))
        return states

    def _bias(self, clips: int, length: int) -> Tensor | None:
        """(B, H, L, L), by T5's buckets of the distance (key - query)."""
        if self.relative_bias is None:
            return None
        per_side = self.config.num_buckets // 2
        exact = per_side // 2
        places = torch.arange(length, device=self.relative_bias.weight.device)
        distance = places[None, :] - places[:, None]  # (L, L)
        span = distance.abs()
        ratio = torch.log(span.clamp(min=1).float() / exact) / math.log(self.config.max_distance / exact)
        coarse = (exact + (ratio * (per_side - exact)).long()).clamp(max=per_side - 1)
        buckets = torch.where(span < exact, span, coarse) + (distance > 0) * per_side
        return self.relative_bias(buckets).permute(2, 0, 1).repeat(clips, 1, 1, 1)


class PlainPositionConv(nn.Module):
    """Grouped convolution over the patches with torch's own weight norm, then GELU."""

    def __init__(self, config: EncoderConfig) -> None:
        """Make the convolution."""
        super().__init__()
        kernel, groups = config.position_kernel, config.position_groups
        convolution = nn.Conv1d(config.width, config.width, kernel, padding=kernel // 2, groups=groups)
        self.convolution = nn.utils.parametrizations.weight_norm(convolution, dim=2)

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, L, D) to (B, L, D)."""
        mixed = self.convolution(hidden.transpose(1, 2))[..., : hidden.shape[1]]  # (B, D, L)
        return functional.gelu(mixed).transpose(1, 2)


class PlainEncoder(nn.Module):
    """All patches through all layers; hidden patches are treated as padding is: zeroed, and nothing attends there."""

    def __init__(self, config: EncoderConfig) -> None:
        """Make the layers."""
        super().__init__()
        self.config = config
        self.patch_embedding = nn.Conv2d(1, config.patch_width, 16, 16, bias=config.patch_bias)
        self.patch_norm = nn.LayerNorm(config.patch_width)
        widens = config.patch_width != config.width
        self.patch_projection = nn.Linear(config.patch_width, config.width) if widens else None
        self.input_dropout, self.dropout = nn.Dropout(config.input_dropout), nn.Dropout(config.dropout)
        self.position_conv = PlainPositionConv(config)
        self.norm = nn.LayerNorm(config.width)
        self.transformer = PlainTransformer(config)

    def forward(self, log_mel: Tensor, padding: Tensor | None = None, *, return_hidden: bool = False) -> EncoderOutput:
        """(B, F, M) and (B, L) to what the encoder says of all L patches."""
        patches = self.patch_embedding(log_mel.unsqueeze(1)).flatten(2).transpose(1, 2)  # (B, L, C)
        patches = self.patch_norm(patches)
        if self.patch_projection is not None:
            patches = self.patch_projection(patches)  # (B, L, D)
        hidden = self.input_dropout(patches)
        if padding is not None:
            hidden = hidden.masked_fill(padding.unsqueeze(-1), 0.0)
        hidden = self.dropout(self.norm(hidden + self.position_conv(hidden)))
        states = self.transformer(hidden, padding)
        return EncoderOutput(states[-1], tuple(states) if return_hidden else ())


class PlainTokenizer(nn.Module):
    """Encoder, projection, and the nearest code by its distance."""

    vectors: Tensor  # (K, d)

    def __init__(self, config: TokenizerConfig) -> None:
        """Make the parts."""
        super().__init__()
        width = config.encoder.width
        self.encoder = PlainEncoder(config.encoder)
        self.projection = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, config.code_width))
        self.register_buffer("vectors", torch.zeros(config.num_codes, config.code_width))

    @torch.no_grad()
    def codes(self, log_mel: Tensor, padding: Tensor | None = None) -> Tensor:
        """(B, F, M) to (B, L) int64."""
        hidden = self.encoder(log_mel, padding).last
        with torch.autocast(hidden.device.type, enabled=False):
            unit = functional.normalize(self.projection(hidden.float()), dim=-1)  # (B, L, d)
            return torch.cdist(unit, self.vectors.expand(len(unit), -1, -1)).argmin(-1)


class PlainPredictor(nn.Module):
    """Mask tokens among the encoder's outputs, a few layers over all patches, logits of the masked ones."""

    def __init__(self, config: PredictorConfig) -> None:
        """Make the parts."""
        super().__init__()
        width = config.transformer.width
        self.inlet = nn.Linear(width, width)
        self.mask_token = nn.Parameter(torch.zeros(width))
        self.transformer = PlainTransformer(config.transformer)
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, config.num_codes)

    def forward(self, encoded: Tensor, masked: Tensor, padding: Tensor | None = None) -> Tensor:
        """(B, L, D) of all patches and (B, L) True where masked to (N, K), row by row."""
        hidden = self.inlet(encoded)
        hidden = torch.where(masked.unsqueeze(-1), self.mask_token.to(hidden.dtype), hidden)
        return self.out(self.norm(self.transformer(hidden, padding)[-1])[masked])
