"""The BEATs encoder: normalised log-mel to one vector per patch, of all patches or the visible ones only."""

# Shapes: B clips, T samples, F frames, M mel bins, L patches, V visible ones, C patch channels, D width.

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sonar.model.dropout import dropout
from sonar.model.fbank import PATCH_SIZE, FbankConfig
from sonar.model.layer import TransformerConfig
from sonar.model.position_conv import PositionConv
from sonar.model.products import Linear
from sonar.model.transformer import Transformer, initialise_plain


@dataclass(frozen=True, kw_only=True)
class EncoderConfig(TransformerConfig):
    """A BEATs encoder; the defaults are BEATs-base (90 M parameters).

    Source: BEATs, arXiv:2212.09058.
    """

    patch_width: int = 512  # channels of the patch embedding
    patch_bias: bool = False
    position_kernel: int = 128  # patches
    position_groups: int = 16
    input_dropout: float = 0.0
    fbank: FbankConfig = field(default_factory=FbankConfig)

    def __post_init__(self) -> None:
        """Raise ValueError for an encoder that cannot be built."""
        super().__post_init__()
        if self.patch_width < 1 or self.position_kernel < 1:
            raise ValueError(
                f"patch_width {self.patch_width} and position_kernel {self.position_kernel}: give at least 1"
            )
        if self.position_groups < 1 or self.width % self.position_groups:
            raise ValueError(f"width {self.width} is not a multiple of position_groups {self.position_groups}")
        if not 0 <= self.input_dropout < 1:
            raise ValueError(f"input_dropout is {self.input_dropout}: it must lie in [0, 1)")


class PatchPadding(NamedTuple):
    """Which frames and patches are padding."""

    frame: Tensor  # (B, F) bool, True where padded
    patch: Tensor  # (B, L) bool, True where padded


class EncoderOutput(NamedTuple):
    """What an encoder made of a batch."""

    last: Tensor  # (B, V, D), V = L when all patches are visible
    hidden: tuple[Tensor, ...] = ()  # input of layer 0, then every layer's output, (B, V, D) each; empty unless asked


def patch_padding(sample_padding: Tensor, num_frames: int, num_patches: int) -> PatchPadding:
    """Padding of frames and patches: True where all of a part is padded.

    BEATs divides the samples evenly among the frames and the frames among the patches in flattened order,
    which is neither the hop nor a patch's true extent; its weights know it so.

    Args:
        sample_padding: (B, T) bool, True where padded.
        num_frames: F of the log-mel.
        num_patches: L.

    Raises:
        ValueError: if a clip is wholly padded, which would give NaN.
    """
    frame = _all_of_each_part(sample_padding, num_frames)  # (B, F)
    patch = _all_of_each_part(frame, num_patches)  # (B, L)
    empty = patch.all(1).nonzero().flatten().tolist()
    if empty:
        raise ValueError(f"clips {empty} of the batch are padding only: drop them")
    return PatchPadding(frame, patch)


def _all_of_each_part(padding: Tensor, parts: int) -> Tensor:
    """(B, N) to (B, parts): all() over parts of N // parts; the remainder at the end is ignored."""
    size = padding.shape[1] // parts
    if size == 0:
        raise ValueError(f"{padding.shape[1]} positions cannot be divided among {parts}")
    return padding[:, : size * parts].unflatten(1, (parts, size)).all(-1)


class BeatsEncoder(nn.Module):
    """Patches of the log-mel through position convolution and transformer layers.

    Source: BEATs, arXiv:2212.09058; equal to the public code (tests/golden).
    """

    def __init__(self, config: EncoderConfig) -> None:
        """Make the layers; weights come from a checkpoint or from `initialise`."""
        super().__init__()
        self.config = config
        self.patch_embedding = nn.Conv2d(1, config.patch_width, PATCH_SIZE, PATCH_SIZE, bias=config.patch_bias)
        self.patch_norm = nn.LayerNorm(config.patch_width)
        self.patch_projection = Linear(config.patch_width, config.width) if config.patch_width != config.width else None
        self.position_conv = PositionConv(config.width, config.position_kernel, config.position_groups)
        self.norm = nn.LayerNorm(config.width)  # before the layers, or after them with norm_first
        self.transformer = Transformer(config)

    def forward(
        self,
        log_mel: Tensor,
        padding: Tensor | None = None,
        visible: Tensor | None = None,
        visible_padding: Tensor | None = None,
        *,
        return_hidden: bool = False,
    ) -> EncoderOutput:
        """Encode all patches, or only the visible ones.

        The visible-only pass is [inferred] from "the encoder sees only visible patches": hidden patches are
        zeroed before the position convolution, as padding is, so that positions stay true; then the visible
        ones are gathered, and the position bias follows their true distances.

        Args:
            log_mel: (B, F, M) float32, normalised, F at least 16.
            padding: (B, L) bool, True where padded; None when nothing is.
            visible: (B, V) int64 sorted patch indices; None for all L.
            visible_padding: (B, V) bool, True for fillers of clips with fewer visible patches; None without.
            return_hidden: also return the input of layer 0 and every layer's output.

        Returns:
            `EncoderOutput`; output at padded patches and fillers has no meaning.

        Raises:
            ValueError: if the log-mel holds no whole patch, or a mask has another shape than the patches.
        """
        patches = self._project(self.embed_patches(log_mel))  # (B, L, D)
        length = patches.shape[1]
        _check_mask("padding", padding, patches)
        if visible is not None:
            _check_mask("visible_padding", visible_padding, visible)
        hidden = _zeroed(patches, padding, visible, visible_padding)  # (B, L, D)
        positions = self.position_conv(hidden, visible)  # (B, V, D)
        if visible is not None:
            hidden = hidden.gather(1, visible.unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))  # (B, V, D)
            padding = _visible_padding(padding, visible, visible_padding)  # (B, V)
        hidden = hidden + positions
        if not self.config.norm_first:
            hidden = self.norm(hidden)
        hidden = dropout(hidden, self.config.dropout, self.training)
        bias = self.transformer.position_bias(length, visible)
        states = self.transformer(hidden, padding, bias, return_hidden=return_hidden)
        last = self.norm(states[-1]) if self.config.norm_first else states[-1]  # (B, V, D)
        return EncoderOutput(last, states if return_hidden else ())

    def embed_patches(self, log_mel: Tensor) -> Tensor:
        """The patch convolution's output, time-major: patch = column * 8 + band.

        Args:
            log_mel: (B, F, M).

        Returns:
            (B, L, C).
        """
        bins = self.config.fbank.num_mel_bins
        if log_mel.ndim != 3 or log_mel.shape[1] < PATCH_SIZE or log_mel.shape[2] != bins:
            raise ValueError(
                f"log_mel has shape {tuple(log_mel.shape)}: give (clips, {PATCH_SIZE} or more frames, {bins})"
            )
        return self.patch_embedding(log_mel.unsqueeze(1)).flatten(2).transpose(1, 2)  # (B, L, C)

    def _project(self, patches: Tensor) -> Tensor:
        """Normalise and widen the patches: (B, L, C) to (B, L, D)."""
        patches = self.patch_norm(patches)
        if self.patch_projection is not None:
            patches = self.patch_projection(patches)  # (B, L, D)
        return dropout(patches, self.config.input_dropout, self.training)

    def initialise(self, generator: torch.Generator) -> "BeatsEncoder":
        """Set every parameter from the generator; returns the encoder."""
        initialise_plain(self, generator)
        with torch.no_grad():
            fan_in = PATCH_SIZE * PATCH_SIZE
            self.patch_embedding.weight.normal_(std=fan_in**-0.5, generator=generator)
            if self.patch_embedding.bias is not None:
                self.patch_embedding.bias.zero_()
        self.position_conv.initialise(generator)
        self.transformer.initialise(generator)
        return self


def _check_mask(name: str, given: Tensor | None, like: Tensor) -> None:
    """Raise ValueError unless the mask has one entry for each of `like` (B, N, ...)."""
    if given is not None and given.shape != like.shape[:2]:
        raise ValueError(f"{name} has shape {tuple(given.shape)}: it must be {tuple(like.shape[:2])}")


def _visible_padding(padding: Tensor | None, visible: Tensor, fillers: Tensor | None) -> Tensor | None:
    """Padding of the visible sequence (B, V): fillers, and visible patches that are padded."""
    if padding is None:
        return fillers
    padded = padding.gather(1, visible)
    return padded if fillers is None else padded | fillers


def _zeroed(patches: Tensor, padding: Tensor | None, visible: Tensor | None, fillers: Tensor | None) -> Tensor:
    """Patches (B, L, D) with padded and hidden ones set to zero."""
    if visible is not None:
        real = torch.ones_like(visible) if fillers is None else (~fillers).long()  # (B, V)
        seen = visible.new_zeros(patches.shape[:2]).scatter_add_(1, visible, real)  # (B, L), 0 where hidden
        padding = seen == 0 if padding is None else (seen == 0) | padding
    return patches if padding is None else patches.masked_fill(padding.unsqueeze(-1), 0.0)
