"""Memory that a step frees is kept for the next one, instead of being fetched from the system again.

glibc gives a buffer of more than 32 MiB back as soon as it is free, and the top of its heap likewise; the system then
zeroes every page of the next such buffer. On a CPU that took from a twelfth to a fifth of a training step of BEATs-base
(bench/heap.py). Large batches take more memory for it (docs/log.md). Another C library than glibc is left as it is.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

# glibc's malloc.h: parameters of mallopt. Afterwards they stand where glibc's own adaptation ends: 32 and 64 MiB.
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4
KEPT = {TRIM_THRESHOLD: -1, MMAP_MAX: 0}
GIVEN_BACK = {TRIM_THRESHOLD: 64 << 20, MMAP_THRESHOLD: 32 << 20, MMAP_MAX: 65_536}

_lock = threading.Lock()
_depth = 0


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """While this lasts, also in several threads or within itself, freed memory stays; then the system has it again."""
    _enter(1)
    try:
        yield
    finally:
        _enter(-1)


def _enter(change: int) -> None:
    """One user more or less; the first and the last one change the process."""
    global _depth
    libc = _glibc()
    if libc is None:
        return
    with _lock:
        before, _depth = _depth, _depth + change
        if before and _depth:
            return
        for name, value in (KEPT if _depth else GIVEN_BACK).items():
            libc.mallopt(name, value)
        if not _depth:
            libc.malloc_trim(0)


@cache
def _glibc() -> ctypes.CDLL | None:
    """The C library of this process, where it is glibc."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "gnu_get_libc_version") else None
