"""Where audio and manifests lie: a local folder, or any URL that fsspec reads (s3://, gs://, http://, zip://x::...).

A *root* is a folder or a URL; a *file* is its path below the root, with forward slashes. Credentials come from the
environment or fsspec's configuration: a URL that carries a password is refused, since paths end up in manifests.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

from sonar.files import write_whole_file

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

MAX_REMOTE_BYTES = 2**30  # of a file that has to be held in memory
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_PASSWORD = re.compile(r"(?<=://)[^/@]*:[^/@]*@")
_CHANGE_MARKS = (  # of the file systems that fsspec knows; what none of them has cannot be told from what it was
    "ETag", "etag", "LastModified", "Last-Modified", "last_modified", "mtime", "updated", "created", "CRC",
    "date_time", "generation", "md5Hash",
)  # fmt: skip


class PathError(ValueError):
    """A path that is not read: it leaves its root, or it carries a password."""


class StorageError(OSError, ValueError):
    """A storage that cannot be reached or read, whatever its file system raises for it."""


class Stat(NamedTuple):
    """What tells a changed file: its size in bytes, and a mark of its version; empty when the storage gives none."""

    size: int
    stamp: str


def is_url(path: str | Path) -> bool:
    """Whether `path` is for fsspec."""
    return isinstance(path, str) and _URL.match(path) is not None


def as_root(path: str | Path) -> str:
    """A folder's real path, or a URL as it was given.

    Raises:
        PathError: the URL carries a password, or a query or fragment that nothing can be appended to.
    """
    path = str(path)
    if path.startswith("file://"):
        path = path.removeprefix("file://")
    if not is_url(path):
        return os.path.realpath(path)
    if _PASSWORD.search(path):
        raise PathError(
            f"{_PASSWORD.sub('***@', path)} carries a password; give it by the environment or fsspec's configuration"
        )
    if path.startswith("http") and re.search("[?#]", path.partition("::")[0]):
        raise PathError(f"{path.partition('?')[0]} has a query or a fragment; give the address of a folder")
    return path


def join(root: str, file: str) -> str:
    """Where a file below a root lies; of a chained URL, the first part grows."""
    if not is_url(root):
        return os.path.join(root, file)
    head, chained, rest = root.partition("::")
    return f"{head}{'' if head.endswith('/') else '/'}{file}{chained}{rest}"


def parent_of(path: str) -> str:
    """The folder of a file."""
    if not is_url(path):
        return os.path.dirname(os.path.realpath(path))
    head, chained, rest = path.partition("::")
    folder = head.rpartition("/")[0]
    return f"{folder + '/' if folder.endswith('/') else folder}{chained}{rest}"


def name_of(root: str) -> str:
    """What a root is called: the last part of its path, of an archive's inner path or of the archive's own."""
    for part in root.split("::"):
        if name := PurePosixPath(part.partition("://")[2] if is_url(part) else part).name:
            return name
    return "corpus"


def contained(file: str | Path, root: str | Path) -> str:
    """Where a file below a root really lies, symbolic links followed.

    Raises:
        PathError: it is absolute, another URL, no text, or it leaves the root by `..` or by a link.
    """
    file = str(file)
    if "\0" in file or file.encode(errors="replace").decode() != file:  # Linux allows any bytes
        raise PathError(f"path {file!a} is no text that a manifest can hold; rename the file")
    if os.path.isabs(file) or is_url(file):
        raise PathError(f"path {file} is absolute; give it relative to {root}")
    if is_url(str(root)):
        plain = unquote(unquote(file))  # servers may decode once more than they should
        if "::" in plain or "\\" in plain or ".." in PurePosixPath(plain).parts:
            raise PathError(f"path {file} leads out of {root}; audio must lie below it")
        return join(str(root), file)
    real_root = os.path.realpath(root)
    if not _is_linked(real_root, file):
        return os.path.join(real_root, file)
    real = os.path.realpath(os.path.join(real_root, file))
    if not Path(real).is_relative_to(real_root):
        raise PathError(f"path {file} leads out of {root}; audio must lie below it, and not through a link out")
    return real


def _is_linked(root: str, file: str) -> bool:
    """Whether a link or a `..` stands between a root and its file: else there is no need to resolve all of its path."""
    path = root
    for part in file.split("/"):
        path = f"{path}/{part}"
        if part in ("", ".", "..") or os.path.islink(path):
            return True
    return False


def relative(path: str, root: str) -> str:
    """The inverse of `contained`.

    Raises:
        PathError: the path does not lie below the root.
    """
    if is_url(root):
        before, _, after = join(root, "\0").partition("\0")
        if path.startswith(before) and path.endswith(after):
            return path[len(before) : len(path) - len(after)]
    elif not is_url(path) and (real := Path(os.path.realpath(path))).is_relative_to(root):
        return real.relative_to(root).as_posix()
    raise PathError(f"{path} lies outside {root}")


def exists(path: str | Path) -> bool:
    """Whether there is a file or folder; a StorageError where that cannot be told."""
    if not is_url(path):
        return Path(path).exists()
    system, inner = _system(str(path))
    with _plain_errors(str(path)):
        return bool(system.exists(inner))


def list_files(root: str) -> list[str]:
    """Every file below a root, in order; links to folders are not followed."""
    if not is_url(root):
        folders = ((os.path.relpath(folder, root), names) for folder, _, names in os.walk(root))
        return sorted(name if folder == "." else f"{folder}/{name}" for folder, names in folders for name in names)
    system, inner = _system(root)
    with _plain_errors(root):
        system.invalidate_cache()
        prefix = inner.rstrip("/") + "/" if inner else ""
        return sorted(name.removeprefix(prefix) for name in system.find(inner) if name.startswith(prefix))


def stat(path: str) -> Stat:
    """Size and version of a file.

    Raises:
        FileNotFoundError: it is not there.
        StorageError: it cannot be reached.
    """
    if not is_url(path):
        status = os.stat(path)
        return Stat(status.st_size, str(status.st_mtime_ns))
    system, inner = _system(path)
    with _plain_errors(path):
        return _stat_of(system.info(inner))


def read_bytes(path: str | Path, max_bytes: int = MAX_REMOTE_BYTES) -> bytes:
    """All of a file.

    Raises:
        FileNotFoundError: it is not there.
        StorageError: it cannot be reached, or holds more than `max_bytes`.
    """
    if not is_url(path):
        return Path(path).read_bytes()
    system, inner = _system(str(path))
    with _plain_errors(str(path)):
        size = system.info(inner).get("size")
        if size is None:
            with system.open(inner, "rb", block_size=0) as stream:
                content: bytes = stream.read(max_bytes + 1)
        else:
            content = system.cat_file(inner) if size <= max_bytes else b""
    if (size or len(content)) > max_bytes:
        raise StorageError(f"{path} holds more than {max_bytes / 2**20:.0f} MB: too much to hold in memory")
    return content


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a file; a local one whole or not at all."""
    if not is_url(path):
        write_whole_file(Path(path), lambda file: file.write(content))
        return
    system, inner = _system(str(path))
    with _plain_errors(str(path)):
        system.pipe_file(inner, content)


@contextmanager
def _plain_errors(url: str) -> Iterator[None]:
    """What the many file systems raise, as one; FileNotFoundError stays what it is."""
    kinds: list[type[Exception]] = [OSError, ValueError, ImportError, EOFError, NotImplementedError, zlib.error]
    kinds += [zipfile.BadZipFile]
    if http := sys.modules.get("aiohttp"):
        kinds.append(http.ClientError)
    try:
        yield
    except FileNotFoundError as error:
        if isinstance(error.__cause__, OSError) and not isinstance(error.__cause__, FileNotFoundError):
            raise StorageError(f"{url}: {error.__cause__}") from error  # fsspec: a host that does not answer
        raise
    except tuple(kinds) as error:
        raise StorageError(f"{url}: {error or type(error).__name__}") from error


def _system(url: str) -> tuple[AbstractFileSystem, str]:
    from fsspec.core import url_to_fs

    root = as_root(url)
    with _plain_errors(root):
        system, inner = url_to_fs(root)
    return system, inner


def _stat_of(info: dict[str, Any]) -> Stat:
    marks = {name: str(info[name]) for name in _CHANGE_MARKS if info.get(name)}
    stamp = hashlib.sha256(repr(marks).encode()).hexdigest()[:16] if marks else ""
    return Stat(info.get("size") or 0, stamp)
