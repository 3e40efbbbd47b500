"""How a sweep ends before its end: a file asks its owner and its trials to drain, a second signal aborts."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

STOP_FILE = "stop.json"
LOOK_EVERY_S = 0.5  # a look costs one stat of the storage


class Aborted(KeyboardInterrupt):
    """A signal that asks to end at once; the journal holds what a resume needs."""


class StopRequest:
    """Whether the sweep in a folder is to drain: no new trials, running ones save their state and end.

    The request is a file, so that it reaches the owner and its trials on any host that sees the storage.
    """

    def __init__(self, folder: Path) -> None:
        """Of the sweep in `folder`; nothing is written."""
        self._path = folder.resolve() / STOP_FILE
        self._looked_s, self._is_asked = -LOOK_EVERY_S, False

    def __getstate__(self) -> dict[str, Any]:
        return {"_path": self._path, "_looked_s": -LOOK_EVERY_S, "_is_asked": False}  # clocks of other hosts differ

    def __call__(self) -> bool:
        """Whether it was asked for; looks at the storage at most every `LOOK_EVERY_S`, and no more once it was."""
        now = time.monotonic()
        if not self._is_asked and now - self._looked_s >= LOOK_EVERY_S:
            self._looked_s, self._is_asked = now, self._path.exists()
        return self._is_asked

    def ask(self, by: str) -> None:
        """Ask for it. Written without Python's buffers, since a signal may come while one is written to."""
        self._is_asked = True
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        with contextlib.suppress(OSError):  # on a full disk the file itself is the request
            os.write(fd, json.dumps({"by": by, "time": round(time.time(), 3)}).encode())
        os.close(fd)

    def by(self) -> str:
        """Who asked."""
        try:
            return str(json.loads(self._path.read_text(encoding="utf-8"))["by"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return "somebody"

    def withdraw(self) -> None:
        """Take the request back, as the owner does when it begins and when it has drained."""
        self._path.unlink(missing_ok=True)
        self._looked_s, self._is_asked = -LOOK_EVERY_S, False


@contextmanager
def signals_drain(stop: StopRequest) -> Iterator[None]:
    """While the block runs, the first SIGINT or SIGTERM asks for a stop and the next one raises Aborted."""

    def drain(number: int, frame: FrameType | None) -> None:
        if stop():
            raise Aborted
        stop.ask(signal.Signals(number).name)

    with _handled(drain):
        yield


@contextmanager
def signals_abort() -> Iterator[None]:
    """While the block runs, SIGINT and SIGTERM raise Aborted, so that what was begun is cleaned up."""

    def abort(number: int, frame: FrameType | None) -> None:
        raise Aborted

    with _handled(abort):
        yield


@contextmanager
def _handled(handler: Any) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # Python hears signals in the main thread only
        yield
        return
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
