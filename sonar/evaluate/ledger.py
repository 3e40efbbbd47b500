"""Who looked at which split: an append-only record of every evaluation on dev and test."""

from __future__ import annotations

import fcntl
import json
import os
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

from sonar.files import sync_folder

LEDGER_FILE = "evaluations.jsonl"


class Use(NamedTuple):
    """One evaluation.

    Attributes:
        time: UTC, ISO 8601.
        checkpoint: 12 hex digits of its content.
        suite: its name.
        suite_hash: 12 hex digits of its tasks and protocol.
        split: that was scored.
        purpose: what for.
    """

    time: str
    checkpoint: str
    suite: str
    suite_hash: str
    split: str
    purpose: str


def now() -> str:
    """The time of a use."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def record_use(use: Use, folder: Path) -> None:
    """Append to the ledger in a folder, on the disk when it returns; several processes may do so at a time.

    To be called before a split is looked at. A last line without its end is of a process that was killed before it
    looked, and is cut away.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LEDGER_FILE).open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)
        file.write(json.dumps(use._asdict()).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    sync_folder(folder)


def read_uses(folder: Path) -> list[Use]:
    """The uses in the ledger of a folder, in order; none where there is no ledger.

    Raises:
        ValueError: a line is not what was written.
    """
    path = folder / LEDGER_FILE
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    uses = []
    for number, line in enumerate(lines, start=1):
        try:
            uses.append(Use(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}, line {number} is not a record of an evaluation: {error}") from error
    return uses


def earlier_tests(uses: Sequence[Use], suite: str, suite_hash: str) -> Counter[str]:
    """How often each checkpoint was scored on the test split of a suite: one of that name, or of the same content."""
    return Counter(
        use.checkpoint for use in uses if use.split == "test" and (use.suite == suite or use.suite_hash == suite_hash)
    )
