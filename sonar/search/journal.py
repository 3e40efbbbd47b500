"""The sweep's own record: an append-only file of events, the truth that all else is rebuilt from.

One event a line: the crc32 of the rest in 8 hex digits, a space, compact JSON. A line counts when it is on
the disk with its newline; a driver that dies writing leaves a torn last line, which the next one cuts away.
"""

import contextlib
import json
import math
import os
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from sonar.files import sync_folder
from sonar.search.events import Event, JournalError
from sonar.search.owner import JournalBusy, Owner, Ownership
from sonar.search.records import Report, TrialRecord
from sonar.search.state import SweepState, replay

__all__ = [
    "Event",
    "Journal",
    "JournalBusy",
    "JournalCorrupt",
    "JournalError",
    "Report",
    "SweepState",
    "TrialRecord",
    "read_journal",
    "replay",
]

_RESERVED = frozenset({"seq", "time", "event"})


class JournalCorrupt(JournalError):
    """A line that was once whole is not what was written."""


class Journal:
    """A journal opened for writing; the only writer as long as it is open.

    Attributes:
        path: of the file.
        state: the sweep after all events, kept up to date by `append`.
        events: how many there are.
        num_found: how many there were when it was opened.
        taken_from: the owner before, where it was gone and had not given the journal back.
    """

    def __init__(self, path: str | Path, *, clock: Callable[[], float] = time.time) -> None:
        """Open or create the file, take its folder, cut a torn last line and replay what is there.

        Raises:
            JournalBusy: another driver, named in the message, has it open.
            JournalCorrupt: a line in the middle is not what was written.
        """
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._clock, self._guard = clock, threading.Lock()
        self._fd = -1
        self._owned = Ownership(self.path)
        self.taken_from: Owner | None = self._owned.taken_from
        try:
            parsed = _parse(self.path.read_bytes() if self.path.exists() else b"", self.path)
            self.state = replay(parsed.events)
            self.events = self.num_found = len(parsed.events)
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            _cut_torn(self._fd, self.path, parsed)
            sync_folder(self.path.parent)
        except BaseException:
            self.close()
            raise
        self._size = parsed.whole_bytes

    def append(self, event: str, **data: Any) -> Event:
        """Check an event against the state, write it to the disk, then take it into the state.

        NaN and infinity are kept in the metrics of `reported`, `failed` and `pruned`, and refused elsewhere.

        Args:
            event: one of `sonar.search.events.EVENT_FIELDS`.
            **data: its fields, plain values.

        Raises:
            JournalError: it contradicts the journal, the disk refused it, or another owner has taken the journal; then
                nothing has changed.
            ValueError: a told metric that is missing or not finite, or a value that JSON does not have.
        """
        with self._guard:
            if self._fd < 0:
                raise JournalError(f"{self.path}: the journal is closed")
            self._owned.check()
            line, parsed = _encode(Event(self.events, round(self._clock(), 3), event, data))
            self.state.check(parsed)
            try:
                self._write(line)
            except OSError as error:
                raise JournalError(f"{self.path}: cannot write {event} {data.get('trial_id', '')}: {error}") from error
            self.state.apply(parsed)
            self.events += 1
            return parsed

    def close(self) -> None:
        """Give the sweep back; a closed journal can be closed again."""
        with self._guard:
            if self._fd >= 0:
                os.close(self._fd)
            self._fd = -1
            self._owned.close()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, line: bytes) -> None:
        try:
            written = os.write(self._fd, line)
            if written < len(line):
                raise OSError(f"only {written} of {len(line)} bytes were written; is the disk full?")
            os.fsync(self._fd)
        except OSError:
            with contextlib.suppress(OSError):  # what is left is a torn line, cut when the journal is next opened
                os.ftruncate(self._fd, self._size)
            raise
        self._size += len(line)


def read_journal(path: str | Path) -> list[Event]:
    """All whole events, without the lock: a driver may be writing, so a torn last line is left out.

    Raises:
        FileNotFoundError: no such file.
        JournalCorrupt: a line in the middle is not what was written.
    """
    return _parse(Path(path).read_bytes(), Path(path)).events


class _Parsed(NamedTuple):
    events: list[Event]
    whole_bytes: int
    torn: bytes


def _parse(content: bytes, path: Path) -> _Parsed:
    whole, newline, torn = content.rpartition(b"\n")
    lines = whole.split(b"\n") if newline else []
    # After a power cut a file system may have the new length but zeros for what was not yet written.
    while lines and b"\0" in lines[-1]:
        torn = lines.pop() + b"\n" + torn
    events = []
    for number, line in enumerate(lines):
        event = _decode(line)
        if event is None or event.seq != number:
            raise JournalCorrupt(
                f"{path}: line {number + 1} is not what was written there; restore the file from a copy"
            )
        events.append(event)
    return _Parsed(events, sum(len(line) + 1 for line in lines), torn)


def _encode(event: Event) -> tuple[bytes, Event]:
    """The line of an event, and the event as reading the line will give it."""
    if reserved := _RESERVED & event.data.keys():
        raise JournalError(f"{event.event}: the field {min(reserved)!r} belongs to the journal itself")
    data = dict(event.data)
    if isinstance(data.get("metrics"), Mapping):
        data["metrics"] = {name: _strict(value) for name, value in data["metrics"].items()}
    record = {"seq": event.seq, "time": event.time_s, "event": event.event, **data}
    try:
        text = json.dumps(record, separators=(",", ":"), allow_nan=False).encode()
    except ValueError as error:
        raise ValueError(f"{event.event} {data.get('trial_id', '')}: {error}; allowed: finite numbers") from error
    line = b"%08x %s\n" % (zlib.crc32(text), text)
    decoded = _decode(line[:-1])
    assert decoded is not None
    return line, decoded


def _strict(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _decode(line: bytes) -> Event | None:
    """The event of a line without its newline, or None where the line is damaged."""
    check, space, text = line.partition(b" ")
    if not space or check != b"%08x" % zlib.crc32(text):
        return None
    record = json.loads(text)
    return Event(record.pop("seq"), record.pop("time"), record.pop("event"), record)


def _cut_torn(fd: int, path: Path, parsed: _Parsed) -> None:
    """Move the bytes after the last whole line into a file beside the journal."""
    if not parsed.torn:
        return
    with open(path.with_name(path.name + ".torn"), "ab") as file:
        file.write(parsed.torn + b"\n")
        file.flush()
        os.fsync(file.fileno())
    os.ftruncate(fd, parsed.whole_bytes)
    os.fsync(fd)
