"""What frozen models say of whole clips, computed once: codes in memory, features in a store that outlives a run.

A clip that is not cropped is the same in every epoch, and so is what a frozen model says of it. Only such clips have
a key (`Batch.keys`), and each passes the model apart from those that happen to come with it: products of matrices may
round otherwise in a batch of another size, and a run that goes on with nothing kept must find the same bits.
"""

# Shapes: B clips, R of them, F frames, M mel bins, L patches, N patches of a clip that are no padding, D width.

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from sonar.model.encoder import BeatsEncoder
from sonar.model.inputs import Inputs
from sonar.model.tokenizer import RandomProjectionTokenizer, Tokenizer
from sonar.model.weights import weights_hash

CLIPS_OF_A_CALL = 8  # on a GPU, which one clip does not fill; a CPU is as fast clip by clip
Keys = Sequence[str | None]


class FeatureStore(Protocol):
    """Half-precision features by name, for this run and for others; a name says all that they depend on."""

    def read(self, name: str, shape: tuple[int, int]) -> Tensor | None:
        """(N, D) float16 on the CPU, as they were kept; None where they are not, or not whole."""

    def keep(self, name: str, features: Tensor) -> None:
        """Keep (N, D) float16 on the CPU, if there is room."""


class KeptCodes:
    """The codes of a tokenizer that does not change as long as this lives; 1 KB of memory for 10 s of a whole clip."""

    def __init__(self, tokenizer: Tokenizer | RandomProjectionTokenizer) -> None:
        """Nothing is known yet."""
        self._tokenizer = tokenizer
        self._places: dict[str, int] = {}
        small = tokenizer.config.num_codes <= torch.iinfo(torch.int16).max + 1
        self._codes = torch.empty(0, 0, dtype=torch.int16 if small else torch.int32)  # on the CPU, grown by doubling

    @torch.no_grad()
    def __call__(self, inputs: Inputs, keys: Keys) -> Tensor:
        """(B, L) int64 codes of a batch with the keys of its rows, all of one length as long as this lives."""
        if not any(keys):
            return self._tokenizer.codes(*inputs)
        whole, drawn = _split(keys)
        self._learn(inputs, {key: row for row, key in whole.items() if key not in self._places})
        codes = torch.empty(inputs.padding.shape, dtype=torch.int64, device=inputs.padding.device)
        codes[list(whole)] = self._codes[[self._places[key] for key in whole.values()]].to(codes)
        if drawn:
            codes[drawn] = self._tokenizer.codes(*_rows(inputs, drawn))
        return codes

    def _learn(self, inputs: Inputs, missing: dict[str, int]) -> None:
        """Compute and keep the codes of some rows."""
        known, num_patches = len(self._places), inputs.padding.shape[1]
        if known + len(missing) > len(self._codes):
            more = self._codes.new_empty(max(len(missing), known), num_patches)
            self._codes = torch.cat([self._codes[:known], more]) if known else more
        rows = list(missing.values())
        for key, codes in zip(missing, _apart(self._tokenizer.codes, inputs, rows), strict=True):
            self._codes[len(self._places)] = codes
            self._places[key] = len(self._places)


class KeptFeatures:
    """The last layer of an encoder that does not change as long as this lives.

    With a store, features of whole clips are rounded to half precision whether they are read or have just been
    computed, and their padded patches are 0.
    """

    def __init__(self, encoder: BeatsEncoder, store: FeatureStore | None) -> None:
        """Of a frozen encoder; without a store every batch passes it."""
        self._encoder, self._store = encoder, store
        self._weights: str | None = None

    @torch.no_grad()
    def __call__(self, inputs: Inputs, keys: Keys) -> Tensor:
        """(B, L, D) features of a batch with the keys of its rows."""
        if self._store is None or not any(keys):
            return self._encoder(*inputs).last
        whole, drawn = _split(keys)
        keep = ~inputs.padding
        features = torch.zeros(*keep.shape, self._encoder.config.width, device=keep.device)
        for row, half in self._halves(inputs, whole, self._store).items():
            features[row, keep[row]] = half.to(features)
        if drawn:
            features[drawn] = self._encoder(*_rows(inputs, drawn)).last.to(features)
        return features

    def _halves(self, inputs: Inputs, whole: dict[int, str], store: FeatureStore) -> dict[int, Tensor]:
        """(N, D) float16 of each of some rows, those that are not in the store computed and kept."""
        names = {row: self._name(key, inputs.padding.device) for row, key in whole.items()}
        lengths: list[int] = (~inputs.padding).sum(1).tolist()
        found = {row: store.read(name, (lengths[row], self._encoder.config.width)) for row, name in names.items()}
        missing = [row for row, half in found.items() if half is None]
        for row, made in zip(missing, _apart(self._last, inputs, missing), strict=True):
            half = made[~inputs.padding[row]].half().cpu()
            store.keep(names[row], half)
            found[row] = half
        return {row: half for row, half in found.items() if half is not None}

    def _last(self, log_mel: Tensor, padding: Tensor) -> Tensor:
        return self._encoder(log_mel, padding).last

    def _name(self, key: str, device: torch.device) -> str:
        """Weights, constants of the front end, arithmetic and samples."""
        if self._weights is None:
            self._weights = weights_hash(self._encoder, repr(self._encoder.config))[:32]
        autocast = torch.is_autocast_enabled(device.type)
        arithmetic = str(torch.get_autocast_dtype(device.type) if autocast else torch.float32)
        return f"{self._weights}-{device.type}-{arithmetic.removeprefix('torch.')}-{key}"


class _Split(NamedTuple):
    """Rows of a batch: those with a key, and those without."""

    whole: dict[int, str]
    drawn: list[int]


def _split(keys: Keys) -> _Split:
    whole = {row: key for row, key in enumerate(keys) if key is not None}
    return _Split(whole, [row for row, key in enumerate(keys) if key is None])


def _apart(compute: Callable[[Tensor, Tensor], Tensor], inputs: Inputs, rows: list[int]) -> Iterator[Tensor]:
    """The output for each of some rows, from calls of always as many clips; the last one is filled up."""
    size = 1 if inputs.log_mel.device.type == "cpu" else CLIPS_OF_A_CALL
    for begin in range(0, len(rows), size):
        some = rows[begin : begin + size]
        made = compute(*_rows(inputs, some + some[-1:] * (size - len(some))))
        yield from made[: len(some)]


def _rows(inputs: Inputs, rows: list[int]) -> Inputs:
    return Inputs(inputs.log_mel[rows], inputs.padding[rows])
