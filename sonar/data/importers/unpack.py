"""Audio out of containers: into files of our own naming, whole or absent, kept where they are there already."""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, BinaryIO

from sonar.data.audio_errors import AudioError
from sonar.data.importers.importer import ImportOptions
from sonar.files import sha256_of, write_whole_file

MAX_AUDIO_BYTES = 2 * 2**30  # more than four hours of 16-bit stereo at 32 kHz; a longer one is cut before it is packed
_KEPT_IN_MEMORY = 16 * 2**20  # of one file while it is hashed; the rest waits on disk
_WRITERS = 8  # measured: 63 files/s one after the other, 523 files/s with eight, each waiting for its fsync
_FILES_PER_FOLDER = 1000
_MAX_NAME = 80
_MAGIC = {b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg", b"FORM": ".aiff", b"ID3": ".mp3"}


class RefusedEntry(AudioError):
    """An entry of a container that is not unpacked; the message is the reason."""


def destination(options: ImportOptions, container: Path) -> Path:
    """The folder to unpack to.

    Raises:
        ValueError: none was chosen.
    """
    if options.extract_to is None:
        raise ValueError(f"the audio lies inside {container.name}; say where to unpack it: --extract-to FOLDER")
    return options.extract_to


def safe_name(name: str) -> str:
    """A name without a path: letters, digits, - _ and ., the first no dot, of limited length."""
    return re.sub(r"[^\w.-]+", "_", name, flags=re.ASCII).strip(".")[:_MAX_NAME] or "_"


def place(container: str, number: int, key: str) -> str:
    """Path, without a suffix, of the entry `number` of a container: no part of it is taken from a name as it is.

    Args:
        container: its path in the corpus; each has a folder of its own.
        number: counts the entries.
        key: name of the entry, of any content.
    """
    digest = hashlib.sha256(container.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{safe_name(container)}-{digest}/{number // _FILES_PER_FOLDER:05d}/{number:08d}_{safe_name(key)}"


class Unpacker:
    """Writes files below a folder, several at a time, as each waits for the disk; a context manager.

    When it ends well, every file is on disk. Memory holds at most `_KEPT_IN_MEMORY` bytes of each file in flight.
    """

    def __init__(self, folder: Path) -> None:
        """`folder`: to unpack to; made when the first file is written."""
        self.folder = folder
        self._pool = ThreadPoolExecutor(_WRITERS)
        self._writing: deque[Future[None]] = deque()

    def __enter__(self) -> Unpacker:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=kind is not None)
        while self._writing and kind is None:
            self._writing.popleft().result()

    def put(self, source: BinaryIO, stem: str) -> str:
        """Take what is left of `source` into a file; one that holds the same bytes already is left as it is.

        Args:
            source: an audio file.
            stem: path below the folder, as `place` gives it; the suffix follows from the content.

        Returns:
            Path below the folder; the file may still be being written.

        Raises:
            RefusedEntry: more than MAX_AUDIO_BYTES.
            OSError: a file that was put before could not be written.
        """
        held, digest = tempfile.SpooledTemporaryFile(max_size=_KEPT_IN_MEMORY), hashlib.sha256()
        while chunk := source.read(2**20):
            digest.update(chunk)
            held.write(chunk)
            if held.tell() > MAX_AUDIO_BYTES:
                held.close()
                raise RefusedEntry(f"more than {MAX_AUDIO_BYTES} bytes; longer recordings are cut before packing")
        held.seek(0)
        file = stem + _suffix(held.read(4))
        if len(self._writing) >= _WRITERS:
            self._writing.popleft().result()
        self._writing.append(self._pool.submit(_write, held, digest.hexdigest(), self.folder / file))
        return file


def _write(held: IO[bytes], sha256: str, path: Path) -> None:
    with held:
        held.seek(0)
        if not path.is_file() or path.is_symlink() or sha256_of(path) != sha256:
            write_whole_file(path, lambda target: shutil.copyfileobj(held, target))


def as_labels(value: Any, names: Sequence[str] = ()) -> tuple[str, ...]:
    """Classes of a value in a container: a text, a number, a list of them, or nothing.

    Args:
        value: what stands there.
        names: of the classes that numbers count; a number beyond them (as -1) is no class.

    Raises:
        RefusedEntry: another kind of value.
    """
    if value is None or value == "":
        return ()
    if isinstance(value, list):
        return tuple(label for item in value for label in _as_label(item, names))
    return _as_label(value, names)


def _as_label(value: Any, names: Sequence[str]) -> tuple[str, ...]:
    if isinstance(value, bool) or not isinstance(value, str | int):
        shown = str(value)[:_MAX_NAME]
        raise RefusedEntry(f"its label or group is {shown!r}; it must be a text, a whole number or a list of them")
    if isinstance(value, int) and names:
        return (names[value],) if 0 <= value < len(names) else ()
    return (str(value),)


def _suffix(head: bytes) -> str:
    """The suffix that suits the content; `.mp3` for frames without a tag, `.bin` for what is no audio known here."""
    if head[:2] in (b"\xff\xfb", b"\xff\xf3", b"\xff\xf2", b"\xff\xfa"):
        return ".mp3"
    return next((suffix for magic, suffix in _MAGIC.items() if head.startswith(magic)), ".bin")
