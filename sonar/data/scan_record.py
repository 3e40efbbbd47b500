"""What a scan has found out of each file, kept as it goes: a killed scan goes on, the next one reads what changed.

A record is a text file of JSON lines that is only appended to: a header (which corpus, which rules), then a line per
checked file. A last line that was cut off is dropped, and so is a record of another corpus or of older rules.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TextIO

from sonar.data.check import Checked
from sonar.data.storage import Stat
from sonar.files import write_whole_text

RULES = 1  # of what a good file is: raise it when files have to be checked again


class ScanRecord:
    """The record of one corpus; a context manager that holds its file open for appending."""

    def __init__(self, path: str | Path, root: str) -> None:
        """`root`: of the corpus, as `as_root` gives it."""
        self._path = Path(path)
        self._header = json.dumps({"sonar_scan": RULES, "root": root})
        self._lines = 0
        self.found: dict[str, Checked] = {}

    def __enter__(self) -> ScanRecord:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if not self._read():
            write_whole_text(self._path, self._header + "\n")
        self._file: TextIO = self._path.open("a", encoding="utf-8")
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._file.close()

    def add(self, file: str, checked: Checked) -> None:
        """Keep what was found; it is with the system when this returns. What may be different next time is not kept."""
        if checked.stat is not None and checked.stat.stamp:
            self.found[file] = checked
            self._file.write(_line(file, checked))
            self._file.flush()
            self._lines += 1

    def keep_only(self, checked: Mapping[str, Checked]) -> None:
        """Forget files that are gone and lines that are superseded, once a scan is through."""
        self.found = {file: one for file, one in self.found.items() if file in checked}
        if self._lines > len(self.found):
            lines = "".join(_line(file, one) for file, one in self.found.items())
            write_whole_text(self._path, f"{self._header}\n{lines}")

    def _read(self) -> bool:
        """Whether there is a record of this corpus; what its lines say goes to `found`."""
        if not self._path.is_file():
            return False
        content = self._path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if not whole.startswith(self._header.encode() + b"\n"):
            return False
        if len(whole) < len(content):
            with self._path.open("r+b") as file:
                file.truncate(len(whole))
        lines = whole.decode("utf-8", "replace").split("\n")[1:-1]
        self._lines = len(lines)
        self.found = dict(parsed for line in lines if (parsed := _parse(line)))
        return True


def _line(file: str, checked: Checked) -> str:
    assert checked.stat is not None
    return json.dumps([file, *checked.stat, *checked[1:]], ensure_ascii=True) + "\n"


def _parse(line: str) -> tuple[str, Checked] | None:
    """None for a line that says nothing: its file is checked again."""
    try:
        file, size, stamp, *rest = json.loads(line)
        return file, Checked(Stat(size, stamp), *rest)
    except (ValueError, TypeError):
        return None
