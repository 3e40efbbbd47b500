"""What the old tokenizer says of every training clip, computed once per sweep and read memory-mapped.

At 2 M clips, 768 wide, 1024 codes: 6.1 GB of embeddings and 4.1 GB of code counts on disk, of which readers hold what
they touch.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from sonar.data.sampling import Pool
from sonar.data.stream import ClipStore
from sonar.evaluate.embed_store import embed_store
from sonar.files import whole_folder

SIDES = ("new", "prior")


class Embedded(NamedTuple):
    """One side: rows of its store (N,) int64, and what is known of them."""

    rows: np.ndarray
    pool: Pool


def write_embeddings(folder: Path, base: Path, shards: tuple[Path, Path], clip_seconds: float) -> None:
    """Embed the training clips of the new and the prior shards on the connected Ray cluster; whole or absent.

    Args:
        folder: to make: `new/` and `prior/` with `rows.npy`, `embeddings.npy` and `code_counts.npy`.
        base: folder of the checkpoint whose tokenizer embeds.
        shards: of the new and of the prior clips.
        clip_seconds: clips are cropped around their middle to this length in seconds.

    Raises:
        ValueError: a side has no training clip.
    """
    with whole_folder(folder) as partial:
        for side, store in zip(SIDES, shards, strict=True):
            (partial / side).mkdir()
            rows = ClipStore(store).index(split="train")
            if not len(rows):
                raise ValueError(f"the {side} corpora have no training clip that no evaluation split holds; add some")
            np.save(partial / side / "rows.npy", rows)
            embed_store(base, store, rows, clip_seconds, partial / side)


def read_embeddings(folder: Path, stores: tuple[ClipStore, ClipStore]) -> tuple[Embedded, Embedded]:
    """The new and the prior side; `stores` are those that were embedded, and give the labels.

    Raises:
        FileNotFoundError: the folder is not there or not whole.
    """
    new, prior = (_read(folder / side, store) for side, store in zip(SIDES, stores, strict=True))
    return new, prior


def _read(folder: Path, store: ClipStore) -> Embedded:
    rows = np.load(folder / "rows.npy")
    embeddings, counts = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("embeddings", "code_counts"))
    labels = store.clips.take(rows).column("labels").to_pylist()
    return Embedded(rows, Pool(embeddings, counts, list(map(tuple, labels))))
