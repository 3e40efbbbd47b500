"""Features of whole stores by a pool of Ray Data actors, each with the model loaded once.

Shapes: N clips, D width, K codes, Y layers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import ray
import ray.data
import torch

from sonar.checkpoint import load_checkpoint, load_tokenizer
from sonar.data.shards import quiet_ray_data
from sonar.data.stream import ClipStore, batch_clips
from sonar.evaluate.embed import embed_layers, tokenize_batches
from sonar.evaluate.features import Column, FeatureCache, layers_shape, open_arrays
from sonar.files import whole_folder
from sonar.model.encoder import BeatsEncoder
from sonar.model.tokenizer import Tokenizer

BLOCK_CLIPS = 256  # clips per task of an actor: their features travel together, 1.3 MB at 768 x 1024
Part = Literal["tokenizer", "encoder"]
CLIPS_PER_ACTOR = 512  # a second actor is started for at least so many: it costs as long as a hundred clips or so


def num_actors(num_clips: int, cluster: dict[str, float]) -> int:
    """Actors for a number of clips: one per GPU, or per CPU where there is no GPU, none without work to do.

    Args:
        num_clips: to embed.
        cluster: resources of the cluster, as Ray names them.
    """
    devices = int(cluster.get("GPU", 0)) or int(cluster.get("CPU", 1))
    return max(1, min(devices, num_clips // CLIPS_PER_ACTOR))


def embed_store(
    checkpoint: Path, store: str | Path, rows: np.ndarray, clip_seconds: float, out: Path, part: Part = "tokenizer"
) -> None:
    """Write the features of a store's clips on the connected Ray cluster.

    Args:
        checkpoint: folder that every node reads.
        store: folder or URL of shards; every node reads it.
        rows: (N,) int64 rows of the store, at least one.
        clip_seconds: clips are cropped around their middle to this length in seconds.
        out: existing folder; gets `embeddings.npy` and `code_counts.npy` of the tokenizer, as `tokenize_batches` makes
            them, or `layers.npy` of the encoder, as `embed_layers` does; rows in the order of `rows`. They are written
            through memory maps, so the driver holds one block at a time.
        part: of the checkpoint, that embeds.
    """
    arrays = open_arrays(out, _columns(_load(checkpoint, part), len(rows)))
    done = np.zeros(len(rows), dtype=np.bool_)
    with quiet_ray_data():
        features = _features((str(checkpoint), part, str(store), clip_seconds), rows)
        for batch in features.iter_batches(batch_size=None, batch_format="numpy"):
            for name, array in arrays.items():
                array[batch["position"]] = batch[name]
            done[batch["position"]] = True
    if not done.all():
        raise RuntimeError(f"Ray Data returned {done.sum()} of {len(rows)} clips; nothing is kept, prepare again")
    for array in arrays.values():
        array.flush()


def fill_cache(
    features: FeatureCache, checkpoint: Path, store: ClipStore, rows: np.ndarray, clip_seconds: float
) -> None:
    """Make on the connected Ray cluster what `features.layers` then reads; nothing if it is there.

    Args:
        features: cache of the checkpoint's encoder, with a folder.
        checkpoint: that every node reads.
        store: of the clips, in a place that every node reads.
        rows: (N,) int64 rows of the store.
        clip_seconds: clips are cropped around their middle to this length in seconds.
    """
    entry = features.layers_entry(store, rows, clip_seconds)
    if not entry.exists():
        with whole_folder(entry) as partial:
            embed_store(checkpoint, store.source, rows, clip_seconds, partial, part="encoder")


def _load(checkpoint: Path | str, part: Part) -> BeatsEncoder | Tokenizer:
    return load_tokenizer(checkpoint) if part == "tokenizer" else load_checkpoint(checkpoint).encoder


def _columns(model: BeatsEncoder | Tokenizer, num_clips: int) -> dict[str, Column]:
    if isinstance(model, BeatsEncoder):
        return {"layers": Column(np.float32, (num_clips, *layers_shape(model)))}
    return {
        "embeddings": Column(np.float32, (num_clips, model.config.encoder.width)),
        "code_counts": Column(np.uint16, (num_clips, model.config.num_codes)),
    }


def _features(arguments: tuple[str, Part, str, float], rows: np.ndarray) -> ray.data.Dataset:
    """Column position and those of the part, in the order in which the actors are done."""
    cluster = ray.cluster_resources()
    table = pa.table({"position": np.arange(len(rows)), "row": rows})
    return ray.data.from_arrow(table, override_num_blocks=-(-len(rows) // BLOCK_CLIPS)).map_batches(
        _Embedder,
        fn_constructor_args=arguments,
        batch_size=None,
        compute=ray.data.ActorPoolStrategy(size=num_actors(len(rows), cluster)),
        num_gpus=1 if cluster.get("GPU", 0) >= 1 else None,
    )


class _Embedder:
    """One actor: model and store, opened once."""

    def __init__(self, checkpoint: str, part: Part, store: str, clip_seconds: float) -> None:
        if not torch.cuda.is_available():
            torch.set_num_threads(1)  # actors fill the CPUs; more threads would wait for each other
        self._model = _load(checkpoint, part).to("cuda" if torch.cuda.is_available() else "cpu")
        self._store, self._clip_seconds = ClipStore(store), clip_seconds

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Columns position and row in; position and those of the part out."""
        clips = batch_clips(self._store, batch["row"], self._clip_seconds)
        if isinstance(self._model, BeatsEncoder):
            return {"position": batch["position"], "layers": embed_layers(self._model, clips)}
        return {"position": batch["position"], **tokenize_batches(self._model, clips)._asdict()}
