"""A folder of shards, on this machine's disks or on any filesystem that pyarrow or fsspec knows."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

import fsspec
import pyarrow as pa
from pyarrow import fs

from sonar.data.storage import as_root, is_url
from sonar.files import sha256_of_rest, sync_folder

COPIED_AT_A_TIME = 1 << 20


class ShardFolder:
    """Files below a path or URL; each is whole or absent.

    Attributes:
        local: the folder, where this machine's file system holds it; else None.
    """

    def __init__(self, place: str | Path) -> None:
        """`place`: a path, or a URL such as s3://bucket/shards; what pyarrow does not know is asked of fsspec.

        Raises:
            ValueError: no such protocol, or one whose package is not installed; or a URL that carries a password.
        """
        self.place = str(place)
        self.local: Path | None = None
        if not is_url(self.place):
            self.local = Path(place).absolute()
            self._filesystem, self._root = fs.LocalFileSystem(), str(self.local)
        else:
            as_root(self.place)  # the place is told, and kept with what is trained: no password
            self._filesystem, self._root = _resolve(self.place)
            if isinstance(self._filesystem, fs.LocalFileSystem):
                self.local = Path(self._root)

    def __str__(self) -> str:
        return self.place

    @property
    def shared_place(self) -> str:
        """What names the folder on every node: the URL, or the absolute path, as workers have other working folders."""
        return str(self.local or self.place)

    def exists(self, name: str = "") -> bool:
        """Whether there is such a file (without a name: such a folder, with something in it)."""
        if name:
            return self._filesystem.get_file_info(self._path(name)).type == fs.FileType.File
        return bool(self._filesystem.get_file_info(fs.FileSelector(self._root, allow_not_found=True)))

    def sizes(self) -> dict[str, int]:
        """Every whole file below the folder, and its bytes."""
        found = self._filesystem.get_file_info(fs.FileSelector(self._root, allow_not_found=True, recursive=True))
        files = {PurePosixPath(one.path): one.size for one in found if one.type == fs.FileType.File}
        root = PurePosixPath(self._root)
        return {
            path.relative_to(root).as_posix(): size for path, size in files.items() if not path.name.startswith(".")
        }

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """Read a file.

        Raises:
            FileNotFoundError: there is none.
        """
        with self._filesystem.open_input_stream(self._path(name)) as stream:
            yield cast(BinaryIO, stream)

    def read(self, name: str) -> bytes:
        """The bytes of a file."""
        with self.open(name) as file:
            return file.read()

    def sha256(self, name: str) -> str:
        """64 hex digits of a file's bytes."""
        with self.open(name) as file:
            return sha256_of_rest(file)

    def put(self, made: Path, name: str) -> None:
        """Copy a file of this machine to `name`: synced, under a temporary name first, then renamed."""
        target = self._path(name)
        parent, _, base = target.rpartition("/")
        partial = f"{parent}/.{base}.{uuid.uuid4().hex[:8]}.partial"
        self._filesystem.create_dir(parent, recursive=True)
        try:
            self._copy(made, partial)
            self._filesystem.move(partial, target)
            if self.local is not None:
                sync_folder(Path(parent))
        except BaseException:
            if self._filesystem.get_file_info(partial).type == fs.FileType.File:
                self._filesystem.delete_file(partial)
            raise

    def put_bytes(self, content: bytes, name: str) -> None:
        """Write a small file, as `put` does."""
        with self.scratch() as folder:
            made = folder / "content"
            made.write_bytes(content)
            self.put(made, name)

    def clear(self, keep: Collection[str]) -> None:
        """Delete every file but those to keep, what killed writers left included, and the folders that empties."""
        kept = {self._path(name) for name in keep}
        parents = {str(parent) for path in kept for parent in PurePosixPath(path).parents}
        found = self._filesystem.get_file_info(fs.FileSelector(self._root, recursive=True))
        for one in found:
            if one.type == fs.FileType.File and one.path not in kept:
                self._filesystem.delete_file(one.path)
        folders = {one.path for one in found if one.type == fs.FileType.Directory}
        for path in sorted(folders - parents, reverse=True):  # what is in a folder goes before it
            self._filesystem.delete_dir(path)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A temporary folder of this machine, on the disk of the folder where that is local."""
        if self.local is not None:
            self.local.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".scratch-", dir=self.local) as folder:
            yield Path(folder)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _copy(self, made: Path, partial: str) -> None:
        """Bytes to the temporary name; on a local disk the file itself is moved there once it is synced."""
        if self.local is not None:
            with made.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(made, partial)
            return
        with made.open("rb") as source, self._filesystem.open_output_stream(partial) as target:
            shutil.copyfileobj(source, target, COPIED_AT_A_TIME)


@contextmanager
def only_one(lock: Path) -> Iterator[None]:
    """One process at a time, the others wait; a lock ends with its process."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _resolve(url: str) -> tuple[fs.FileSystem, str]:
    try:
        filesystem, path = fs.FileSystem.from_uri(url)
    except pa.ArrowInvalid:
        try:
            inner, path = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError) as error:
            raise ValueError(f"{url} cannot be opened: {error}; give a folder, or a URL of a known protocol") from error
        filesystem = fs.PyFileSystem(fs.FSSpecHandler(inner))
    return filesystem, path.rstrip("/")
