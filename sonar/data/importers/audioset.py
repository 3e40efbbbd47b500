"""AudioSet: the segment tables, and what of their audio lies on this disk."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from sonar.data.csv_table import ManifestError, table_of_text
from sonar.data.importers.importer import Importer, ImportOptions, Listing, existing, published
from sonar.data.importers.tables import read_rows, visible
from sonar.data.listing import AUDIO_SUFFIXES, Listed

_TABLES = {
    "balanced_train_segments.csv": "train",
    "unbalanced_train_segments.csv": "train",
    "eval_segments.csv": "test",
}
# The identifier of a video has 11 characters, - and _ among them; downloaders put Y before it, and start and end after.
_STEM = re.compile(r"Y?(?P<video>[\w-]{11})(_\d+(\.\d+)?){0,2}")


class _Segment(NamedTuple):
    video: str
    labels: tuple[str, ...]


def _audioset(root: Path, options: ImportOptions) -> Listing:
    existing(root, *_TABLES)
    classes = {
        row["mid"]: row["display_name"]
        for row in read_rows(root / "class_labels_indices.csv", ("index", "mid", "display_name"))
    }
    local = _local_audio(root)
    files: list[Listed] = []
    notes = []
    for name, split in _TABLES.items():
        if not (root / name).exists():
            continue
        total, before = 0, len(files)
        for segment in _segments(root / name, classes):
            total += 1
            if segment.video in local:
                files.append(Listed(local[segment.video], segment.labels, segment.video, split))
        if missing := total - (len(files) - before):
            notes.append(f"{missing} of {total} segments of {name} have no audio here and are left out")
    return published(root, files, notes)


def _segments(table: Path, classes: dict[str, str]) -> Iterator[_Segment]:
    """Rows of a segment table: video, start, end, and a quoted list of class ids, after lines of comment."""
    with table_of_text(str(table)), table.open(newline="", encoding="utf-8") as file:
        rows = csv.reader((line for line in file if not line.startswith("#")), skipinitialspace=True)
        for row in rows:
            if len(row) != 4:
                raise ManifestError(f"{table}: {row} is not video, start, end and a quoted list of class ids")
            ids = row[3].split(",")
            if unknown := [mid for mid in ids if mid not in classes]:
                raise ManifestError(f"{table}: class {unknown[0]!r} is not in class_labels_indices.csv")
            yield _Segment(row[0], tuple(classes[mid] for mid in ids))


def _local_audio(root: Path) -> dict[str, str]:
    """Video -> its audio file below `root`."""
    found = {}
    for path in visible(root.rglob("*")):
        if path.suffix.lower() in AUDIO_SUFFIXES and (match := _STEM.fullmatch(path.stem)):
            found[match["video"]] = path.relative_to(root).as_posix()
    return found


AUDIOSET = Importer(
    name="audioset",
    title="AudioSet",
    expects=(
        "balanced_train_segments.csv, unbalanced_train_segments.csv, eval_segments.csv (one at least)\n"
        "class_labels_indices.csv\n"
        "the audio of the segments, cut out, in any folder: --4gqARaEJE.wav, Y--4gqARaEJE.wav, "
        "--4gqARaEJE_0.000.flac ..."
    ),
    source="https://research.google.com/audioset/download.html (the tables; audio is not distributed)",
    license="tables CC BY 4.0; the audio belongs to those who uploaded it",
    task="multi-label",
    group="video",
    split_note="official: eval is test; dev is dealt from the training segments that are here, by video",
    layout=_audioset,
)
