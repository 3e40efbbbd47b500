"""What probes read, made once: features of clips in a folder, named by all that they are computed from.

Shapes: N clips, Y layers, L patches, D width, M mel bins.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from sonar.config import config_hash, to_dict
from sonar.data.audio import seconds_to_samples
from sonar.data.stream import ClipStore, batch_clips
from sonar.evaluate.embed import embed_layers, embed_patches
from sonar.evaluate.probes.data import Patches
from sonar.files import whole_folder
from sonar.model.encoder import BeatsEncoder
from sonar.model.fbank import FbankConfig, log_mel, num_frames, num_patches

BLOCK_CLIPS = 1024  # held in memory at a time: 38 MB of 12 layers of 768


class FeatureCache:
    """Features of one encoder in a folder; what is there is read memory-mapped, without a forward pass.

    The name of an entry hashes the encoder's weights and configuration (with it the constants of the front end), the
    audio of the clips in their order, and the length of the crops. Entries are whole or absent. One process at a time
    may make an entry; trials differ in their weights.
    """

    def __init__(self, encoder: BeatsEncoder, folder: Path) -> None:
        """Of an encoder whose weights stay as they are; `folder` is made when something is put there."""
        self._encoder, self._folder = encoder, folder
        self._weights = weights_hash(encoder)

    def layers(self, store: ClipStore, rows: np.ndarray, clip_seconds: float) -> np.ndarray:
        """(N, Y, D) float32: means over the non-padded patches of every layer's output, in the order of `rows`."""

        def write(folder: Path) -> None:
            shape = (len(rows), *layers_shape(self._encoder))
            table = np.lib.format.open_memmap(folder / "layers.npy", mode="w+", dtype=np.float32, shape=shape)
            for begin in range(0, len(rows), BLOCK_CLIPS):
                block = slice(begin, begin + BLOCK_CLIPS)
                table[block] = embed_layers(self._encoder, batch_clips(store, rows[block], clip_seconds))
            table.flush()

        entry = self._folder / self.layers_entry(store, rows, clip_seconds)
        return np.load(_made(entry, write) / "layers.npy", mmap_mode="r")

    def layers_entry(self, store: ClipStore, rows: np.ndarray, clip_seconds: float) -> str:
        """Name of the folder in the cache that holds what `layers` gives."""
        return self._entry("layers", store, rows, clip_seconds)

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

        def write(folder: Path) -> None:
            table = np.lib.format.open_memmap(folder / "patches.npy", mode="w+", dtype=np.float16, shape=shape)
            counts = np.empty(len(rows), dtype=np.int64)
            for bucket in embed_patches(self._encoder, batch_clips(store, rows, clip_seconds)):
                own = np.arange(bucket.patches.shape[1]) < bucket.num_patches[:, None]  # (B, L)
                table[bucket.positions, : own.shape[1]] = np.where(own[..., None], bucket.patches, 0.0)
                counts[bucket.positions] = bucket.num_patches
            table.flush()
            np.save(folder / "num_patches.npy", counts)

        made = _made(self._folder / self._entry("patches", store, rows, clip_seconds), write)
        table, counts = np.load(made / "patches.npy", mmap_mode="r"), np.load(made / "num_patches.npy")
        return Patches(table, counts, np.arange(len(rows)))

    def _entry(self, kind: str, store: ClipStore, rows: np.ndarray, clip_seconds: float) -> str:
        clips = [store.clips[int(row)] for row in rows]
        audio = [[clip.clip_id, clip.sha256, clip.start_s, clip.duration_s] for clip in clips]
        return f"{kind}-{config_hash({'weights': self._weights, 'audio': audio, 'seconds': clip_seconds})}"


def weights_hash(encoder: BeatsEncoder) -> str:
    """Hex digest of an encoder's configuration, and of the names, shapes and bytes of its tensors."""
    digest = hashlib.sha256(config_hash(to_dict(encoder.config)).encode())
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def layers_shape(encoder: BeatsEncoder) -> tuple[int, int]:
    """(Y, D) of the features of one clip."""
    return encoder.config.num_layers, encoder.config.width


def log_mel_statistics(store: ClipStore, rows: np.ndarray, clip_seconds: float, fbank: FbankConfig) -> np.ndarray:
    """(N, 2 M) float32: mean and deviation over time of every log-mel band: what needs no encoder, the baseline.

    Crops are those of the encoder's features; frames that reach into the padding are left out.
    """
    features = np.empty((len(rows), 2 * fbank.num_mel_bins), dtype=np.float32)
    for batch, positions in batch_clips(store, rows, clip_seconds):
        bands = log_mel(batch.waveform, fbank).numpy()  # (B, F, M)
        lengths = (~batch.padding).sum(1).tolist()
        for clip, position, length in zip(bands, positions, lengths, strict=True):
            own = clip[: max(1, num_frames(length))]
            features[position] = np.concatenate([own.mean(axis=0), own.std(axis=0)])
    return features


def _made(entry: Path, write: Callable[[Path], None]) -> Path:
    if not entry.exists():
        with whole_folder(entry) as partial:
            write(partial)
    return entry


def _most_patches(encoder: BeatsEncoder, store: ClipStore, rows: np.ndarray, clip_seconds: float) -> int:
    """L that no batch exceeds: clips are padded by less than half a second, and cropped."""
    longest = int(store.num_samples[rows].max()) + seconds_to_samples(0.5)
    return num_patches(min(longest, seconds_to_samples(clip_seconds)), encoder.config.fbank.num_mel_bins)
