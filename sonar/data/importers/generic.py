"""Corpora of one's own: a folder, and any table of files."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from sonar.data.importers.importer import Importer, ImportOptions, Listing, MissingPart
from sonar.data.importers.tables import read_rows, split_value
from sonar.data.listing import Listed, list_folder
from sonar.data.manifest import LABEL_SEPARATOR, ManifestError

_CSV_FIELDS = ("file", "label", "labels", "group", "split", "start_s", "duration_s")


def choose_columns(chosen: Mapping[str, str], fields: tuple[str, ...], present: tuple[str, ...]) -> dict[str, str]:
    """Column of every field: the one chosen, or the one of the field's own name where there is one.

    Raises:
        ValueError: a field that is none, or a chosen column that is not there.
    """
    for name, column in chosen.items():
        if name not in fields:
            raise ValueError(f"column {name}={column}: there is no field {name!r}; there are {', '.join(fields)}")
        if column not in present:
            raise ValueError(f"column {name}={column}: there is no {column!r}; there are {', '.join(present)}")
    return {name: name for name in fields if name in present} | dict(chosen)


def _folder(root: Path, options: ImportOptions) -> Listing:
    if not root.is_dir():
        raise MissingPart(f"folder {root}")
    return Listing(root, list_folder(root))


def _csv(path: Path, options: ImportOptions) -> Listing:
    delimiter = "\t" if path.suffix == ".tsv" else ","
    rows = read_rows(path, (), delimiter=delimiter)
    present = tuple(rows[0]) if rows else ()
    columns = choose_columns(options.columns, _CSV_FIELDS, present)
    if rows and "file" not in columns:
        raise ManifestError(f"{path} lacks the column 'file'; say which it is: --column file=, of {', '.join(present)}")
    note = "" if {"label", "labels"} & columns.keys() else "no column label or labels: the clips are unlabelled"
    return Listing(path.parent, list(_csv_rows(path, rows, columns)), notes=(note,) if note else ())


def _csv_rows(path: Path, rows: list[dict[str, str]], columns: Mapping[str, str]) -> Iterator[Listed]:
    for number, row in enumerate(rows, start=1):
        place = f"{path}, row {number}"
        values = {name: (row[column] or "").strip() for name, column in columns.items()}
        if not values["file"]:
            raise ManifestError(f"{place}: file is empty")
        several = values.get("labels", "").split(LABEL_SEPARATOR)
        duration = values.get("duration_s")
        yield Listed(
            file=values["file"],
            labels=tuple(label for label in (values.get("label", ""), *several) if label),
            group=values.get("group") or values["file"],
            split=split_value(values.get("split", ""), place),
            start_s=_seconds(values.get("start_s") or "0", place),
            duration_s=_seconds(duration, place) if duration else None,
        )


def _seconds(value: str, place: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < math.inf:
        raise ManifestError(f"{place}: {value!r} is not a number of seconds >= 0")
    return seconds


FOLDER = Importer(
    name="folder",
    title="a folder of one's own",
    expects="CLASS/FILE.wav ..., or metadata.csv with file, label and optionally split and source_id",
    source="your own recordings",
    license="yours",
    task="multi-class",
    group="source_id; the file where there is none",
    split_note="the column split where given; otherwise dealt by group",
    layout=_folder,
    published=False,
)
CSV = Importer(
    name="csv",
    title="any table of files",
    expects=(
        "PATH is the table (.csv, or .tsv with tabs), with file and any of label, labels (separated by ;), group, "
        "split, start_s, duration_s;\nother names by --column label=species; files lie relative to the table"
    ),
    source="your own recordings",
    license="yours",
    task="multi-label",
    group="column group; the file where there is none",
    split_note="the column split where given; rows without one are dealt by group",
    layout=_csv,
    published=False,
    takes=frozenset({"columns"}),
)
