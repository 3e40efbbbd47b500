"""What probes read, made once: features of clips in a folder, named by all that they are computed from.

Shapes: N clips, Y layers, L patches, D width, M mel bins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from sonar.config import config_hash, to_dict
from sonar.data.audio import seconds_to_samples
from sonar.data.stream import ClipStore, batch_clips
from sonar.evaluate.embed import embed_layers, embed_patches
from sonar.evaluate.probes.config import ProbeConfig
from sonar.evaluate.probes.data import Patches
from sonar.files import whole_folder
from sonar.model.encoder import BeatsEncoder
from sonar.model.fbank import FbankConfig, log_mel, num_frames, num_patches
from sonar.model.weights import weights_hash

BLOCK_CLIPS = 1024  # held in memory at a time: 38 MB of 12 layers of 768

Arrays = Mapping[str, np.ndarray]
Clips = tuple[ClipStore, np.ndarray, float]  # store, rows, seconds


class Column(NamedTuple):
    """An array that holds something of every clip."""

    kind: type[np.generic]
    shape: tuple[int, ...]


class Features(Protocol):
    """Anything that gives a probe what it reads."""

    def of_probe(self, store: ClipStore, rows: np.ndarray, config: ProbeConfig) -> np.ndarray | Patches:
        """Embeddings of some clips of a store, in the order of `rows`, as `ProbeData` takes them."""


class FeatureCache:
    """Features of one encoder in a folder; what is there is read memory-mapped, without a forward pass.

    The name of an entry hashes the encoder's weights and configuration (with it the constants of the front end), the
    audio of the clips in their order, and the length of the crops. Entries are whole or absent. One process at a time
    may make an entry; trials differ in their weights.
    """

    def __init__(self, encoder: BeatsEncoder, folder: Path | None) -> None:
        """Of an encoder whose weights stay as they are; without a folder nothing is kept, and patches are in memory."""
        self._encoder, self._folder = encoder, folder
        self._weights = None if folder is None else weights_hash(encoder, config_hash(to_dict(encoder.config)))

    def of_probe(self, store: ClipStore, rows: np.ndarray, config: ProbeConfig) -> np.ndarray | Patches:
        """What a probe reads of some clips: `patches` if it is attentive, else `layers`."""
        if config.probe == "attentive":
            return self.patches(store, rows, config.clip_seconds, config.attentive.max_gigabytes)
        return self.layers(store, rows, config.clip_seconds)

    def layers(self, store: ClipStore, rows: np.ndarray, clip_seconds: float) -> np.ndarray:
        """(N, Y, D) float32: means over the non-padded patches of every layer's output, in the order of `rows`."""
        shape = (len(rows), *layers_shape(self._encoder))

        def fill(arrays: Arrays) -> None:
            for begin in range(0, len(rows), BLOCK_CLIPS):
                block = slice(begin, begin + BLOCK_CLIPS)
                arrays["layers"][block] = embed_layers(self._encoder, batch_clips(store, rows[block], clip_seconds))

        columns = {"layers": Column(np.float32, shape)}
        return self._made("layers", (store, rows, clip_seconds), columns, fill)["layers"]

    def layers_entry(self, store: ClipStore, rows: np.ndarray, clip_seconds: float) -> Path:
        """The folder, there or not, that holds what `layers` gives."""
        assert self._folder is not None, "a cache without a folder has no entries"
        return self._folder / self._entry("layers", store, rows, clip_seconds)

    def patches(self, store: ClipStore, rows: np.ndarray, clip_seconds: float, max_gigabytes: float) -> Patches:
        """The last layer at every patch; written as the batches come, so that memory holds one batch.

        Args:
            store: of the clips.
            rows: (N,) of the store.
            clip_seconds: clips are cropped around their middle to this length in seconds.
            max_gigabytes: of the table on disk; half precision, two bytes a number.

        Raises:
            ValueError: the table would be larger.
        """
        shape = (len(rows), _most_patches(self._encoder, store, rows, clip_seconds), self._encoder.config.width)
        gigabytes = 2e-9 * float(np.prod(shape))
        if gigabytes > max_gigabytes:
            raise ValueError(
                f"the patches of {shape[0]} clips take {gigabytes:.1f} GB, more than max_gigabytes = {max_gigabytes}; "
                "lower clip_seconds, raise it, or use a probe of the mean"
            )

        def fill(arrays: Arrays) -> None:
            for bucket in embed_patches(self._encoder, batch_clips(store, rows, clip_seconds)):
                own = np.arange(bucket.patches.shape[1]) < bucket.num_patches[:, None]  # (B, L)
                arrays["patches"][bucket.positions, : own.shape[1]] = np.where(own[..., None], bucket.patches, 0.0)
                arrays["num_patches"][bucket.positions] = bucket.num_patches

        columns = {"patches": Column(np.float16, shape), "num_patches": Column(np.int64, shape[:1])}
        made = self._made("patches", (store, rows, clip_seconds), columns, fill)
        return Patches(made["patches"], made["num_patches"], np.arange(len(rows)))

    def _made(self, kind: str, of: Clips, columns: dict[str, Column], fill: Callable[[Arrays], None]) -> Arrays:
        """Arrays from the cache, or filled."""
        if self._folder is None:
            arrays = {name: np.zeros(column.shape, column.kind) for name, column in columns.items()}
            fill(arrays)
            return arrays
        entry = self._folder / self._entry(kind, *of)
        if not entry.exists():
            with whole_folder(entry) as partial:
                mapped = open_arrays(partial, columns)
                fill(mapped)
                for array in mapped.values():
                    array.flush()
        return {name: np.load(entry / f"{name}.npy", mmap_mode="r") for name in columns}

    def _entry(self, kind: str, store: ClipStore, rows: np.ndarray, clip_seconds: float) -> str:
        clips = store.clips.take(rows)
        audio = [[clip.clip_id, clip.sha256, clip.start_s, clip.duration_s] for clip in clips]
        return f"{kind}-{config_hash({'weights': self._weights, 'audio': audio, 'seconds': clip_seconds})}"


def open_arrays(folder: Path, columns: dict[str, Column]) -> dict[str, np.memmap[Any, Any]]:
    """New .npy files in a folder, mapped into memory; what is not written is 0."""
    return {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=column.kind, shape=column.shape)
        for name, column in columns.items()
    }


def layers_shape(encoder: BeatsEncoder) -> tuple[int, int]:
    """(Y, D) of the features of one clip."""
    return encoder.config.num_layers, encoder.config.width


class LogMelStatistics:
    """Mean and deviation over time of every log-mel band: what needs no encoder, the baseline of every probe."""

    def __init__(self, fbank: FbankConfig) -> None:
        """Of the front end of the encoder that is compared with it."""
        self._fbank = fbank

    def of_probe(self, store: ClipStore, rows: np.ndarray, config: ProbeConfig) -> np.ndarray:
        """(N, 2 M) float32 of the crops that an encoder would get; frames that reach into padding are left out."""
        features = np.empty((len(rows), 2 * self._fbank.num_mel_bins), dtype=np.float32)
        for batch, positions in batch_clips(store, rows, config.clip_seconds):
            bands = log_mel(batch.waveform, self._fbank).numpy()  # (B, F, M)
            lengths = (~batch.padding).sum(1).tolist()
            for clip, position, length in zip(bands, positions, lengths, strict=True):
                own = clip[: max(1, num_frames(length))]
                features[position] = np.concatenate([own.mean(axis=0), own.std(axis=0)])
        return features


def _most_patches(encoder: BeatsEncoder, store: ClipStore, rows: np.ndarray, clip_seconds: float) -> int:
    """L that no batch exceeds: clips are padded by less than half a second, and cropped."""
    longest = int(store.num_samples[rows].max()) + seconds_to_samples(0.5)
    return num_patches(min(longest, seconds_to_samples(clip_seconds)), encoder.config.fbank.num_mel_bins)
