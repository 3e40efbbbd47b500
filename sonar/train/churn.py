"""Label churn: how many labels of known audio the adapted tokenizer gives another code than the old one did."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sonar.data.stream import ClipStore, batch_clips
from sonar.model.heap import freed_memory_kept
from sonar.model.inputs import model_inputs
from sonar.model.tokenizer import Tokenizer

CHURN_CLIPS = 64  # prior clips that churn is measured on [inferred]
HISTOGRAM_CLIPS = 512  # prior clips that the starting usage of the codebook is counted on


class BaseCodes(NamedTuple):
    """What the old tokenizer says of fixed prior clips; no trial of a sweep changes it.

    Attributes:
        usage: (N,) codes of the `HISTOGRAM_CLIPS` clips that the starting usage is counted on.
        churn: (M,) codes of the `CHURN_CLIPS` clips that churn is measured on.
    """

    usage: Tensor
    churn: Tensor


def base_codes(old: Tokenizer, store: ClipStore, rows: np.ndarray, clip_seconds: float) -> BaseCodes:
    """Of clips spread over `rows` of the prior `store`; on the tokenizer's device."""
    counts = (HISTOGRAM_CLIPS, CHURN_CLIPS)
    return BaseCodes(*(clip_codes(old, store, spread(rows, count), clip_seconds) for count in counts))


class LabelChurn:
    """Share of the non-padded tokens of fixed clips whose code is not the old tokenizer's, in [0, 1]."""

    def __init__(
        self, old: Tokenizer, store: ClipStore, rows: np.ndarray, clip_seconds: float, expected: Tensor | None = None
    ) -> None:
        """Measure against `old` on `CHURN_CLIPS` clips spread over `rows` of the prior `store`.

        `expected` are its codes of them, where they are known.
        """
        self._old, self._store, self._clip_seconds = old, store, clip_seconds
        self._rows = spread(rows, CHURN_CLIPS)
        self._expected = expected  # (N,) else counted when first asked: many runs never ask

    def __call__(self, tokenizer: Tokenizer) -> float:
        """Churn of `tokenizer` as it is now."""
        if self._expected is None:
            self._expected = clip_codes(self._old, self._store, self._rows, self._clip_seconds)
        found = clip_codes(tokenizer, self._store, self._rows, self._clip_seconds)
        return float((found != self._expected).float().mean())


def spread(rows: np.ndarray, count: int) -> np.ndarray:
    """At most `count` of the rows, at even distances."""
    return rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(np.int64)]


@freed_memory_kept()
@torch.no_grad()
def clip_codes(tokenizer: Tokenizer, store: ClipStore, rows: np.ndarray, clip_seconds: float) -> Tensor:
    """(N,) codes of the non-padded tokens of clips, each cropped around its middle; without dropout."""
    was_training, device = tokenizer.training, tokenizer.codebook.vectors.device
    tokenizer.eval()
    codes = []
    for batch, _ in batch_clips(store, rows, clip_seconds):
        waveform, padding, *_ = batch.to(device)
        inputs = model_inputs(waveform, padding, tokenizer.encoder.config.fbank)
        codes.append(tokenizer.codes(*inputs)[~inputs.padding])
    tokenizer.train(was_training)
    return torch.cat(codes)
