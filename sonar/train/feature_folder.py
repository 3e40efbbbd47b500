"""Half-precision features in a folder that several processes, and the trials of a sweep, read and fill together."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import shutil
import tempfile
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

LEAST_FREE = 2e9  # bytes of the disk that are never taken: checkpoints must find room
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_CHECK_BYTES, _COUNT_BYTES = 4, 8  # of the checksum behind the features; of what is taken
COUNTER = "taken"

log = logging.getLogger(__name__)


class FeatureFolder:
    """A `FeatureStore`: a file per name, written under another name and renamed, with a checksum behind the features.

    The checksum is compared when a process first reads a file. The first clips that come are kept and stay: clips come
    in turn, so that to give up old ones for new ones would find none of them again. What is taken is counted in a file
    that processes lock, and however many write, it stays below the bound.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        """Of a folder, made when something is kept, with `max_bytes` of files in it at most."""
        self._folder, self._max_bytes = folder, max_bytes
        self._verified: set[str] = set()

    def read(self, name: str, shape: tuple[int, int]) -> Tensor | None:
        """(N, D) float16, mapped into memory; None where they are not kept, or not whole."""
        try:
            mapped = np.memmap(self._path(name), dtype=np.uint8, mode="c")
        except (FileNotFoundError, ValueError):  # a ValueError where the file is empty
            return None
        features, check = mapped[:-_CHECK_BYTES], mapped[-_CHECK_BYTES:]
        if len(features) != 2 * shape[0] * shape[1]:
            return None
        if name not in self._verified and check.tobytes() != _checksum(features):
            return None
        self._verified.add(name)
        return torch.from_numpy(features).view(torch.float16).view(shape)

    def keep(self, name: str, features: Tensor) -> None:
        """Keep (N, D) float16 on the CPU, unless the bound or the disk leaves no room, or another process has them."""
        num_bytes = features.nbytes + _CHECK_BYTES
        if self.read(name, (features.shape[0], features.shape[1])) is not None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(self._folder).free - num_bytes < LEAST_FREE or not self._take(num_bytes):
            return
        path = self._path(name)
        path.parent.mkdir(exist_ok=True)
        try:
            _write(path, features.contiguous().numpy())
        except OSError as error:
            self._take(-num_bytes)
            if error.errno not in _NO_ROOM:
                raise
            log.warning("%s: no room for features (%s); they are computed instead", self._folder, error)

    def _path(self, name: str) -> Path:
        return self._folder / name[-2:] / name  # a name ends in hex digits: 256 folders

    def _take(self, num_bytes: int) -> bool:
        """Count bytes as taken, if the bound allows it; a negative number gives them back."""
        counter = os.open(self._folder / COUNTER, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(counter, fcntl.LOCK_EX)
            taken = int.from_bytes(os.pread(counter, _COUNT_BYTES, 0), "little") + num_bytes
            if num_bytes > 0 and taken > self._max_bytes:
                return False
            os.pwrite(counter, taken.to_bytes(_COUNT_BYTES, "little"), 0)
            return True
        finally:
            os.close(counter)  # and the lock with it


def _write(path: Path, features: np.ndarray) -> None:
    """Whole or absent if the process dies; after a power cut the checksum tells."""
    handle, partial = tempfile.mkstemp(prefix=".", suffix=".partial", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(features.data)
            file.write(_checksum(features))
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def _checksum(features: np.ndarray) -> bytes:
    return zlib.crc32(features.data).to_bytes(_CHECK_BYTES, "little")
