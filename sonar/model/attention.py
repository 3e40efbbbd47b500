"""Multi-head attention with BEATs' gated relative position bias."""

# Shapes: B clips, L patches of a sequence, H heads, D width, E width of a head (D = H E).

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from sonar.model.dropout import dropout
from sonar.model.products import Linear, convolution_is_faster, product_of_heads

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


def for_all_layers(bias: Tensor | None) -> Tensor | None:
    """A bias as every layer wants it: in autocast's precision; on a GPU its rows a multiple of 8 apart."""
    if bias is None:
        return None
    device = bias.device.type
    if torch.is_autocast_enabled(device):
        bias = bias.to(torch.get_autocast_dtype(device))
    return bias if device == "cpu" else functional.pad(bias, (0, -bias.shape[-1] % 8))


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
            key_bias: (B, 1, 1, L) 0 for keys to attend to and -inf for padded ones, or None. On a GPU the last axis of
                both may be longer; what lies beyond L is not read.

        Returns:
            (B, L, D).
        """
        return self.out(self.attend(self.qkv(hidden), bias, key_bias))  # (B, L, D)

    def attend(self, projected: Tensor, bias: Tensor | None, key_bias: Tensor | None) -> Tensor:
        """What stands between the projections, from queries, keys and values side by side: (B, L, 3 D) to (B, L, D)."""
        heads = projected.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)  # (3, B, H, L, E)
        attend = _attend_in_one_kernel
        if projected.device.type == "cpu":
            by_convolution = convolution_is_faster(heads, heads.shape[3])
            attend = _attend_by_convolutions if by_convolution else _attend_by_products
        query, key, value = heads.unbind(0)  # (B, H, L, E) each
        if attend is _attend_by_products:  # one by one: copied as one, torch.compile fails at their symbolic strides
            query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
        mixed = attend(query, key, value, self._gated(query, bias, key_bias), self.dropout if self.training else 0.0)
        return mixed.transpose(1, 2).flatten(2)  # (B, L, D)

    def _gated(self, query: Tensor, bias: Tensor | None, key_bias: Tensor | None) -> "LogitBias":
        """What is added to the scaled products, in their precision."""
        gate = None if bias is None or self.gate is None else self._gate(query, self.gate)  # (B, H, L, 1)
        return LogitBias(*(None if part is None else part.to(query.dtype) for part in (bias, gate, key_bias)))

    def _gate(self, query: Tensor, gate: nn.Linear) -> Tensor:
        """The factor of the bias, (B, H, L, 1). Summing the weights of a group sums its outputs."""
        weight = gate.weight.unflatten(0, (2, GATE_GROUP)).sum(1)  # (2, E)
        shift = gate.bias.unflatten(0, (2, GATE_GROUP)).sum(1)  # (2,)
        query = query.contiguous()  # else the product's way, and its last bits, hang on whether gradients are kept
        first, second = functional.linear(query, weight, shift).sigmoid().split(1, dim=-1)  # (B, H, L, 1) twice
        return first * (second * self.gate_scale - 1.0) + 2.0


class LogitBias(NamedTuple):
    """The parts of what is added to the logits: gate * position + key."""

    position: Tensor | None  # (1 or B, H, L, L)
    gate: Tensor | None  # (B, H, L, 1)
    key: Tensor | None  # (B, 1, 1, L)

    def of_clip(self, clip: int) -> "LogitBias":
        """The parts of one clip, (H, L, L), (H, L, 1) and (1, 1, L)."""
        return LogitBias(*(None if part is None else part[min(clip, len(part) - 1)] for part in self))

    def added_to(self, logits: Tensor) -> Tensor:
        """The logits (..., H, L, L) plus the bias, in the place of the logits."""
        if self.position is not None:
            logits = logits.add_(self.position) if self.gate is None else logits.addcmul_(self.gate, self.position)
        return logits if self.key is None else logits.add_(self.key)


def _attend_in_one_kernel(query: Tensor, key: Tensor, value: Tensor, bias: LogitBias, rate: float) -> Tensor:
    """Attention as GPUs like it; (B, H, L, E) to (B, H, L, E)."""
    mask = bias.key
    if bias.position is not None:
        gate = torch.ones_like(query[..., :1]) if bias.gate is None else bias.gate  # (B, H, L, 1)
        mask = gate * bias.position if mask is None else torch.addcmul(mask, gate, bias.position)
    if mask is not None:
        mask = mask[..., : key.shape[2]]  # its rows keep their stride, which the kernel wants to be a multiple of 8
    return functional.scaled_dot_product_attention(query, key, value, mask, rate)


def _attend_by_products(query: Tensor, key: Tensor, value: Tensor, bias: LogitBias, rate: float) -> Tensor:
    """Attention by two batched products, which beats the one kernel on a CPU; (B, H, L, E) to (B, H, L, E)."""
    logits = bias.added_to(torch.matmul(query * query.shape[-1] ** -0.5, key.transpose(2, 3)))  # (B, H, L, L)
    return torch.matmul(dropout(logits.softmax(-1), rate, True), value)


def _attend_by_convolutions(query: Tensor, key: Tensor, value: Tensor, bias: LogitBias, rate: float) -> Tensor:
    """The same, clip by clip, by products of all heads side by side; (B, H, L, E) to (B, H, L, E)."""
    query = query * query.shape[-1] ** -0.5
    mixed = []
    for clip in range(len(query)):
        logits = bias.of_clip(clip).added_to(product_of_heads(query[clip], key[clip]))  # (H, L, L), heads within rows
        weights = dropout(logits.transpose(0, 1).softmax(-1), rate, True).transpose(0, 1)  # (H, L, L)
        mixed.append(product_of_heads(weights, value[clip].transpose(1, 2)))  # (H, L, E)
    return torch.stack(mixed)
