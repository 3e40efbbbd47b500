"""Shards -> batches: a memory-mapped clip store, and the mixed stream with its exact replay ratio.

Shapes: B clips, T samples.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch

from sonar.data.audio import AudioError, seconds_to_samples
from sonar.data.batch import Batch
from sonar.data.clip_store import ClipStore as ClipStore  # what most of this project knows of a stream
from sonar.data.guard import Guard
from sonar.data.manifest import Clip
from sonar.data.shard_audio import AudioSlice, decode_middle, middle

_EVALUATION_BATCH = 32
_BUCKET_SECONDS = 0.5
_KEY_BYTES = 16
_GUARDED_CHUNK = 4  # clips that travel to a decoding process together


@dataclass(frozen=True, kw_only=True)
class StreamConfig:
    """The batches of one worker.

    Attributes:
        batch_size: clips per batch of this worker.
        clip_seconds: crop length in seconds; shorter clips are padded.
        replay_ratio: share of prior clips in every batch, in [0, 1].
        seed: of order and crops.
    """

    batch_size: int
    clip_seconds: float
    replay_ratio: float
    seed: int

    def __post_init__(self) -> None:
        """Refuse batches that cannot be drawn."""
        if self.batch_size < 1 or self.clip_seconds <= 0:
            raise ValueError(f"batch_size {self.batch_size} and clip_seconds {self.clip_seconds} must be positive")
        if not 0 <= self.replay_ratio <= 1:
            raise ValueError(f"replay_ratio is {self.replay_ratio}; it must lie in [0, 1]")


class Source(NamedTuple):
    """One side of a mixture: a store and the rows of it that are used."""

    store: ClipStore
    rows: np.ndarray


class MixedStream:
    """Batches of new and replay clips at an exact ratio, a pure function of seed, step and rank.

    Every worker's batch holds round(ratio * B) replay clips, after its new ones. Each side runs through a permutation
    of its clips, a new one per epoch, so no clip comes twice before its side is exhausted. Workers take disjoint
    parts; together, where ratio * B is whole, exactly the clips and crops that one worker with the batch of all would
    take.

    Clips are padded to `clip_seconds`, or to the longest clip of both sides, rounded up to half a second, where that is
    shorter: always to the same length, so that nothing about a clip depends on its neighbours.
    """

    def __init__(self, new: Source, prior: Source, config: StreamConfig, *, rank: int = 0, world_size: int = 1) -> None:
        """Build from the two sources; `rank` of `world_size` workers.

        Raises:
            ValueError: the ratio asks for clips of a side that has none, or for none of a side that it names.
        """
        if not 0 <= rank < world_size:
            raise ValueError(f"rank is {rank}; it must lie in [0, {world_size})")
        self._config, self._rank, self._world_size = config, rank, world_size
        ratio, size = config.replay_ratio, config.batch_size
        num_replay = round(ratio * size)
        if 0 < ratio < 1 and num_replay in (0, size):
            raise ValueError(
                f"replay_ratio {ratio} of batch_size {size} rounds to {num_replay} replay clips; use batches of more "
                f"than {0.5 / max(min(ratio, 1 - ratio), 1e-9):.0f} clips per worker, or set the ratio to "
                f"{round(ratio)}"
            )
        self._sides = ((new, size - num_replay), (prior, num_replay))
        for name, (source, count) in zip(("new", "prior"), self._sides, strict=True):
            if count and not len(source.rows):
                raise ValueError(
                    f"{count} of {size} clips are to be {name}, but there are no {name} clips; give some, or set "
                    f"replay_ratio to {0 if name == 'prior' else 1}"
                )
        longest = max(source.store.num_samples[source.rows].max() for source, count in self._sides if count)
        self._num_samples = int(_padded(longest, config.clip_seconds))

    @property
    def steps_per_epoch(self) -> int:
        """Steps until every new clip was seen (every prior clip where there is no new one), rounded up."""
        source, count = self._sides[0] if self._sides[0][1] else self._sides[1]
        return -(-len(source.rows) // (count * self._world_size))

    def batch(self, step: int) -> Batch:
        """The batch of `step`, the same one every time."""
        waves, ids, replay, keys = [], [], [], []
        for side, (source, count) in enumerate(self._sides):
            for position in self._positions(step, count):
                epoch, place = divmod(position, max(1, len(source.rows)))
                row = int(source.rows[self._permutation(side, epoch)[place]])
                waves.append(self._crop(source.store, row, side, epoch))
                ids.append(source.store.clips.column("clip_id")[row].as_py())
                replay.append(bool(side))
                keys.append(self._key(source.store, row))
        return _collate(waves, self._num_samples, ids, replay)._replace(keys=tuple(keys))

    def _positions(self, step: int, count: int) -> range:
        begin = (step * self._world_size + self._rank) * count
        return range(begin, begin + count)

    def _permutation(self, side: int, epoch: int) -> np.ndarray:
        return _permutation(len(self._sides[side][0].rows), self._config.seed, side, epoch)

    def _crop(self, store: ClipStore, row: int, side: int, epoch: int) -> np.ndarray:
        """A crop that depends on seed, epoch and clip, not on the worker."""
        length = self._num_samples
        spare = self._spare(store, row)
        begin = np.random.default_rng((self._config.seed, side, epoch, row)).integers(spare + 1) if spare else 0
        return store.waveform(row, int(begin), length)

    def _key(self, store: ClipStore, row: int) -> str | None:
        """What names the samples of a clip that comes whole, in every epoch and in every run."""
        if self._spare(store, row):
            return None
        of = [store.clips.column(name)[row].as_py() for name in ("clip_id", "sha256", "start_s", "duration_s")]
        return hashlib.blake2b(repr((*of, self._num_samples)).encode(), digest_size=_KEY_BYTES).hexdigest()

    def _spare(self, store: ClipStore, row: int) -> int:
        """Samples that a crop leaves out; 0: the clip comes whole."""
        return max(0, int(store.num_samples[row]) - self._num_samples)


class Bucket(NamedTuple):
    """An evaluation batch of clips of like length, and where they stood in the sequence asked for."""

    batch: Batch
    positions: np.ndarray


def batch_clips(store: ClipStore, index: np.ndarray, clip_seconds: float) -> Iterator[Bucket]:
    """Evaluation batches of the rows `index`, each clip cropped around its middle.

    A clip is padded to the next multiple of half a second whatever its neighbours are, so its embedding does not
    depend on the batch; batches come by length.
    """
    ids = store.clips.take(index).column("clip_id").to_pylist()
    padded = _padded(store.num_samples[index], clip_seconds)
    waves = (middle(store.waveform(int(index[i])), int(padded[i])) for i in _by_length(padded))
    return _buckets(ids, padded, waves)


def file_batches(clips: Sequence[Clip], clip_seconds: float, *, workers: int | None = None) -> Iterator[Bucket]:
    """The same straight from the audio files of `clips`, decoded by guarded processes while batches are used.

    Args:
        clips: of any corpora.
        clip_seconds: crop length in seconds.
        workers: processes that decode; None: as many as there are CPUs.

    Raises:
        AudioError: a file cannot be decoded, or took its decoder down.
    """
    padded = _padded(np.asarray([seconds_to_samples(clip.duration_s) for clip in clips]), clip_seconds)
    asked = (
        (AudioSlice(clips[i].path, clips[i].start_s, clips[i].duration_s, clips[i].sha256), int(padded[i]))
        for i in _by_length(padded)
    )
    with Guard(workers=workers) as guard:
        waves = map(_raised, guard.map(decode_middle, asked, chunk=_GUARDED_CHUNK))
        yield from _buckets([clip.clip_id for clip in clips], padded, waves)


def _raised(found: np.ndarray | AudioError) -> np.ndarray:
    if isinstance(found, AudioError):
        raise found
    return found


def _by_length(padded: np.ndarray) -> np.ndarray:
    """Positions in the order of their batches."""
    return np.argsort(padded, kind="stable")


def _buckets(clip_ids: Sequence[str], padded: np.ndarray, waves: Iterator[np.ndarray]) -> Iterator[Bucket]:
    """Batches of one length each; `waves` come in the order of `_by_length`."""
    for length in np.unique(padded):
        members = np.flatnonzero(padded == length)
        for begin in range(0, len(members), _EVALUATION_BATCH):
            positions = members[begin : begin + _EVALUATION_BATCH]
            ids = [clip_ids[i] for i in positions]
            batch = _collate(list(islice(waves, len(ids))), int(length), ids, [False] * len(ids))
            yield Bucket(batch, positions)


def _padded(num_samples: np.ndarray, clip_seconds: float) -> np.ndarray:
    """Lengths rounded up to half a second, `clip_seconds` at most."""
    step = seconds_to_samples(_BUCKET_SECONDS)
    return np.minimum(seconds_to_samples(clip_seconds), -(-num_samples // step) * step)


@lru_cache(maxsize=8)
def _permutation(size: int, seed: int, side: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, side, epoch)).permutation(size)


def _collate(waves: list[np.ndarray], num_samples: int, ids: list[str], replay: list[bool]) -> Batch:
    # By numpy: with 32 clips of 2 s on two busy cores 0.9 ms, against 13 ms where torch's threads wait for a core.
    waveform = np.zeros((len(waves), num_samples), dtype=np.float32)
    padding = np.ones((len(waves), num_samples), dtype=np.bool_)
    for row, wave in enumerate(waves):
        waveform[row, : len(wave)] = wave
        padding[row, : len(wave)] = False
    return Batch(torch.from_numpy(waveform), torch.from_numpy(padding), torch.tensor(replay), tuple(ids))
