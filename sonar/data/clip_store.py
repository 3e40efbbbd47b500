"""Random access to the audio of shards, memory-mapped.

Shapes: N clips, T samples.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sonar.data.clip_table import ClipTable
from sonar.data.shard_cache import local_shards
from sonar.data.shard_folder import ShardFolder
from sonar.data.shard_summary import INDEX_FILE, SUMMARY_FILE

_INT16_SCALE = np.float32(1 / 32768)


class ClipStore:
    """The clips of a folder of shards, in order of their ids.

    Index and Parquet files are mapped into memory: audio lies in them uncompressed, where the index says, so a clip is
    read without its row group, and workers of one machine share the pages. The process itself holds 4 bytes a clip.

    Attributes:
        source: what names the shards on every node: an absolute path, or a URL.
        folder: where they lie on this machine: a copy, where the source is a URL (`shard_cache`).
        clips: the manifest's rows.
        num_samples: (N,) int64 length of each clip at 16 kHz.
    """

    def __init__(self, place: str | Path) -> None:
        """Open the shards of a folder or URL.

        Raises:
            FileNotFoundError: there are none, they are unfinished, or a file is missing.
            ValueError: a copy does not fit on the disk, or is not what was written.
        """
        self.folder = local_shards(place)
        self.source = ShardFolder(place).shared_place
        if not (self.folder / SUMMARY_FILE).is_file():
            raise FileNotFoundError(f"no finished shards in {self.folder}; prepare the corpus again")
        index = pa.ipc.open_file(pa.memory_map(str(self.folder / INDEX_FILE))).read_all()
        self.clips = ClipTable(index)
        self.num_samples = _numpy(index["num_samples"])
        self._offsets = _numpy(index["offset"])
        files = index["file"].combine_chunks().dictionary_encode()
        self._files, self._file_of = files.dictionary.to_pylist(), files.indices.to_numpy()
        self._mapped: dict[int, np.ndarray] = {}
        for name in self._files:
            if not (self.folder / name).is_file():
                raise FileNotFoundError(f"shard {self.folder / name} is missing; prepare the corpus again")

    def __len__(self) -> int:
        return len(self.num_samples)

    def waveform(self, row: int, begin: int = 0, num_samples: int | None = None) -> np.ndarray:
        """(T,) float32 in [-1, 1], 16 kHz: `num_samples` of the clip from sample `begin` on, or what there is."""
        left = int(self.num_samples[row]) - begin
        count = left if num_samples is None else min(left, num_samples)
        mapped = self._map(int(self._file_of[row]))
        samples = np.frombuffer(mapped, "<i2", count, int(self._offsets[row]) + 2 * begin)
        return samples.astype(np.float32) * _INT16_SCALE

    def index(self, *, split: str) -> np.ndarray:
        """Rows of one split, int64, ascending."""
        return np.flatnonzero(pc.equal(self.clips.column("split"), split).to_numpy())

    def _map(self, file: int) -> np.ndarray:
        if file not in self._mapped:
            self._mapped[file] = np.memmap(self.folder / self._files[file], dtype=np.uint8, mode="r")
        return self._mapped[file]


def _numpy(column: pa.ChunkedArray) -> np.ndarray:
    """A view of the mapped file."""
    return column.combine_chunks().to_numpy(zero_copy_only=False)
