"""Sums over a folder, and loads that never run code: the ground under the checkpoints."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from sonar.files import sha256_of, write_whole_file

SUMS_NAME = "SHA256SUMS"
PLAIN_TYPES = (str, int, float, bool, type(None))
TORCH_ADVICE = ("Weights only load failed", "Please file an issue", "Check the documentation")  # starts of its lines

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
            f"{path}: refused, it is damaged or no file of tensors and plain values ({_refusal(error)})"
        ) from error
    except (RuntimeError, EOFError, KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise CheckpointError(f"{path}: cannot be read as a torch file ({_first_line(error)}); copy it anew") from error


def _refusal(error: pickle.UnpicklingError) -> str:
    """What torch would not load, without its advice to load the file all the same."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line and not line.startswith(TORCH_ADVICE)), type(error).__name__)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].strip()[:200]


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
