"""Tables and names of published corpora, read strictly: what does not fit is named with its place."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sonar.data.audio_errors import Quarantined
from sonar.data.csv_table import ManifestError, read_csv
from sonar.data.importers.importer import MissingPart
from sonar.data.listing import SPLIT_NAMES, Listed

_SPLIT_WORDS = SPLIT_NAMES | {"training": "train", "testing": "test", "eval": "test", "evaluation": "test"}
_SPLIT_WORD = re.compile(rf"(?<![a-z])({'|'.join(_SPLIT_WORDS)})(?![a-z])")
UNLABELLED = "{count} clips have no label, as {examples}"


class Parsed(NamedTuple):
    """Files whose names tell what they are, and those whose names do not."""

    files: list[Listed]
    refused: tuple[Quarantined, ...]


def read_rows(path: Path, columns: Sequence[str], *, delimiter: str = ",") -> list[dict[str, str]]:
    """Rows of a table with a header.

    Raises:
        MissingPart: no such file.
        ManifestError: a column is missing, or it is no such table.
    """
    if not path.is_file():
        raise MissingPart(str(path))
    header, rows = read_csv(str(path), delimiter=delimiter)
    if missing := [column for column in columns if column not in header]:
        raise ManifestError(f"{path} lacks the column {missing[0]!r}; it has {', '.join(header)}")
    for number, row in enumerate(rows, start=1):
        if any(row[column] is None for column in columns):
            raise ManifestError(f"{path}, row {number} ends before {columns[-1]!r}")
    return rows


def read_json(path: Path) -> Any:
    """The value of a JSON file.

    Raises:
        MissingPart: no such file.
        ManifestError: it is no JSON.
    """
    if not path.is_file():
        raise MissingPart(str(path))
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{path} is no JSON: {error}") from error


def parse_names(root: Path, paths: Iterable[Path], pattern: str, classes: Mapping[str, str], group: str) -> Parsed:
    """Files of a corpus whose names hold class and group.

    Args:
        root: of the corpus.
        paths: audio files below it.
        pattern: of a name without its suffix; it has the fields `label` and `group`.
        classes: label in a name -> class.
        group: pattern of the group's name, as in `actor {group}`.
    """
    files, refused = [], []
    for path in visible(paths):
        file = path.relative_to(root).as_posix()
        match = re.fullmatch(pattern, path.stem)
        if match is None or match["label"] not in classes:
            refused.append(Quarantined(str(path), "the file's name does not follow the scheme of the corpus", ""))
        else:
            files.append(Listed(file, (classes[match["label"]],), group.format(group=match["group"])))
    return Parsed(files, tuple(refused))


def visible(paths: Iterable[Path]) -> list[Path]:
    """The paths in order, without those whose name begins with a dot: what a Mac or a downloader leaves."""
    return sorted(path for path in paths if not path.name.startswith("."))


def split_named_in(path: str) -> str:
    """Split that a word of a path tells, the file's name before its folders; empty where none does."""
    for part in reversed(path.lower().split("/")):
        if match := _SPLIT_WORD.search(part):
            return _SPLIT_WORDS[match[1]]
    return ""


def split_value(value: str, place: str) -> str:
    """Split of a table's value; empty stays empty.

    Raises:
        ManifestError: no such split.
    """
    if value and value.lower() not in _SPLIT_WORDS:
        raise ManifestError(f"{place}: split is {value!r}; allowed: {', '.join(_SPLIT_WORDS)}")
    return _SPLIT_WORDS.get(value.lower(), "")


def counted(items: Iterable[str], note: str) -> str:
    """`note` with {count} and the most frequent {examples}; empty where there is nothing to count."""
    counts = Counter(iter(items))
    examples = ", ".join(item for item, _ in counts.most_common(3))
    return note.format(count=counts.total(), examples=examples) if counts else ""


def lines(path: Path) -> Iterator[str]:
    """Lines of a text file that are not empty."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        yield from filter(None, map(str.strip, file))
