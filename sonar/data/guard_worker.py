"""The worker processes of a guard: how they start, what they may take, and when they end."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import spawn
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path
from typing import Any

_LAUNCH = threading.Lock()
_settled = False  # of a worker


class WorkerProcess(SpawnProcess):
    """A process that does not import its parent's main module.

    That may be a sweep that imports torch, Ray's worker, or a script without `if __name__ == "__main__"`.
    """

    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        with _LAUNCH, _main_left_out(process_obj.name):
            return SpawnProcess._Popen(process_obj)


class WorkerContext(SpawnContext):
    """Spawns such processes."""

    Process = WorkerProcess


def start_worker() -> None:
    """The first thing that a worker does."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # Python's handler would wait for the C code that hangs
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    threading.Thread(target=_end_with_parent, daemon=True).start()


def settle(memory_mb: int) -> None:
    """Once in a worker's life, when everything is imported that the first task needs."""
    global _settled
    if _settled:
        return
    _settled = True
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders complain there, of a file that they do not name
    if sys.platform == "linux":
        status = Path("/proc/self/status").read_text().splitlines()
        held = next(int(line.split()[1]) for line in status if line.startswith("VmData")) * 1024
        resource.setrlimit(resource.RLIMIT_DATA, (held + memory_mb * 2**20,) * 2)


@contextmanager
def _main_left_out(own: str) -> Iterator[None]:
    """While a process of that name is launched; what other threads launch in the meantime is not touched."""
    prepare = spawn.get_preparation_data

    def prepared(name: str) -> dict[str, Any]:
        data = prepare(name)
        return {key: data[key] for key in data if name != own or not key.startswith("init_main")}

    spawn.get_preparation_data = prepared
    try:
        yield
    finally:
        spawn.get_preparation_data = prepare


def _end_with_parent() -> None:
    """A killed parent stops nobody, and a worker that hangs would not see that it is alone."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
