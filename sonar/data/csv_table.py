"""Tables of text with a header, as they are given: manifests, metadata.csv, those of published corpora."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from sonar.data.storage import read_bytes


class ManifestError(ValueError):
    """A manifest or table that cannot be used; names the file, row and column."""


class CsvTable(NamedTuple):
    """Columns of the header, and rows by column; a row's surplus values stand under None, missing ones are None."""

    columns: tuple[str, ...]
    rows: list[dict[Any, Any]]


def read_csv(path: str, *, delimiter: str = ",") -> CsvTable:
    """Read a table in UTF-8; a path or URL.

    Raises:
        ManifestError: it is no table of text.
    """
    with table_of_text(path):
        text = io.StringIO(read_bytes(path).decode("utf-8-sig"), newline="")
        reader = csv.DictReader(text, delimiter=delimiter)
        return CsvTable(tuple(reader.fieldnames or ()), list(reader))


@contextmanager
def table_of_text(path: str) -> Iterator[None]:
    """Raise ManifestError, which names the file, where what is read inside turns out to be no table of text."""
    try:
        yield
    except (csv.Error, UnicodeDecodeError) as error:
        raise ManifestError(f"{path} is no table of text: {error}") from error
