"""Corpora on disk -> clips: what a manifest or a folder lists, checked file by file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from sonar.data.audio import AudioError, Quarantined, decode_audio, decode_clip, file_sha256, probe_audio
from sonar.data.listing import Listed, list_folder
from sonar.data.manifest import Clip, ManifestError, contained, read_manifest
from sonar.data.splits import check_group_splits, complete_splits

MAX_BAD_FRACTION = 0.05
_SHOWN = 5  # bad files that an error names

_Item = TypeVar("_Item")


class ScanResult(NamedTuple):
    """What a corpus holds: its good clips, and the files that were left out with reasons."""

    clips: list[Clip]
    quarantine: tuple[Quarantined, ...]


def load_corpus(
    path: str | Path, *, domain: str, seed: int = 0, max_bad_fraction: float = MAX_BAD_FRACTION
) -> ScanResult:
    """Read a corpus and check every file of it.

    Understood are a manifest file (.csv or .parquet, see manifest.py; only headers are read, as the shards check the
    rest), a folder with `metadata.csv` (columns file, label, and optionally split and source_id), and a folder of
    class folders. Where no split is given, one is made by recording group.

    Args:
        path: manifest or folder.
        domain: written to every clip of a folder.
        seed: of the split.
        max_bad_fraction: share of unusable files above which the scan stops.

    Raises:
        FileNotFoundError: nothing at `path`.
        ValueError: no audio in it, too many unusable files, or splits that tear a recording apart.
        ManifestError: a table lacks a column, or holds a value that does not fit.
    """
    root = Path(path)
    if not root.exists():
        raise FileNotFoundError(f"no corpus at {root}; give a manifest, a folder with metadata.csv or class folders")
    if root.is_file():
        found = _check_all(read_manifest(root), _check_header)
    else:
        found = _check_all(list_folder(root), partial(_read, root, root.resolve().name, domain))
    clips, bad = _sorted_out(found)
    refuse_bad_share(bad, len(found), max_bad_fraction, str(root))
    clips = complete_splits(clips, seed=seed)
    check_group_splits(clips)
    return ScanResult(clips, bad)


def scan_listed(root: Path, listed: Iterable[Listed], *, corpus: str, domain: str) -> ScanResult:
    """Check every listed file below `root`; a clip without a split keeps an empty one."""
    return _sorted_out(_check_all(listed, partial(_read, root, corpus, domain)))


def _sorted_out(found: Iterable[Clip | Quarantined]) -> ScanResult:
    found = list(found)
    clips = [item for item in found if isinstance(item, Clip)]
    return ScanResult(clips, tuple(item for item in found if isinstance(item, Quarantined)))


def refuse_bad_share(bad: tuple[Quarantined, ...], num_files: int, max_bad_fraction: float, name: str) -> None:
    """Stop where more than `max_bad_fraction` of the `num_files` files of `name` are unusable, or all of them.

    Raises:
        ValueError: names the first of them.
    """
    if len(bad) > max_bad_fraction * num_files or len(bad) == num_files:
        shown = "; ".join(f"{item.path}: {item.reason}" for item in bad[:_SHOWN])
        raise ValueError(
            f"{len(bad)} of {num_files} files of {name} are unusable (allowed: {max_bad_fraction:.0%}): {shown}"
        )


def _check_all(items: Iterable[_Item], check: Callable[[_Item], Clip | Quarantined]) -> list[Clip | Quarantined]:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(check, items))


def _check_header(clip: Clip) -> Clip | Quarantined:
    try:
        probe_audio(clip.path)
    except AudioError as error:
        return Quarantined(clip.path, str(error), clip.sha256)
    return clip


def _read(root: Path, corpus: str, domain: str, item: Listed) -> Clip | Quarantined:
    """The clip of a file, or the reason why there is none; no file makes this raise."""
    sha256 = ""
    try:
        path = contained(item.file, root)
        sha256 = file_sha256(path)
        info = probe_audio(path)
        duration_s = info.duration_s - item.start_s if item.duration_s is None else item.duration_s
        if item.start_s or item.duration_s is not None:
            decode_clip(path, item.start_s, duration_s)
        else:
            decode_audio(path)
    except (AudioError, ManifestError) as error:
        return Quarantined(str(root / item.file), str(error), sha256)
    return Clip(
        clip_id=f"{corpus}/{item.file}" + (f"@{item.start_s:g}" if item.start_s else ""),
        path=str(path),
        start_s=item.start_s,
        duration_s=duration_s,
        sample_rate=info.sample_rate,
        channels=info.channels,
        corpus=corpus,
        domain=domain,
        labels=item.labels,
        group=f"{corpus}/{item.group}",
        split=item.split,
        sha256=sha256,
    )
