"""What a folder says of its files before any is read: a metadata.csv, or class folders."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from sonar.data.csv_table import ManifestError, read_csv
from sonar.data.manifest import SPLITS
from sonar.data.storage import as_root, exists, join, list_files

AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".mp3", ".aif", ".aiff"})
SPLIT_NAMES = {"valid": "dev", "validation": "dev", "val": "dev"} | {name: name for name in SPLITS}


class Listed(NamedTuple):
    """A file that a corpus lists.

    Attributes:
        file: path below the root of the corpus, with forward slashes.
        labels: classes; empty when unknown.
        group: what must not be split, within the corpus.
        split: train, dev or test; empty where none is given and one is to be made.
        start_s: where the clip begins in the file, seconds.
        duration_s: length of the clip, seconds; None for all that follows `start_s`.
    """

    file: str
    labels: tuple[str, ...]
    group: str
    split: str = ""
    start_s: float = 0.0
    duration_s: float | None = None


def list_folder(root: str | Path) -> list[Listed]:
    """Files of a folder, or of the URL of one: the rows of its metadata.csv, or the audio below its class folders.

    Raises:
        ManifestError: the table lacks a column, or holds a value that does not fit.
        ValueError: no audio.
    """
    root = as_root(root)
    table = join(root, "metadata.csv")
    listed = list(_from_table(table) if exists(table) else _from_class_folders(root))
    if not listed:
        known = " ".join(sorted(AUDIO_SUFFIXES))
        raise ValueError(f"no audio in {root}; give class folders with files of {known}, or a metadata.csv")
    return listed


def _from_table(table: str) -> Iterator[Listed]:
    """Rows of a metadata.csv; a split is given in all of them or in none."""
    columns, rows = read_csv(table)
    for column in ("file", "label"):
        if column not in columns:
            raise ManifestError(f"{table} lacks the column {column!r}; it has {', '.join(columns)}")
    seen: set[str] = set()
    for number, row in enumerate(rows, start=1):
        place, name, given = f"{table}, row {number}", row["file"], row.get("split") or ""
        if not name or name in seen:
            raise ManifestError(f"{place}: file is {name!r}; every row names another file")
        if given not in SPLIT_NAMES and (given or rows[0].get("split")):
            raise ManifestError(f"{place}: split is {given!r}; allowed: {', '.join(SPLIT_NAMES)}")
        if given and not rows[0].get("split"):
            raise ManifestError(f"{place}: split is {given!r}, but row 1 has none; give it in every row or in none")
        seen.add(name)
        labels = (row["label"],) if row["label"] else ()
        yield Listed(name, labels, row.get("source_id") or name, SPLIT_NAMES.get(given, ""))


def _from_class_folders(root: str) -> Iterator[Listed]:
    for file in list_files(root):
        path = PurePosixPath(file)
        if path.suffix.lower() in AUDIO_SUFFIXES and not path.name.startswith("."):
            yield Listed(file, path.parts[:1] if len(path.parts) > 1 else (), file)
