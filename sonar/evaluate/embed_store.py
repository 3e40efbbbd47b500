"""Features of whole stores by a pool of Ray Data actors, each with the tokenizer loaded once.

Shapes: N clips, D width, K codes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import ray
import ray.data
import torch

from sonar.checkpoint import load_tokenizer
from sonar.data.shards import quiet_ray_data
from sonar.data.stream import ClipStore, batch_clips
from sonar.evaluate.embed import tokenize_batches

BLOCK_CLIPS = 256  # clips per task of an actor: their features travel together, 1.3 MB at 768 x 1024
CLIPS_PER_ACTOR = 512  # a second actor is started for at least so many: it costs as long as a hundred clips or so


def num_actors(num_clips: int, cluster: dict[str, float]) -> int:
    """Actors for a number of clips: one per GPU, or per CPU where there is no GPU, none without work to do.

    Args:
        num_clips: to embed.
        cluster: resources of the cluster, as Ray names them.
    """
    devices = int(cluster.get("GPU", 0)) or int(cluster.get("CPU", 1))
    return max(1, min(devices, num_clips // CLIPS_PER_ACTOR))


def embed_store(base: Path, store: Path, rows: np.ndarray, clip_seconds: float, out: Path) -> None:
    """Write the features of a store's clips, as `tokenize_batches` makes them, on the connected Ray cluster.

    Args:
        base: folder of the checkpoint whose tokenizer embeds; every node reads it.
        store: folder of shards; every node reads it.
        rows: (N,) int64 rows of the store, at least one.
        clip_seconds: clips are cropped around their middle to this length in seconds.
        out: existing folder; gets `embeddings.npy` and `code_counts.npy`, whose rows are in the order of `rows`. They
            are written through memory maps, so the driver holds one block at a time.
    """
    shape = load_tokenizer(base).config
    sizes = {"embeddings": (np.float32, shape.encoder.width), "code_counts": (np.uint16, shape.num_codes)}
    arrays = {
        name: np.lib.format.open_memmap(out / f"{name}.npy", mode="w+", dtype=kind, shape=(len(rows), width))
        for name, (kind, width) in sizes.items()
    }
    done = np.zeros(len(rows), dtype=np.bool_)
    with quiet_ray_data():
        features = _features(base, store, rows, clip_seconds)
        for batch in features.iter_batches(batch_size=None, batch_format="numpy"):
            for name, array in arrays.items():
                array[batch["position"]] = batch[name]
            done[batch["position"]] = True
    if not done.all():
        raise RuntimeError(f"Ray Data returned {done.sum()} of {len(rows)} clips; nothing is kept, prepare again")
    for array in arrays.values():
        array.flush()


def _features(base: Path, store: Path, rows: np.ndarray, clip_seconds: float) -> ray.data.Dataset:
    """Columns position, embeddings and code_counts, in the order in which the actors are done."""
    cluster = ray.cluster_resources()
    table = pa.table({"position": np.arange(len(rows)), "row": rows})
    return ray.data.from_arrow(table, override_num_blocks=-(-len(rows) // BLOCK_CLIPS)).map_batches(
        _Embedder,
        fn_constructor_args=(str(base), str(store), clip_seconds),
        batch_size=None,
        compute=ray.data.ActorPoolStrategy(size=num_actors(len(rows), cluster)),
        num_gpus=1 if cluster.get("GPU", 0) >= 1 else None,
    )


class _Embedder:
    """One actor: tokenizer and store, opened once."""

    def __init__(self, base: str, store: str, clip_seconds: float) -> None:
        if not torch.cuda.is_available():
            torch.set_num_threads(1)  # actors fill the CPUs; more threads would wait for each other
        self._tokenizer = load_tokenizer(base).to("cuda" if torch.cuda.is_available() else "cpu")
        self._store, self._clip_seconds = ClipStore(store), clip_seconds

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Columns position and row in; position, embeddings and code_counts out."""
        clips = batch_clips(self._store, batch["row"], self._clip_seconds)
        return {"position": batch["position"], **tokenize_batches(self._tokenizer, clips)._asdict()}
