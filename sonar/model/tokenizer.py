"""One code per patch: the self-distilled tokenizer (BEATs iteration 2 on), the random one (iteration 1)."""

# Shapes: B clips, F frames, M mel bins, L patches, K codes, D width, d code width.

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from sonar.model.codebook import Codebook
from sonar.model.encoder import BeatsEncoder, EncoderConfig
from sonar.model.fbank import PATCH_SIZE
from sonar.model.transformer import Transformer, initialise_plain


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """A self-distilled tokenizer; the defaults are BEATs'. Source: BEATs, arXiv:2212.09058, section 3.2."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    num_codes: int = 1024
    code_width: int = 256
    estimator_layers: int = 3

    def __post_init__(self) -> None:
        """Raise ValueError for a tokenizer that cannot be built."""
        if self.num_codes < 2 or self.code_width < 1 or self.estimator_layers < 1:
            raise ValueError(
                f"num_codes {self.num_codes}, code_width {self.code_width} and estimator_layers "
                f"{self.estimator_layers} must be at least 2, 1 and 1"
            )


class TokenizerOutput(NamedTuple):
    """What a tokenizer made of a batch."""

    hidden: Tensor  # (B, L, D) output of its encoder
    embedding: Tensor  # (B, L, d) float32, l2-normalised projection
    codes: Tensor  # (B, L) int64
    quantized: Tensor  # (B, L, d) float32 code vectors, straight-through to the embedding


class Estimator(nn.Module):
    """Reads code vectors and predicts the teacher's features; only training needs it."""

    def __init__(self, config: TokenizerConfig) -> None:
        """Make the layers for a tokenizer's width and codes."""
        super().__init__()
        width = config.encoder.width
        self.widen = nn.Linear(config.code_width, width)
        self.transformer = Transformer(config.encoder.stack(config.estimator_layers))
        self.out = nn.Linear(width, width)

    def forward(self, quantized: Tensor, padding: Tensor | None = None) -> Tensor:
        """(B, L, d) code vectors and (B, L) padding to (B, L, D) estimates."""
        bias = self.transformer.position_bias(quantized.shape[1])
        (hidden,) = self.transformer(self.widen(quantized), padding, bias)  # (B, L, D)
        return self.out(hidden)

    def initialise(self, generator: torch.Generator) -> None:
        """Set every parameter from the generator."""
        initialise_plain(self, generator)
        self.transformer.initialise(generator)


class Tokenizer(nn.Module):
    """Encoder, projection and codebook; the estimator is None where a checkpoint has none.

    Source: BEATs, arXiv:2212.09058, self-distilled tokenizer; equal to the public code (tests/golden).
    """

    estimator: Estimator | None

    def __init__(self, config: TokenizerConfig, *, with_estimator: bool = True) -> None:
        """Make the parts; weights come from a checkpoint or from `initialise`."""
        super().__init__()
        self.config = config
        width = config.encoder.width
        self.encoder = BeatsEncoder(config.encoder)
        self.projection = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, config.code_width))
        self.codebook = Codebook(config.num_codes, config.code_width)
        self.estimator = Estimator(config) if with_estimator else None

    def forward(self, log_mel: Tensor, padding: Tensor | None = None) -> TokenizerOutput:
        """Tokenise with gradients.

        Args:
            log_mel: (B, F, M) normalised by this tokenizer's front end.
            padding: (B, L) bool, True where padded; codes there have no meaning.

        Returns:
            `TokenizerOutput`; projection and codebook run in float32 whatever the autocast.
        """
        hidden = self.encoder(log_mel, padding).last  # (B, L, D)
        with torch.autocast(hidden.device.type, enabled=False):
            quantized = self.codebook.quantize(self.projection(hidden.float()))  # (B, L, d)
        return TokenizerOutput(hidden, quantized.embedding, quantized.codes, quantized.quantized)

    @torch.no_grad()
    def codes(self, log_mel: Tensor, padding: Tensor | None = None) -> Tensor:
        """Labels of all patches, without gradients: (B, F, M) to (B, L) int64."""
        return self(log_mel, padding).codes

    def estimate(self, quantized: Tensor, padding: Tensor | None = None) -> Tensor:
        """The estimator's guess of the teacher's features.

        Args:
            quantized: (B, L, d) from `forward`.
            padding: (B, L) bool, True where padded.

        Returns:
            (B, L, D).

        Raises:
            ValueError: if the tokenizer has no estimator.
        """
        if self.estimator is None:
            raise ValueError("this tokenizer has no estimator (public checkpoints lack it): call new_estimator first")
        return self.estimator(quantized, padding)

    def new_estimator(self, generator: torch.Generator) -> Estimator:
        """Give the tokenizer a fresh estimator on its own device, and return it; it still needs a warm-up."""
        estimator = Estimator(self.config)
        estimator.initialise(generator)
        self.estimator = estimator.to(self.codebook.vectors.device)
        return estimator

    def initialise(self, generator: torch.Generator) -> "Tokenizer":
        """Set every parameter and buffer from the generator; returns the tokenizer."""
        self.encoder.initialise(generator)
        initialise_plain(self.projection, generator)
        self.codebook.initialise(generator)
        if self.estimator is not None:
            self.estimator.initialise(generator)
        return self


@dataclass(frozen=True, kw_only=True)
class RandomProjectionConfig:
    """BEATs' first tokenizer. Source: BEST-RQ, arXiv:2202.01855; BEATs, arXiv:2212.09058, iteration 1."""

    num_codes: int = 1024
    code_width: int = 16  # BEST-RQ


class RandomProjectionTokenizer(nn.Module):
    """Codes by a frozen random projection of raw patches and a frozen random codebook, nearest by cosine.

    Each patch is brought to mean 0 and variance 1 first, without which few codes would be used (BEST-RQ).
    """

    projection: Tensor  # (PATCH_SIZE ** 2, d)
    vectors: Tensor  # (K, d) unit rows

    def __init__(self, config: RandomProjectionConfig, generator: torch.Generator) -> None:
        """Draw projection and codebook, on the generator's device."""
        super().__init__()
        self.config = config
        inputs = PATCH_SIZE * PATCH_SIZE
        drawn = [
            torch.randn(rows, config.code_width, generator=generator, device=generator.device)
            for rows in (inputs, config.num_codes)
        ]
        self.register_buffer("projection", drawn[0] * (2.0 / (inputs + config.code_width)) ** 0.5)
        self.register_buffer("vectors", functional.normalize(drawn[1], dim=1))

    @torch.no_grad()
    def codes(self, log_mel: Tensor, padding: Tensor | None = None) -> Tensor:
        """Labels of all patches, in the encoder's order.

        Args:
            log_mel: (B, F, M), M a multiple of 16.
            padding: as for `Tokenizer.codes`, but not used: a patch's code depends on no other patch.

        Returns:
            (B, L) int64; codes of padded patches have no meaning.
        """
        with torch.autocast(log_mel.device.type, enabled=False):
            columns = log_mel.float().unfold(1, PATCH_SIZE, PATCH_SIZE)  # (B, L / 8, M, frames)
            patches = columns.unfold(2, PATCH_SIZE, PATCH_SIZE).flatten(3).flatten(1, 2)  # (B, L, PATCH_SIZE ** 2)
            patches = functional.layer_norm(patches, patches.shape[-1:])
            embedding = functional.normalize(patches @ self.projection, dim=-1)  # (B, L, d)
            return (embedding @ self.vectors.t()).argmax(-1)  # (B, L)
