"""Hugging Face audio datasets on disk: Parquet shards, `save_to_disk` folders, and the audiofolder layout."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from sonar.data.audio_errors import Quarantined
from sonar.data.importers.audiofolder import list_audiofolder
from sonar.data.importers.importer import Importer, ImportOptions, Listing, published, with_notes
from sonar.data.importers.tables import UNLABELLED, counted, read_json, split_named_in, visible
from sonar.data.importers.unpack import RefusedEntry, Unpacker, as_labels, destination, place
from sonar.data.listing import Listed
from sonar.data.manifest import ManifestError
from sonar.data.storage import contained

_ROWS_AT_A_TIME = 8  # audio of so many rows is in memory
_FIELDS = ("audio", "label", "group")
_LABEL_COLUMNS, _GROUP_COLUMNS = ("label", "labels"), ("group", "source_id")


class _Columns(NamedTuple):
    """Columns of a table: of the audio, the label and the group (empty where there is none), and the label's names."""

    audio: str
    label: str
    group: str
    names: tuple[str, ...]


class _BrokenTable(ValueError):
    """A table that cannot be read on, by fault of its content."""


class _NoAudio(ManifestError):
    """A table without an audio column, as a manifest is."""


class _Found(NamedTuple):
    """What the tables gave, and where their audio goes."""

    unpacker: Unpacker
    files: list[Listed]
    refused: list[Quarantined]
    skipped: list[str]


def _huggingface(root: Path, options: ImportOptions) -> Listing:
    tables = [*(path for path in visible(root.rglob("*.parquet")) if path.is_file()), *_arrow_files(root)]
    if not tables:
        return list_audiofolder(root, options)
    with Unpacker(destination(options, tables[0])) as unpacker:
        found = _Found(unpacker, [], [], [])
        for table in tables:
            _read_table(table, table.relative_to(root).as_posix(), options, found)
    if not found.files and not found.refused:
        names = ", ".join(found.skipped)
        raise ManifestError(f"no table below {root} has the audio column, of bytes and path: {names}")
    skipped = counted(found.skipped, "{count} tables have no audio column and are left out, as {examples}")
    unlabelled = counted((item.file for item in found.files if not item.labels), UNLABELLED)
    return with_notes(published(unpacker.folder, found.files), skipped, unlabelled, refused=found.refused)


def _arrow_files(root: Path) -> list[Path]:
    """Those that state.json of a saved dataset names; what `map` left beside them is not the data."""
    return [state.parent / name for state in sorted(root.rglob("state.json")) for name in _saved_names(state)]


def _saved_names(state: Path) -> list[str]:
    try:
        names = [str(item["filename"]) for item in read_json(state)["_data_files"]]
    except (KeyError, TypeError) as error:
        raise ManifestError(f"{state} lacks _data_files with a filename each; save_to_disk writes them") from error
    for name in names:
        contained(name, state.parent)
    return names


def _read_table(table: Path, shown: str, options: ImportOptions, found: _Found) -> None:
    """Unpack the rows of a table; a broken table ends where it breaks, and the rows before it stay."""
    split, number = split_named_in(shown), 0
    try:
        for columns, row in _whole_rows(table, options):
            try:
                found.files.append(_unpack_row(row, columns, found.unpacker, shown, number)._replace(split=split))
            except RefusedEntry as error:
                found.refused.append(Quarantined(f"{shown}:{number}", str(error), "", error.kind))
            number += 1
    except _NoAudio:
        found.skipped.append(shown)
    except _BrokenTable as error:
        found.refused.append(Quarantined(shown, f"the table is broken at row {number}: {error}", ""))


def _unpack_row(row: dict[str, Any], columns: _Columns, unpacker: Unpacker, shown: str, number: int) -> Listed:
    audio = row[columns.audio] or {}
    if audio.get("bytes") is None:
        raise RefusedEntry(f"no bytes in the table, only the path {audio.get('path')}", "missing")
    labels = as_labels(row[columns.label], columns.names) if columns.label else ()
    group = "/".join(as_labels(row[columns.group])) if columns.group else ""
    stem = place(shown, number, Path(audio.get("path") or "").stem)
    file = unpacker.put(io.BytesIO(audio["bytes"]), stem)
    return Listed(file, labels, group or f"{shown}:{number}")


def _whole_rows(table: Path, options: ImportOptions) -> Iterator[tuple[_Columns, dict[str, Any]]]:
    """The rows, as far as the table is whole.

    Raises:
        _BrokenTable: what follows cannot be read.
        OSError: the system's, not the table's.
    """
    try:
        yield from _rows(table, options)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # Arrow says OSError of a damaged page too
            raise
        raise _BrokenTable(str(error)) from error


def _rows(table: Path, options: ImportOptions) -> Iterator[tuple[_Columns, dict[str, Any]]]:
    """Rows of a Parquet or Arrow file, a few in memory at a time."""
    if table.suffix == ".parquet":
        with pq.ParquetFile(table, buffer_size=2**20, pre_buffer=False) as file:
            columns = _columns(file.schema_arrow, table, options)
            wanted = [name for name in columns[:3] if name]
            for batch in file.iter_batches(_ROWS_AT_A_TIME, columns=wanted, use_threads=False):
                yield from ((columns, row) for row in batch.to_pylist())
        return
    with pa.memory_map(str(table)) as mapped, pa.ipc.open_stream(mapped) as stream:
        columns = _columns(stream.schema, table, options)
        wanted = [name for name in columns[:3] if name]
        for batch in stream:
            for begin in range(0, batch.num_rows, _ROWS_AT_A_TIME):
                few = batch.select(wanted).slice(begin, _ROWS_AT_A_TIME)
                yield from ((columns, row) for row in few.to_pylist())


def _columns(schema: pa.Schema, table: Path, options: ImportOptions) -> _Columns:
    """Columns by choice, by the types that `datasets` wrote into the schema, or by name."""
    features = _features(schema, table)
    audio = options.columns.get("audio") or _first(
        [name for name, feature in features.items() if _type(feature) == "Audio"],
        [field.name for field in schema if _holds_bytes(field.type)],
    )
    if audio not in schema.names or not _holds_bytes(schema.field(audio).type):
        raise _NoAudio(f"{table} has no audio column of bytes and path; it has {', '.join(schema.names)}")
    for name, column in options.columns.items():
        if name not in _FIELDS or column not in schema.names:
            raise ValueError(
                f"column {name}={column}: {table.name} has {', '.join(schema.names)}; fields are {', '.join(_FIELDS)}"
            )
    classes = [name for name, feature in features.items() if _names(feature)]
    by_name = [name for name in _LABEL_COLUMNS if name in schema.names]
    label = options.columns.get("label") or _first(by_name, classes)
    if len(classes) > 1 and not by_name and "label" not in options.columns:
        raise ValueError(f"{table.name} has the classes {', '.join(classes)}; choose: --column label={classes[0]}")
    group = options.columns.get("group") or _first([name for name in _GROUP_COLUMNS if name in schema.names])
    return _Columns(audio, label, group, _names(features.get(label)))


def _features(schema: pa.Schema, table: Path) -> dict[str, Any]:
    """What `datasets` wrote of the columns; nothing where another program wrote the table."""
    try:
        return dict(json.loads((schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {}))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ManifestError(f"{table}: what its metadata says under 'huggingface' cannot be read: {error}") from error


def _first(*choices: Iterable[str]) -> str:
    return next((name for names in choices for name in names), "")


def _holds_bytes(kind: pa.DataType) -> bool:
    kinds = {field.name: field.type for field in kind} if pa.types.is_struct(kind) else {}
    binary = kinds.get("bytes", pa.null())
    return "path" in kinds and (pa.types.is_binary(binary) or pa.types.is_large_binary(binary))


def _type(feature: Any) -> str:
    return str(feature.get("_type", "")) if isinstance(feature, dict) else ""


def _names(feature: Any) -> tuple[str, ...]:
    """Names of a class column, or of a list of classes, whatever the version of `datasets` calls it."""
    if isinstance(feature, list):
        return _names(feature[0]) if feature else ()
    if isinstance(feature, dict) and "feature" in feature:
        return _names(feature["feature"])
    return tuple(feature.get("names") or ()) if _type(feature) == "ClassLabel" else ()


HUGGINGFACE = Importer(
    name="huggingface",
    title="a Hugging Face audio dataset on disk",
    expects=(
        "train-00000-of-00004.parquet ... with a column of the type Audio,\n"
        "or what save_to_disk wrote (dataset_dict.json, train/state.json, train/*.arrow),\n"
        "or an audiofolder: metadata.csv or metadata.jsonl with file_name, or train/CLASS/FILE.wav"
    ),
    source="https://huggingface.co/datasets (`hf download NAME --repo-type dataset --local-dir PATH`)",
    license="that of the dataset's card",
    task="multi-label",
    group="column group or source_id, or --column group=speaker; the row where there is none",
    split_note="from the names of files and folders (train, validation, test, ...); otherwise dealt by group",
    layout=_huggingface,
    published=False,
    takes=frozenset({"columns", "extract_to"}),
)
