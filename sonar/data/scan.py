"""Check the files of a corpus: in parallel, under limits, and only those that changed since the last time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from sonar.data.audio_errors import AudioError
from sonar.data.check import Checked, Job, check_file
from sonar.data.guard import Guard, Limits
from sonar.data.scan_record import ScanRecord

_CHUNK = 16  # files that travel to a worker together: some milliseconds each


class ScanProgress(NamedTuple):
    """How far a scan is: files in all, done, of them read (the others had not changed), bad, and seconds of audio."""

    total: int
    done: int = 0
    read: int = 0
    bad: int = 0
    seconds: float = 0.0

    def after(self, checked: Checked, *, was_read: bool) -> ScanProgress:
        """Progress with one more file."""
        bad = bool(checked.reason)
        seconds = 0.0 if bad else checked.seconds or 0.0
        return ScanProgress(self.total, self.done + 1, self.read + was_read, self.bad + bad, self.seconds + seconds)


@dataclass(frozen=True, kw_only=True)
class ScanOptions:
    """How a corpus is scanned.

    Attributes:
        record: local file that keeps what is found of each file, see scan_record.py; None: every file is read.
        report: hears of every file that is done.
        workers: processes; None: one for each CPU.
        limits: of one file.
        check: what a worker does with a file.
    """

    record: str | Path | None = None
    report: Callable[[ScanProgress], None] = lambda progress: None
    workers: int | None = None
    limits: Limits = field(default_factory=Limits)
    check: Callable[[Job], Checked | None] = check_file


def check_files(root: str, files: Iterable[str], options: ScanOptions) -> dict[str, Checked]:
    """Check every file below a root.

    Args:
        root: folder or URL, as `as_root` gives it.
        files: paths below it; one that stands twice is checked once.
        options: how.

    Returns:
        What is known of each file, in the order of the files.
    """
    names = list(dict.fromkeys(files))
    progress = ScanProgress(len(names))
    checked: dict[str, Checked] = {}
    with ScanRecord(options.record, root) if options.record else nullcontext() as record:
        known = record.found if record else {}
        for name, found in zip(names, _run(root, names, known, options), strict=True):
            checked[name] = known[name] if found is None else found
            if record and found is not None:
                record.add(name, found)
            progress = progress.after(checked[name], was_read=found is not None)
            options.report(progress)
        if record:
            record.keep_only(checked)
    return checked


def _run(root: str, names: Sequence[str], known: dict[str, Checked], options: ScanOptions) -> Iterator[Checked | None]:
    before = {name: known[name].stat for name in names if name in known}
    jobs = (Job(root, name, before.get(name)) for name in names)
    with Guard(workers=options.workers, limits=options.limits) as guard:
        for found in guard.map(options.check, jobs, chunk=_CHUNK):
            # Not kept in the record: another machine, or other limits, may do better.
            yield Checked(None, reason=str(found), kind=found.kind) if isinstance(found, AudioError) else found
