"""The manifest: one row per clip, as CSV or Parquet."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from sonar.data.csv_table import ManifestError as ManifestError
from sonar.data.csv_table import read_csv
from sonar.data.storage import PathError, as_root, contained, exists, parent_of, read_bytes, relative, write_bytes

SUFFIXES = (".csv", ".parquet")
SPLITS = ("train", "dev", "test")
LABEL_SEPARATOR = ";"


class Clip(NamedTuple):
    """One row of a manifest.

    Attributes:
        clip_id: unique in its manifest.
        path: of the audio file, absolute or a URL; in a manifest file relative to the manifest's root.
        start_s: where the clip begins in the file, seconds.
        duration_s: its length, seconds.
        sample_rate: of the file, Hz.
        channels: of the file.
        corpus: name of the corpus; a corpus with labels is one probe task.
        domain: name of the domain.
        labels: classes; empty when unknown.
        group: recording, speaker or day: what must not be split.
        split: train, dev or test; empty before one is made.
        sha256: of the file's bytes, 64 hex digits.
    """

    clip_id: str
    path: str
    start_s: float
    duration_s: float
    sample_rate: int
    channels: int
    corpus: str
    domain: str
    labels: tuple[str, ...]
    group: str
    split: str
    sha256: str


_ARROW_TYPES = {
    **dict.fromkeys(("start_s", "duration_s"), pa.float64()),
    **dict.fromkeys(("sample_rate", "channels"), pa.int64()),
    "labels": pa.list_(pa.string()),
}
SCHEMA = pa.schema([(name, _ARROW_TYPES.get(name, pa.string())) for name in Clip._fields])


def read_manifest(path: str | Path, *, root: str | Path | None = None) -> list[Clip]:
    """Read and check a manifest; audio paths come back absolute, or as URLs.

    Args:
        path: a .csv or .parquet file, or the URL of one.
        root: folder or URL that the audio paths are relative to and must stay below; the manifest's own by default.

    Raises:
        FileNotFoundError: no such file.
        ManifestError: a column is missing, a value does not fit, a clip_id stands twice, or a path leaves the root.
    """
    path = str(path)
    if not exists(path):
        raise FileNotFoundError(f"no manifest at {path}; make one with `sonar data scan FOLDER --out {path}`")
    rows = _read_rows(path)
    if not rows:
        raise ManifestError(f"{path} holds no clip")
    missing = [name for name in Clip._fields if name not in rows[0]]
    if missing:
        raise ManifestError(f"{path} lacks the columns {', '.join(missing)}; a manifest has {', '.join(Clip._fields)}")
    base = parent_of(as_root(path)) if root is None else as_root(root)
    clips = [_parse(row, base, f"{path}, row {number}") for number, row in enumerate(rows, start=1)]
    _check_unique(clips, path)
    return clips


def write_manifest(clips: Iterable[Clip], path: str | Path, *, root: str | Path | None = None) -> None:
    """Write a manifest, whole or not at all; audio paths are stored relative to `root`.

    Args:
        clips: its rows.
        path: a .csv or .parquet file, or a URL that can be written.
        root: folder or URL below which the audio lies; the manifest's own folder by default.

    Raises:
        ManifestError: audio outside the root, a label that CSV cannot hold, or another suffix.
    """
    path = str(path)
    base = parent_of(as_root(path)) if root is None else as_root(root)
    rows = [_plain(clip, base) for clip in clips]
    if _suffix(path) == ".csv":
        write_bytes(path, _to_csv(rows))
    else:
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows, SCHEMA), buffer)
        write_bytes(path, buffer.getvalue())


def manifest_hash(clips: Iterable[Clip]) -> str:
    """12 hex digits that name what the clips are, in any order and wherever they lie."""
    rows = sorted(json.dumps(clip._replace(path="")) for clip in clips)
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()[:12]


def beside_manifest(path: str | Path, ending: str) -> str:
    """The path of a manifest with another ending, for files beside it; of a chained URL, its first part gets that.

    Raises:
        ManifestError: it has another suffix than .csv or .parquet.
    """
    head, chained, rest = str(path).partition("::")
    return f"{head[: -len(_suffix(head))]}{ending}{chained}{rest}"


def _suffix(path: str) -> str:
    for suffix in SUFFIXES:
        if path.endswith(suffix):
            return suffix
    raise ManifestError(f"{path}: a manifest ends in .csv or .parquet")


def _read_rows(path: str) -> list[dict[str, Any]]:
    if _suffix(path.partition("::")[0]) == ".csv":
        return _read_csv(path)
    try:
        rows: list[dict[str, Any]] = pq.read_table(pa.BufferReader(read_bytes(path))).to_pylist()
        return rows
    except pa.ArrowInvalid as error:
        raise ManifestError(f"{path} is no Parquet file: {error}") from error


def _read_csv(path: str) -> list[dict[str, Any]]:
    rows = read_csv(path).rows
    for number, row in enumerate(rows, start=1):
        if None in row or None in row.values():
            raise ManifestError(f"{path}, row {number} does not have one value for each column")
        if "labels" in row:
            row["labels"] = [name for name in row["labels"].split(LABEL_SEPARATOR) if name]
    return rows


def _to_csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    for row in rows:
        if bad := [label for label in row["labels"] if LABEL_SEPARATOR in label]:
            raise ManifestError(f"label {bad[0]!r} holds {LABEL_SEPARATOR!r}; write the manifest as .parquet")
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, Clip._fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row, "labels": LABEL_SEPARATOR.join(row["labels"])} for row in rows)
    return text.getvalue().encode()


def _matching(pattern: str, allowed: str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise ValueError(allowed)
        return value

    return parse


_text = _matching("(?s).+", "a text that is not empty")


def _labels(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError("a list of texts")
    return tuple(map(_text, value))


def _number(kind: type[int] | type[float], allowed: str, fits: Callable[[float], bool]) -> Callable[[Any], float]:
    def parse(value: Any) -> float:
        try:
            number = kind(value)
        except (TypeError, ValueError, OverflowError):
            raise ValueError(allowed) from None
        if not fits(number):
            raise ValueError(allowed)
        return number

    return parse


_PARSERS: Mapping[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("clip_id", "path", "corpus", "domain", "group"), _text),
    "start_s": _number(float, "a number of seconds >= 0", lambda seconds: 0 <= seconds < math.inf),
    "duration_s": _number(float, "a number of seconds > 0", lambda seconds: 0 < seconds < math.inf),
    **dict.fromkeys(("sample_rate", "channels"), _number(int, "a whole number >= 1", lambda count: count >= 1)),
    "labels": _labels,
    "split": _matching("|".join(SPLITS) + "|", f"one of {', '.join(SPLITS)}, or empty to have one made"),
    "sha256": _matching("[0-9a-f]{64}", "64 lower-case hex digits"),
}


def _parse(row: Mapping[str, Any], root: str, place: str) -> Clip:
    """A checked clip; `place` names file and row in errors."""
    values = {}
    for name in Clip._fields:
        try:
            values[name] = _PARSERS[name](row[name])
        except ValueError as error:
            raise ManifestError(f"{place}: {name} is {row[name]!r}; it must be {error}") from error
    try:
        values["path"] = contained(values["path"], root)
    except PathError as error:
        raise ManifestError(f"{place}: {error}") from error
    return Clip(**values)


def _plain(clip: Clip, root: str) -> dict[str, Any]:
    try:
        file = relative(clip.path, root)
    except PathError as error:
        raise ManifestError(f"{error}; write the manifest into the folder of the corpus, or name its root") from error
    return clip._asdict() | {"path": file, "labels": list(clip.labels)}


def _check_unique(clips: Sequence[Clip], path: str) -> None:
    first: dict[str, int] = {}
    for number, clip in enumerate(clips, start=1):
        before = first.setdefault(clip.clip_id, number)
        if before != number:
            raise ManifestError(f"{path}, row {number}: clip_id {clip.clip_id!r} stands in row {before} already")
