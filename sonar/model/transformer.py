"""Stacks of transformer layers as BEATs has them, shared by the encoder and both heads."""

# Shapes: B clips, L patches of a sequence, V visible ones, H heads, D width.

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from sonar.model.attention import SelfAttention, distance_buckets, for_all_layers
from sonar.model.compilation import compiled_where_wanted
from sonar.model.layer import TransformerConfig, TransformerLayer, rows_of
from sonar.model.recomputation import recomputed

INIT_STD = 0.02  # of projections that DeepNorm does not scale


class _DecayGradient(torch.autograd.Function):
    """The identity, whose gradient is scaled."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, values: Tensor, ratio: float) -> Tensor:
        ctx.ratio = ratio  # type: ignore[attr-defined]
        return values.view_as(values)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.ratio, None  # type: ignore[attr-defined]


def _decay_gradient(hidden: Tensor, ratio: float) -> Tensor:
    """The same values; the gradient that passes is multiplied by `ratio`."""
    return _DecayGradient.apply(hidden, ratio)  # type: ignore[no-untyped-call]


def local_bias(config: TransformerConfig) -> Tensor:
    """A table of position biases that fall with distance, each head by a slope of its own: (num_buckets, H).

    Inferred: BEATs starts its table at noise, which some hundred thousand steps can shape; a short training of a
    small base or of fresh heads cannot, and a masked patch that cannot tell near from far learns label frequencies
    only. Slopes 2^(-8 i / H) as in ALiBi, arXiv:2108.12409.
    """
    distance = torch.arange(-config.max_distance, config.max_distance + 1).abs().float()
    buckets = distance_buckets(config.max_distance + 1, config.num_buckets, config.max_distance, torch.device("cpu"))
    nearest = torch.full((config.num_buckets,), float(config.max_distance))
    nearest = nearest.scatter_reduce(0, buckets, distance, "amin")  # (num_buckets,)
    slopes = 2.0 ** (-8.0 * torch.arange(1, config.num_heads + 1) / config.num_heads)
    return -nearest[:, None] * slopes[None, :]


class Transformer(nn.Module):
    """Layers that share one table of relative position biases, computed once per forward.

    Attributes:
        recompute: keep no activations within the layers for the backward pass, which computes them again.
    """

    recompute = False

    def __init__(self, config: TransformerConfig) -> None:
        """Make the layers and the table."""
        super().__init__()
        self.config = config
        self.relative_bias = nn.Embedding(config.num_buckets, config.num_heads) if config.relative_position else None
        self.layers = nn.ModuleList(TransformerLayer(config) for _ in range(config.num_layers))

    def forward(
        self,
        hidden: Tensor,
        padding: Tensor | None,
        bias: Tensor | None,
        *,
        return_hidden: bool = False,
        projected: Tensor | None = None,
        wanted: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Run all layers.

        Args:
            hidden: (B, L, D).
            padding: (B, L) bool, True where padded; nothing attends there. A wholly padded clip gives NaN.
            bias: (1 or B, H, L, L) from `position_bias`, or None.
            return_hidden: keep every layer's output.
            projected: (B, L, 3 D) the first layer's `project(hidden)`, where it is known.
            wanted: (N,) int64 rows of the flattened (B L, D) whose last output is asked for; None: all.

        Returns:
            The last output (B, L, D) alone, or the input and every layer's output, last one last; with `wanted` the
            last one is (N, D).
        """
        key_bias = None
        if padding is not None:
            key_bias = torch.zeros_like(padding, dtype=hidden.dtype).masked_fill_(padding, -math.inf)[:, None, None]
        bias, key_bias = for_all_layers(bias), for_all_layers(key_bias)
        states = [hidden]
        for number, layer in enumerate(self.layers):
            first, rows = projected if number == 0 else None, wanted if number == len(self.layers) - 1 else None
            drop = self.config.layer_drop if self.training else 0.0
            if drop == 0 or float(torch.rand(())) >= drop:
                if self.config.gradient_decay != 1.0:
                    hidden = _decay_gradient(hidden, self.config.gradient_decay)
                run = compiled_where_wanted(layer)
                if self.recompute and torch.is_grad_enabled():
                    run = recomputed(run)
                hidden = run(hidden, bias, key_bias, projected=first, wanted=rows)  # (B, L, D) or (N, D)
            elif rows is not None:
                hidden = rows_of(hidden, rows)  # (N, D)
            if return_hidden:  # of a dropped layer its input, so that layer n stands at place n
                states.append(hidden)
        return tuple(states) if return_hidden else (hidden,)

    def position_bias(self, length: int, positions: Tensor | None = None) -> Tensor | None:
        """The additive bias of every query and key, by their distance.

        Args:
            length: patches of the whole clip.
            positions: (B, V) int64 patch indices when only these are in the sequence; None for all.

        Returns:
            (1, H, L, L), or (B, H, V, V) for positions; None where the stack has no relative positions.
        """
        if self.relative_bias is None:
            return None
        config, table = self.config, self.relative_bias.weight
        buckets = distance_buckets(length, config.num_buckets, config.max_distance, table.device)
        by_distance = functional.embedding(buckets, table)  # (2 L - 1, H)
        # The keys' axis must be the last in memory too: every layer reads the whole bias, row by row.
        if positions is None:
            # Row s of the unfolded view starts at distance s - (L - 1), that of query L - 1 - s to key 0.
            return by_distance.t().contiguous().unfold(1, length, 1).flip(1).contiguous().unsqueeze(0)  # (1, H, L, L)
        offsets = positions[:, None, :] - positions[:, :, None] + length - 1  # (B, V, V)
        return functional.embedding(offsets, by_distance).permute(0, 3, 1, 2).contiguous()  # (B, H, V, V)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Set every parameter: DeepNorm's Xavier gains (value, output and feed-forward by (8 N)^(-1/4)), local biases.

        Source: DeepNorm, arXiv:2203.00555, encoder-only; BEATs, arXiv:2212.09058, section 3.1; biases see `local_bias`.
        """
        gain = (8 * self.config.num_layers) ** -0.25 if self.config.deep_norm else 1.0
        initialise_plain(self, generator)
        if self.relative_bias is not None:
            self.relative_bias.weight.copy_(local_bias(self.config))
        for layer in self.layers:
            assert isinstance(layer, TransformerLayer)
            projections = layer.attention.qkv.weight.chunk(3)  # (D, D) each
            scaled = (*projections, layer.attention.out.weight, layer.fc1.weight, layer.fc2.weight)
            for weight, weight_gain in zip(scaled, (1.0, 1.0, gain, gain, gain, gain), strict=True):
                nn.init.xavier_normal_(weight, weight_gain, generator)


@torch.no_grad()
def initialise_plain(module: nn.Module, generator: torch.Generator) -> None:
    """BERT's start for every submodule that is a linear layer, a table or a norm; gates start at scale 1."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            part.weight.normal_(std=INIT_STD, generator=generator)
        if isinstance(part, nn.LayerNorm):
            part.weight.fill_(1.0)
        if isinstance(part, nn.Linear | nn.LayerNorm):
            part.bias.zero_()
        if isinstance(part, SelfAttention) and part.gate_scale is not None:
            part.gate_scale.fill_(1.0)
