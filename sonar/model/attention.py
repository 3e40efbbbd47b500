"""Multi-head attention with BEATs' gated relative position bias."""

# Shapes: B clips, L patches of a sequence, H heads, D width, E width of a head (D = H E).

import math
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from sonar.model.dropout import dropout
from sonar.model.products import Linear

GATE_GROUP = 4  # outputs of the gate's linear layer that are added up to one gate


@lru_cache(maxsize=16)
def distance_buckets(length: int, num_buckets: int, max_distance: int, device: torch.device) -> Tensor:
    """T5's bucket of every distance (key - query) from 1 - length to length - 1.

    Returns:
        (2 length - 1,) int64 in [0, num_buckets): half of the buckets for each direction, of which half are
        exact and half logarithmic up to max_distance.

    Source: T5, arXiv:1910.10683, computed in float32 as the public BEATs code does.
    """
    per_side = num_buckets // 2
    exact = per_side // 2
    with torch.inference_mode(False):  # a cached inference tensor could never be used in training
        distance = torch.arange(1 - length, length, device="cpu")
        span = distance.abs()
        ratio = torch.log(span.clamp(min=1).float() / exact) / math.log(max_distance / exact)
        coarse = (exact + (ratio * (per_side - exact)).long()).clamp(max=per_side - 1)
        buckets = (distance > 0) * per_side + torch.where(span < exact, span, coarse)
        return buckets.to(device)


class SelfAttention(nn.Module):
    """Multi-head attention whose additive position bias is gated by each query.

    Logits are q.k / sqrt(E) + gate * bias, with a, b = sigmoid(W q) per head (q unscaled) and
    gate = a (b * gate_scale - 1) + 2. Source: WavLM, arXiv:2110.13900, gated relative position bias.
    """

    def __init__(self, width: int, num_heads: int, *, dropout: float, gated: bool) -> None:
        """Make the projections; `initialise` of the stack gives them their starting values."""
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.qkv = Linear(width, 3 * width)
        self.out = Linear(width, width)
        self.gate = nn.Linear(width // num_heads, 2 * GATE_GROUP) if gated else None
        self.gate_scale = nn.Parameter(torch.ones(1, num_heads, 1, 1)) if gated else None

    def forward(self, hidden: Tensor, bias: Tensor | None, key_bias: Tensor | None) -> Tensor:
        """Attend.

        Args:
            hidden: (B, L, D).
            bias: (1 or B, H, L, L) position bias, or None.
            key_bias: (B, 1, 1, L) 0 for keys to attend to and -inf for padded ones, or None.

        Returns:
            (B, L, D).
        """
        return self.out(self.attend(self.qkv(hidden), bias, key_bias))  # (B, L, D)

    def attend(self, projected: Tensor, bias: Tensor | None, key_bias: Tensor | None) -> Tensor:
        """What stands between the projections, from queries, keys and values side by side: (B, L, 3 D) to (B, L, D)."""
        query, key, value = (
            projected.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).contiguous().unbind(0)
        )  # each (B, H, L, E)
        logit_bias = self._logit_bias(query, bias, key_bias)  # (B or 1, H or 1, L or 1, L) or None
        rate = self.dropout if self.training else 0.0
        if projected.device.type == "cpu":
            mixed = _attend_by_products(query, key, value, logit_bias, rate)  # (B, H, L, E)
        else:
            mixed = functional.scaled_dot_product_attention(query, key, value, logit_bias, rate)
        return mixed.transpose(1, 2).flatten(2)  # (B, L, D)

    def _logit_bias(self, query: Tensor, bias: Tensor | None, key_bias: Tensor | None) -> Tensor | None:
        """What is added to the scaled products: gated bias and padding."""
        key_bias = None if key_bias is None else key_bias.to(query.dtype)
        if bias is None:
            return key_bias
        bias = bias.to(query.dtype)
        if self.gate is None:
            return bias if key_bias is None else bias + key_bias
        gate = self._gate(query, self.gate)  # (B, H, L, 1)
        return gate * bias if key_bias is None else torch.addcmul(key_bias, gate, bias)  # (B, H, L, L)

    def _gate(self, query: Tensor, gate: nn.Linear) -> Tensor:
        """The factor of the bias, (B, H, L, 1). Summing the weights of a group sums its outputs."""
        weight = gate.weight.unflatten(0, (2, GATE_GROUP)).sum(1)  # (2, E)
        shift = gate.bias.unflatten(0, (2, GATE_GROUP)).sum(1)  # (2,)
        first, second = functional.linear(query, weight, shift).sigmoid().split(1, dim=-1)  # (B, H, L, 1) twice
        gated = first * (second * self.gate_scale - 1.0) + 2.0
        return gated.to(query.dtype)


def _attend_by_products(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, rate: float) -> Tensor:
    """Attention by two batched products, which beats the fused kernel on a CPU with a backward pass."""
    clips, heads, length, head_width = query.shape
    queries, keys, values = query.flatten(0, 1), key.flatten(0, 1), value.flatten(0, 1)  # (B H, L, E)
    scale = head_width**-0.5
    if bias is None:
        logits = torch.bmm(queries * scale, keys.transpose(1, 2))  # (B H, L, L)
    else:
        expanded = bias.expand(clips, heads, length, length).flatten(0, 1)  # (B H, L, L)
        logits = torch.baddbmm(expanded, queries, keys.transpose(1, 2), alpha=scale)  # (B H, L, L)
    weights = dropout(logits.softmax(-1), rate, True)
    return torch.bmm(weights, values).unflatten(0, (clips, heads))  # (B, H, L, E)
