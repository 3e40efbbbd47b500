"""Freed memory: kept while asked for, then given back, by what the system counts for a process of its own."""

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from sonar.model.heap import freed_memory_kept

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
PROGRAM = """
import resource
import torch
from sonar.model.heap import freed_memory_kept

PAGE = resource.getpagesize()

def fetched():
    # MiB of pages that a buffer of 64 MiB, filled and freed, has the system zero. Pages may be larger than they say.
    torch.ones(64 << 18)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(64 << 18)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * PAGE >> 20

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * PAGE >> 20

def failing():
    with freed_memory_kept():
        torch.ones(64 << 18)
        raise ValueError

torch.ones(1)
start, before = resident(), fetched()
with freed_memory_kept():
    with freed_memory_kept():
        fetched()
    kept, held = min(fetched() for _ in range(5)), resident()
given_back, after = fetched(), resident()
try:
    failing()
except ValueError:
    pass
print(before, kept, held - start, given_back, after - start, resident() - start)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="the C library is not glibc")
def test_freed_memory_is_fetched_once_and_is_the_systems_again_afterwards(root: Path) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=root, capture_output=True, text=True, check=True)
    before, kept, held, given_back, after, after_failure = map(int, done.stdout.split())
    assert kept == 0 and held >= 60
    assert after < 30 and after_failure < 30
    if "[always]" not in HUGE_PAGES.read_text(encoding="ascii"):  # a fault fetches a page of the size that is counted
        assert before >= 60 and given_back >= 60


def test_a_failure_is_passed_on() -> None:
    with pytest.raises(ValueError, match="as it came"), freed_memory_kept():
        raise ValueError("as it came")
