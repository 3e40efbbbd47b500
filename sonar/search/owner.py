"""One owner per sweep: a lock where locks reach, and beside it a file whose age says whether its owner lives."""

import contextlib
import fcntl
import json
import os
import socket
import tempfile
import threading
import time
import uuid
from pathlib import Path
from typing import NamedTuple

from sonar.files import write_whole_text
from sonar.search.events import JournalError

OWNER_FILE = "owner.json"
HEARTBEAT_S = 10.0  # between two signs of life
STALE_S = 60.0  # without one an owner counts as gone
SETTLE_S = 0.5  # two that take over at once on a storage without locks: the later writer stays


class JournalBusy(JournalError):
    """Another driver owns the sweep."""


class Owner(NamedTuple):
    """Who says that a sweep is theirs.

    Attributes:
        host: name of their machine.
        pid: of their process there.
        since_s: Unix time at which they took it, by their clock.
        token: theirs alone.
        age_s: seconds since their last sign of life, by the clock of the storage.
    """

    host: str
    pid: int
    since_s: float
    token: str
    age_s: float = 0.0

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    @property
    def is_stale(self) -> bool:
        """Whether they are gone: no sign of life for `STALE_S`, or a process of this host that is no more."""
        return self.age_s > STALE_S or (self.host == socket.gethostname() and not _is_alive(self.pid))


def read_owner(folder: Path) -> Owner | None:
    """Who owns the sweep in a folder; None where nobody says so, or a file that says it is damaged."""
    path = folder / OWNER_FILE
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
        age_s = _storage_time_s(folder) - path.stat().st_mtime
        return Owner(written["host"], written["pid"], written["since_s"], written["token"], age_s)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


class Ownership:
    """The sweep in a folder, owned by this process until `close` or its death.

    A lock that the system takes back from a dead process decides where it reaches; some storages do not carry it to
    other hosts, so the owner also touches `owner.json` every `HEARTBEAT_S`.

    Attributes:
        taken_from: the owner who was gone and never gave the sweep back, or None.
    """

    def __init__(self, folder: Path, lock_name: str) -> None:
        """Take it.

        Raises:
            JournalBusy: another owner, named in the message, lives.
        """
        self._path = folder / OWNER_FILE
        self._lock_fd = _lock(folder / lock_name, folder)
        self._ended = threading.Event()
        try:
            self.taken_from = self._take(folder)
        except BaseException:
            os.close(self._lock_fd)
            raise
        self._thread = threading.Thread(target=self._live, name="sonar-heartbeat", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise JournalBusy when another process has taken the sweep, as after a long sleep of this one."""
        if time.monotonic() - self._refreshed > STALE_S / 2:
            self._refresh()
        if self._lost_to is not None:
            raise JournalBusy(f"{self._path.parent}: the sweep was taken over by {self._lost_to} while this one slept")

    def close(self) -> None:
        """Give the sweep back; again changes nothing."""
        if self._ended.is_set():
            return
        self._ended.set()
        self._thread.join()
        if self._lost_to is None:
            self._path.unlink(missing_ok=True)
        os.close(self._lock_fd)

    def _take(self, folder: Path) -> Owner | None:
        before = read_owner(folder)
        if before is not None and not before.is_stale:
            raise _busy(folder, str(before))
        self._own = Owner(socket.gethostname(), os.getpid(), round(time.time(), 3), uuid.uuid4().hex)
        self._lost_to: Owner | None = None
        self._write()
        if before is not None and before.host != self._own.host:
            time.sleep(SETTLE_S)
            self._refresh()
            if self._lost_to is not None:
                raise _busy(folder, str(self._lost_to))
        return before

    def _write(self) -> None:
        values = {name: value for name, value in self._own._asdict().items() if name != "age_s"}
        write_whole_text(self._path, json.dumps(values))
        self._refreshed = time.monotonic()

    def _live(self) -> None:
        while not self._ended.wait(HEARTBEAT_S):
            # A storage that does not answer now may do so later; until then the age of the file grows.
            with contextlib.suppress(OSError):
                self._refresh()

    def _refresh(self) -> None:
        now = read_owner(self._path.parent)
        if now is None:
            self._write()
        elif now.token != self._own.token:
            self._lost_to = now
        else:
            os.utime(self._path)
            self._refreshed = time.monotonic()


def _busy(folder: Path, owner: str) -> JournalBusy:
    return JournalBusy(f"{folder}: the sweep is owned by {owner}; wait for it or stop it first (sonar sweep stop)")


def _lock(path: Path, folder: Path) -> int:
    """Lock a file beside the journal; closing a reader of the journal itself must not give the lock away."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise _busy(folder, str(read_owner(folder) or "a process that just began")) from None
    except OSError:
        os.close(fd)
        raise
    return fd


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _storage_time_s(folder: Path) -> float:
    """Unix time by the clock that stamps the storage's files, which need not be this host's, or else by its."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".clock-") as file:
            return os.stat(file.name).st_mtime
    except OSError:
        return time.time()
