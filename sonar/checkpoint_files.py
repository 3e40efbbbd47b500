"""Files that are whole or absent, and loads that never run code: the ground under the checkpoints."""

import glob
import hashlib
import os
import pickle
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import torch
from torch import Tensor, nn

SUMS_NAME = "SHA256SUMS"
PLAIN_TYPES = (str, int, float, bool, type(None))

ModuleT = TypeVar("ModuleT", bound=nn.Module)


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message names the file, what is wrong and what to do."""


def load_tensors(path: Path) -> Any:
    """Read what `torch.save` wrote, if it is tensors and plain values only; nothing in it is executed.

    Raises:
        FileNotFoundError: with the path.
        CheckpointError: for anything else in the file, or a damaged file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint file at {path}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: refused, it is damaged or no file of tensors and plain values ({_first_line(error)})"
        ) from error
    except (RuntimeError, EOFError, KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise CheckpointError(f"{path}: cannot be read as a torch file ({_first_line(error)}); copy it anew") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].strip()[:200]


def sha256_of(path: Path) -> str:
    """Hex digest of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def write_sums(folder: Path) -> None:
    """Write SHA256SUMS over all files of the folder, as `sha256sum -c` reads it."""
    names = sorted(path.name for path in folder.iterdir())
    lines = [f"{sha256_of(folder / name)}  {name}\n" for name in names]
    (folder / SUMS_NAME).write_text("".join(lines), encoding="utf-8")


def verify_sums(folder: Path) -> set[str]:
    """Check every file that SHA256SUMS lists and return their names.

    Raises:
        CheckpointError: naming the file that is missing, changed or not a plain name in this folder.
    """
    sums = folder / SUMS_NAME
    if not sums.is_file():
        raise CheckpointError(f"{folder}: has no {SUMS_NAME}; it is no finished checkpoint folder")
    names = set()
    for line in sums.read_text(encoding="utf-8", errors="replace").splitlines():
        digest, _, name = line.partition("  ")
        if name != Path(name).name or name in ("", ".", ".."):
            raise CheckpointError(f"{sums}: the line {line!r} does not name a file in its folder")
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder / name}: listed in {SUMS_NAME} but missing; copy the folder anew")
        if sha256_of(folder / name) != digest:
            raise CheckpointError(f"{folder / name}: does not match {SUMS_NAME}, it is damaged; copy it anew")
        names.add(name)
    return names


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
        for path in partial.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        _sync_folder(partial)
        partial.chmod(0o755)  # mkdtemp makes it 0700
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    _sync_folder(folder.parent)


def write_whole_file(path: Path, write: Callable[[BinaryIO], None]) -> None:
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
    _sync_folder(path.parent)


def _remains_of(path: Path) -> Iterator[Path]:
    """What killed writers of this very path left; `tempfile` adds 8 characters, so no other path fits."""
    return path.parent.glob(f".{glob.escape(path.name)}.????????.partial")


def _sync_folder(folder: Path) -> None:
    """Make a rename in the folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def filled(make: Callable[[], ModuleT], state: dict[str, Tensor], path: Path) -> ModuleT:
    """A module made without memory and given exactly these tensors, in eval mode.

    Args:
        make: makes the module; runs on the meta device.
        state: its state dict; tensors are taken over as float32.
        path: where they are from, for messages.

    Raises:
        CheckpointError: naming keys that are missing, unknown or of another shape, or not finite.
    """
    for key, value in state.items():
        if not (value.is_floating_point() and bool(value.isfinite().all())):
            raise CheckpointError(f"{path}: {key} holds values that are not finite numbers; take another checkpoint")
    with torch.device("meta"):
        module = make()
    try:
        module.load_state_dict({key: value.float() for key, value in state.items()}, strict=True, assign=True)
    except RuntimeError as error:
        raise CheckpointError(
            f"{path}: the weights do not fit the config: {' '.join(str(error).split())[:600]}"
        ) from error
    return module.eval()


def save_state(state: Any, path: str | Path) -> None:
    """Write training state; `path` is the old file or the whole new one, whatever happens.

    Args:
        state: tensors, str, int, float, bool and None, in dicts, lists and tuples.
        path: the file.

    Raises:
        TypeError: naming the entry that is something else.
    """
    _check_plain(state, "state")
    write_whole_file(Path(path), lambda file: torch.save(state, file))


def load_state(path: str | Path) -> Any:
    """What `save_state` wrote, on the CPU; errors as `load_tensors`."""
    return load_tensors(Path(path))


def _check_plain(value: Any, where: str) -> None:
    """Raise TypeError for what a load of tensors and plain values would refuse."""
    if isinstance(value, dict):
        for key, entry in value.items():
            _check_plain(key, f"a key of {where}")
            _check_plain(entry, f"{where}[{key!r}]")
    elif isinstance(value, list | tuple):
        for index, entry in enumerate(value):
            _check_plain(entry, f"{where}[{index}]")
    elif type(value) not in PLAIN_TYPES and not isinstance(value, Tensor):
        raise TypeError(f"{where} is a {type(value).__name__}: only tensors and plain values can be saved")
