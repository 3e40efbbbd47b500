"""What the base's tokenizer says of the prior clips that codebook usage and label churn are counted on, once a sweep.

It lies beside the embeddings, which are named by all that it depends on: base, shards and length of the crops.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from sonar.checkpoint import load_checkpoint
from sonar.data.stream import ClipStore
from sonar.files import write_whole_file
from sonar.train.churn import CHURN_CLIPS, HISTOGRAM_CLIPS, BaseCodes, base_codes
from sonar.train.stages import local_worker


def keep_base_codes(embeddings: Path, base: Path, prior_shards: Path, clip_seconds: float) -> None:
    """Count them, if they are not kept yet.

    Args:
        embeddings: folder of the embeddings of this base, these shards and this length.
        base: folder of the base.
        prior_shards: folder of the prior clips.
        clip_seconds: clips are cropped around their middle to this length in seconds.
    """
    path = _path(embeddings)
    if path.exists():
        return
    tokenizer = load_checkpoint(base).tokenizer
    assert tokenizer is not None  # it has embedded the clips
    rows = np.load(embeddings / "prior" / "rows.npy")
    found = base_codes(tokenizer.to(local_worker().device), ClipStore(prior_shards), rows, clip_seconds)
    arrays = {name: codes.cpu().numpy() for name, codes in found._asdict().items()}
    write_whole_file(path, lambda file: np.savez(file, **arrays))


def kept_base_codes(embeddings: Path) -> BaseCodes | None:
    """What `keep_base_codes` left; None where it did not, as in an older storage."""
    path = _path(embeddings)
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as kept:
        return BaseCodes(*(torch.from_numpy(kept[name]) for name in BaseCodes._fields))


def _path(embeddings: Path) -> Path:
    return embeddings.with_name(f"{embeddings.name}-codes-{HISTOGRAM_CLIPS}-{CHURN_CLIPS}.npz")
