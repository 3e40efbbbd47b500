"""The audiofolder layout of Hugging Face: files with a metadata table beside them, or in folders of classes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sonar.data.importers.generic import choose_columns
from sonar.data.importers.importer import ImportOptions, Listing, MissingPart, published
from sonar.data.importers.tables import UNLABELLED, counted, read_rows, split_named_in, visible
from sonar.data.importers.unpack import RefusedEntry, as_labels
from sonar.data.listing import AUDIO_SUFFIXES, Listed
from sonar.data.manifest import ManifestError

_TABLES = ("metadata.csv", "metadata.jsonl")
_FIELDS = ("file_name", "label", "group")


def list_audiofolder(root: Path, options: ImportOptions) -> Listing:
    """Files of an audiofolder.

    Raises:
        MissingPart: no table and no audio.
        ManifestError: a table that does not fit.
    """
    tables = sorted(table for name in _TABLES for table in root.rglob(name))
    if tables:
        files = [item for table in tables for item in _from_table(root, table, options)]
    else:
        files = _from_folders(root)
    if not files:
        raise MissingPart(f".parquet, state.json, metadata.csv, metadata.jsonl or audio in {root}")
    unlabelled = counted((item.file for item in files if not item.labels), UNLABELLED)
    return published(root, files, [unlabelled])


def _from_table(root: Path, table: Path, options: ImportOptions) -> Iterator[Listed]:
    rows: Sequence[dict[str, Any]] = list(_json_rows(table)) if table.suffix == ".jsonl" else read_rows(table, ())
    columns = choose_columns(options.columns, _FIELDS, tuple(rows[0]) if rows else ())
    inside = table.parent.relative_to(root)
    for number, row in enumerate(rows, start=1):
        values = {name: row.get(column) for name, column in columns.items()}
        if not isinstance(values.get("file_name"), str) or not values["file_name"]:
            raise ManifestError(
                f"{table}, row {number}: file_name is {values.get('file_name')!r}; every row names a file"
            )
        file = (inside / values["file_name"]).as_posix()
        try:
            labels, group = as_labels(values.get("label")), "/".join(as_labels(values.get("group")))
        except RefusedEntry as error:
            raise ManifestError(f"{table}, row {number}: {error}") from error
        yield Listed(file, labels, group or file, split_named_in(file))


def _json_rows(table: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(filter(None, table.read_bytes().splitlines()), start=1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ManifestError(f"{table}, line {number} is no JSON: {error}") from error
        if not isinstance(row, dict):
            raise ManifestError(f"{table}, line {number} holds no object")
        yield row


def _from_folders(root: Path) -> list[Listed]:
    """Audio below folders of classes, which lie below folders of splits where all of the uppermost name one."""
    paths = [path.relative_to(root) for path in visible(root.rglob("*")) if path.suffix.lower() in AUDIO_SUFFIXES]
    with_splits = all(len(path.parts) > 1 and split_named_in(path.parts[0]) for path in paths)
    files = []
    for path in paths:
        file, folders = path.as_posix(), path.parts[with_splits:-1]
        files.append(Listed(file, folders[:1], file, split_named_in(path.parts[0]) if with_splits else ""))
    return files
