"""Shards of a remote filesystem, copied once to each machine that reads them."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from sonar.data.shard_folder import COPIED_AT_A_TIME, ShardFolder, only_one
from sonar.data.shard_summary import SUMMARY_FILE, ShardFile, ShardSummary, read_summary
from sonar.data.storage import PathError, contained
from sonar.files import whole_folder

CACHE_VARIABLE = "SONAR_CACHE"  # environment: folder for copies; ~/.cache/sonar without it


def local_shards(place: str | Path, cache: Path | None = None) -> Path:
    """The folder of shards on this machine's disks.

    Args:
        place: folder, or URL of any filesystem (see `ShardFolder`).
        cache: folder for copies; None: `SONAR_CACHE`, or `~/.cache/sonar`. Of the processes of one machine the first
            copies, and the others wait for it.

    Returns:
        The folder itself where it is local; else a copy, whole and verified.

    Raises:
        FileNotFoundError: there are no finished shards.
        ValueError: the copy does not fit on the disk, or a file is not what was written.
    """
    folder = ShardFolder(place)
    if folder.local is not None:
        return folder.local
    cache = cache or Path(os.environ.get(CACHE_VARIABLE, "~/.cache/sonar")).expanduser()
    summary = read_summary(folder)
    copy = cache / f"shards-{summary.manifest}-{folder.sha256(SUMMARY_FILE)[:12]}"
    with only_one(cache / f".{copy.name}.lock"):
        if not copy.exists():
            _check_space(folder, summary, cache)
            _copy_all(folder, summary, copy)
    return copy


def _check_space(folder: ShardFolder, summary: ShardSummary, cache: Path) -> None:
    needed, free = sum(file.num_bytes for file in summary.files.values()), shutil.disk_usage(cache).free
    if needed > free:
        raise ValueError(
            f"the shards of {folder} take {needed / 1e9:.2f} GB, and {cache} has {free / 1e9:.2f} GB free; "
            f"name another folder in {CACHE_VARIABLE}"
        )


def _copy_all(folder: ShardFolder, summary: ShardSummary, copy: Path) -> None:
    with whole_folder(copy) as partial:
        for name, file in summary.files.items():
            _copy(folder, name, file, partial)
        (partial / SUMMARY_FILE).write_bytes(folder.read(SUMMARY_FILE))


def _copy(folder: ShardFolder, name: str, expected: ShardFile, target: Path) -> None:
    try:
        path = Path(contained(name, target))
    except PathError as error:
        raise ValueError(
            f"{folder} names a file outside itself, {name}; shards that are copied hold all their files"
        ) from error
    digest = hashlib.sha256()
    path.parent.mkdir(parents=True, exist_ok=True)
    with folder.open(name) as source, path.open("wb") as file:
        while chunk := source.read(COPIED_AT_A_TIME):
            digest.update(chunk)
            file.write(chunk)
    if digest.hexdigest() != expected.sha256:
        raise ValueError(f"{folder}/{name} is damaged: its sha256 is not the one that was written; prepare it again")
