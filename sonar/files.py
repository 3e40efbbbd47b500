"""Files that are whole or absent, and the hash of their bytes."""

import glob
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def sha256_of(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return sha256_of_rest(file)


def sha256_of_rest(file: BinaryIO) -> str:
    """Hex digest of what is left of an open file."""
    digest = hashlib.sha256()
    while chunk := file.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder that becomes `folder` when the block ends well, and vanishes when it does not.

    Remains of killed writers (`.NAME.*.partial` beside it) are removed first, so only one writer may make a
    given folder at a time.

    Raises:
        FileExistsError: if `folder` exists; nothing is ever replaced.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} exists already: give a new name or remove it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    for remains in _remains_of(folder):
        shutil.rmtree(remains)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent))
    try:
        yield partial
        for path in partial.rglob("*"):
            if path.is_dir():
                sync_folder(path)
                continue
            with path.open("rb") as file:
                os.fsync(file.fileno())
        sync_folder(partial)
        partial.chmod(0o755)  # mkdtemp makes it 0700
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    sync_folder(folder.parent)


def write_whole_file(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file through a temporary name, so that `path` is the old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for remains in _remains_of(path):
        remains.unlink(missing_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)  # mkstemp makes it 0600
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_whole_text(path: Path, text: str) -> None:
    """`write_whole_file` of UTF-8 text."""
    write_whole_file(path, lambda file: file.write(text.encode()))


def _remains_of(path: Path) -> Iterator[Path]:
    """What killed writers of this very path left; `tempfile` adds 8 characters, so no other path fits."""
    return path.parent.glob(f".{glob.escape(path.name)}.????????.partial")


def sync_folder(folder: Path) -> None:
    """Make a rename in the folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
