"""Clip embeddings of an encoder, and code counts of a tokenizer.

Shapes: B clips, N clips in all, F frames, M mel bins, L patches, D width, K codes, Y layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from sonar.data.corpora import ScanResult, load_corpus
from sonar.data.stream import Bucket, file_batches
from sonar.model.encoder import BeatsEncoder, EncoderOutput
from sonar.model.heap import freed_memory_kept
from sonar.model.inputs import model_inputs
from sonar.model.tokenizer import Tokenizer

MAX_PATCHES = np.iinfo(np.uint16).max  # 22 minutes of audio


class ClipFeatures(NamedTuple):
    """What the old tokenizer says of N clips.

    Attributes:
        embeddings: (N, D) float32, mean of its encoder's output over the non-padded patches.
        code_counts: (N, K) uint16, how many of them hold each code.
    """

    embeddings: np.ndarray
    code_counts: np.ndarray


class PatchBucket(NamedTuple):
    """Patches of one evaluation batch.

    Attributes:
        patches: (B, L, D) float32; what lies after a clip's own patches has no meaning.
        num_patches: (B,) int64 of the clip's own.
        positions: (B,) int64, where the clips stood in the sequence asked for.
    """

    patches: np.ndarray
    num_patches: np.ndarray
    positions: np.ndarray


def embed_batches(encoder: BeatsEncoder, batches: Iterable[Bucket]) -> np.ndarray:
    """Mean of the last layer over the non-padded patches of every clip.

    Args:
        encoder: put in eval mode.
        batches: audio, see `batch_clips`.

    Returns:
        (N, D) float32 in the order of the clips asked for.
    """
    rows, positions = [], []
    for out, padding, position in _passes(encoder, batches, False):
        rows.append(_mean_of_patches(out.last, padding))  # (B, D)
        positions.append(position)
    return _in_order(rows, positions)


def embed_layers(encoder: BeatsEncoder, batches: Iterable[Bucket]) -> np.ndarray:
    """The same of every layer's output in one pass: (N, Y, D) float32, the last layer as `embed_batches` gives it."""
    rows, positions = [], []
    for out, padding, position in _passes(encoder, batches, True):
        layers = (*out.hidden[1:-1], out.last)  # the last one after the final norm, where there is one
        rows.append(np.stack([_mean_of_patches(hidden, padding) for hidden in layers], axis=1))  # (B, Y, D)
        positions.append(position)
    return _in_order(rows, positions)


def embed_patches(encoder: BeatsEncoder, batches: Iterable[Bucket]) -> Iterator[PatchBucket]:
    """The last layer at every patch, one batch after the other, as they come by length."""
    for out, padding, positions in _passes(encoder, batches, False):
        yield PatchBucket(out.last.cpu().numpy(), (~padding).sum(1).cpu().numpy(), positions)


@torch.no_grad()
def _passes(
    encoder: BeatsEncoder, batches: Iterable[Bucket], hidden: bool
) -> Iterator[tuple[EncoderOutput, Tensor, np.ndarray]]:
    """Output, padding of the patches and positions of every batch; the encoder is put in eval mode."""
    encoder.eval()
    device = next(encoder.parameters()).device
    with freed_memory_kept():
        for batch, positions in batches:
            inputs = model_inputs(batch.waveform.to(device), batch.padding.to(device), encoder.config.fbank)
            yield encoder(*inputs, return_hidden=hidden), inputs.padding, positions


@freed_memory_kept()
@torch.no_grad()
def tokenize_batches(tokenizer: Tokenizer, batches: Iterable[Bucket]) -> ClipFeatures:
    """Embeddings by the tokenizer's encoder, as `embed_batches` gives them, and code counts of every clip.

    Args:
        tokenizer: put in eval mode.
        batches: audio, see `batch_clips`.

    Returns:
        Features in the order of the clips asked for.

    Raises:
        ValueError: a clip has more patches than a count can hold.
    """
    tokenizer.eval()
    device = next(tokenizer.parameters()).device
    embeddings, counts, positions = [], [], []
    for batch, position in batches:
        inputs = model_inputs(batch.waveform.to(device), batch.padding.to(device), tokenizer.encoder.config.fbank)
        if inputs.padding.shape[1] > MAX_PATCHES:
            raise ValueError(f"a clip has {inputs.padding.shape[1]} patches, at most {MAX_PATCHES}; lower clip_seconds")
        output = tokenizer(*inputs)
        embeddings.append(_mean_of_patches(output.hidden, inputs.padding))
        counts.append(_count_codes(output.codes, inputs.padding, tokenizer.config.num_codes))
        positions.append(position)
    return ClipFeatures(_in_order(embeddings, positions), _in_order(counts, positions))


def _mean_of_patches(hidden: Tensor, padding: Tensor) -> np.ndarray:
    keep = (~padding).unsqueeze(-1).to(hidden.dtype)
    return ((hidden * keep).sum(1) / keep.sum(1)).cpu().numpy()  # (B, L, D) -> (B, D)


def _count_codes(codes: Tensor, padding: Tensor, num_codes: int) -> np.ndarray:
    counts = codes.new_zeros(len(codes), num_codes)
    counts.scatter_add_(1, codes, (~padding).to(codes.dtype))  # (B, L) -> (B, K)
    return counts.cpu().numpy().astype(np.uint16)


def _in_order(rows: list[np.ndarray], positions: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(rows)[np.argsort(np.concatenate(positions))]


def write_embeddings(encoder: BeatsEncoder, corpus: Path, path: Path, clip_seconds: float) -> ScanResult:
    """Embed every clip of a corpus into a Parquet file: clip_id, path, embedding.

    Args:
        encoder: what embeds.
        corpus: folder of audio, or a manifest.
        path: Parquet file to write.
        clip_seconds: clips are cropped around their middle to this length in seconds.

    Returns:
        What the corpus held: every clip of it has a row, and what is quarantined has none.
    """
    scan = load_corpus(corpus, domain="embed")
    clips = scan.clips
    vectors = embed_batches(encoder, file_batches(clips, clip_seconds))
    columns = {
        "clip_id": [clip.clip_id for clip in clips],
        "path": [clip.path for clip in clips],
        "embedding": list(vectors),
    }
    pq.write_table(pa.table(columns), path)
    return scan
