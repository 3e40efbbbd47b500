"""One transformer layer as BEATs has it, and what a stack of them is made of."""

# Shapes: B clips, L patches of a sequence, N wanted rows, D width.

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from sonar.model.attention import SelfAttention
from sonar.model.dropout import dropout
from sonar.model.products import Linear

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": functional.gelu, "relu": functional.relu}


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """A stack of transformer layers; the defaults are BEATs-base.

    Source: BEATs, arXiv:2212.09058; DeepNorm, arXiv:2203.00555; gate of WavLM, arXiv:2110.13900.
    """

    num_layers: int = 12
    width: int = 768
    ffn_width: int = 3072
    num_heads: int = 12
    relative_position: bool = True  # one table of biases, shared by all layers
    num_buckets: int = 320  # T5 buckets, both directions together
    max_distance: int = 800  # patches; beyond it one bucket
    gated: bool = True  # the bias is scaled per head and query
    deep_norm: bool = True  # residual x (2 num_layers)^(1/4)
    norm_first: bool = False
    activation: Literal["gelu", "relu"] = "gelu"
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation_dropout: float = 0.0
    layer_drop: float = 0.0  # chance that training skips a layer
    gradient_decay: float = 1.0  # scales the gradient that leaves each layer at its input

    def __post_init__(self) -> None:
        """Raise ValueError for a stack that cannot be built."""
        for name in ("num_layers", "width", "ffn_width", "num_heads", "max_distance"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be at least 1")
        if self.width % self.num_heads:
            raise ValueError(f"width {self.width} is not a multiple of num_heads {self.num_heads}")
        if self.num_buckets < 4 or self.num_buckets % 2:
            raise ValueError(f"num_buckets is {self.num_buckets}: give an even number of at least 4")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation is {self.activation!r}: give one of {sorted(ACTIVATIONS)}")
        self._check_combinations()
        self._check_rates()

    def _check_combinations(self) -> None:
        """Raise ValueError for choices that exclude each other."""
        exact = self.num_buckets // 4
        if self.relative_position and self.max_distance <= exact:
            raise ValueError(f"max_distance {self.max_distance} must exceed num_buckets // 4 = {exact}")
        if self.gated and not self.relative_position:
            raise ValueError("gated=True needs relative_position=True: there is no bias to gate")
        if self.deep_norm and self.norm_first:
            raise ValueError("deep_norm=True excludes norm_first=True: DeepNorm is a post-norm residual")

    def _check_rates(self) -> None:
        """Raise ValueError for a rate outside its range."""
        for name in ("dropout", "attention_dropout", "activation_dropout", "layer_drop"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must lie in [0, 1)")
        if not 0 < self.gradient_decay <= 1:
            raise ValueError(f"gradient_decay is {self.gradient_decay}: it must lie in (0, 1]")

    def stack(self, num_layers: int) -> "TransformerConfig":
        """The same kind of layers, `num_layers` of them: how the heads are derived from their encoder."""
        shared = {field.name: getattr(self, field.name) for field in fields(TransformerConfig)}
        return TransformerConfig(**(shared | {"num_layers": num_layers, "layer_drop": 0.0, "gradient_decay": 1.0}))


class TransformerLayer(nn.Module):
    """Attention, then two linear layers, each as LN(alpha x + f(x)), or as x + f(LN(x)) with norm_first."""

    def __init__(self, config: TransformerConfig) -> None:
        """Make one layer of the stack that `config` describes (DeepNorm's alpha depends on its depth)."""
        super().__init__()
        self.norm_first = config.norm_first
        self.residual_scale = (2 * config.num_layers) ** 0.25 if config.deep_norm else 1.0
        self.activation = ACTIVATIONS[config.activation]
        self.dropout = config.dropout
        self.activation_dropout = config.activation_dropout
        self.attention = SelfAttention(
            config.width, config.num_heads, dropout=config.attention_dropout, gated=config.gated
        )
        self.attention_norm = nn.LayerNorm(config.width)
        self.fc1 = Linear(config.width, config.ffn_width)
        self.fc2 = Linear(config.ffn_width, config.width)
        self.ffn_norm = nn.LayerNorm(config.width)

    def forward(
        self,
        hidden: Tensor,
        bias: Tensor | None = None,
        key_bias: Tensor | None = None,
        *,
        projected: Tensor | None = None,
        wanted: Tensor | None = None,
    ) -> Tensor:
        """(B, L, D) to (B, L, D).

        Args:
            hidden: (B, L, D).
            bias: as in `SelfAttention`.
            key_bias: as in `SelfAttention`.
            projected: (B, L, 3 D) `project(hidden)`, where it is known; None: it is computed.
            wanted: (N,) int64 rows of the flattened (B L, D) whose output is asked for; None: all.

        Returns:
            (B, L, D), or (N, D) for `wanted`.
        """
        projected = self.project(hidden) if projected is None else projected  # (B, L, 3 D)
        mixed = self.attention.attend(projected, bias, key_bias)  # (B, L, D)
        if wanted is not None:
            mixed, hidden = rows_of(mixed, wanted), rows_of(hidden, wanted)  # (N, D)
        attended = self._drop(self.attention.out(mixed))
        if self.norm_first:
            hidden = hidden + attended
            return hidden + self._drop(self._feed_forward(self.ffn_norm(hidden)))
        hidden = self.attention_norm(torch.add(attended, hidden, alpha=self.residual_scale))
        fed = self._drop(self._feed_forward(hidden))
        return self.ffn_norm(torch.add(fed, hidden, alpha=self.residual_scale))

    def project(self, hidden: Tensor) -> Tensor:
        """Queries, keys and values side by side, each vector by itself: (..., D) to (..., 3 D)."""
        return self.attention.qkv(self.attention_norm(hidden) if self.norm_first else hidden)

    def _feed_forward(self, hidden: Tensor) -> Tensor:
        inner = dropout(self.activation(self.fc1(hidden)), self.activation_dropout, self.training)
        return self.fc2(inner)  # (B, L, D)

    def _drop(self, hidden: Tensor) -> Tensor:
        return dropout(hidden, self.dropout, self.training)


def rows_of(hidden: Tensor, rows: Tensor) -> Tensor:
    """(B, L, D) to (N, D): the rows of the flattened (B L, D)."""
    return hidden.flatten(0, 1).index_select(0, rows)
