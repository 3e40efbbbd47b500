"""Clip embeddings of an encoder.

Shapes: B clips, N clips in all, F frames, M mel bins, L patches, D width.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from sonar.data.corpora import ScanResult, load_corpus
from sonar.data.stream import Bucket, file_batches
from sonar.model.encoder import BeatsEncoder
from sonar.model.inputs import model_inputs


@torch.no_grad()
def embed_batches(encoder: BeatsEncoder, batches: Iterable[Bucket]) -> np.ndarray:
    """Mean of the last layer over the non-padded patches of every clip.

    Args:
        encoder: put in eval mode.
        batches: audio, see `batch_clips`.

    Returns:
        (N, D) float32 in the order of the clips asked for.
    """
    encoder.eval()
    device = next(encoder.parameters()).device
    rows, positions = [], []
    for batch, position in batches:
        inputs = model_inputs(batch.waveform.to(device), batch.padding.to(device), encoder.config.fbank)
        hidden = encoder(*inputs).last  # (B, L, D)
        keep = (~inputs.padding).unsqueeze(-1).to(hidden.dtype)
        rows.append(((hidden * keep).sum(1) / keep.sum(1)).cpu().numpy())  # (B, L, D) -> (B, D)
        positions.append(position)
    in_order = np.argsort(np.concatenate(positions))
    return np.concatenate(rows)[in_order]


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
