"""The manifest: one row per clip, as CSV or Parquet."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

SPLITS = ("train", "dev", "test")
LABEL_SEPARATOR = ";"


class ManifestError(ValueError):
    """A manifest that cannot be used; names the file, row and column."""


class Clip(NamedTuple):
    """One row of a manifest.

    Attributes:
        clip_id: unique in its manifest.
        path: of the audio file, absolute; in a manifest file relative to the manifest's root.
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
    """Read and check a manifest; audio paths come back absolute.

    Args:
        path: a .csv or .parquet file.
        root: folder that the audio paths are relative to and must stay below; the manifest's own by default.

    Raises:
        FileNotFoundError: no such file.
        ManifestError: a column is missing, a value does not fit, a clip_id stands twice, or a path leaves the root.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no manifest at {path}; make one with `sonar data scan FOLDER --out {path}`")
    rows = _read_rows(path)
    if not rows:
        raise ManifestError(f"{path} holds no clip")
    missing = [name for name in Clip._fields if name not in rows[0]]
    if missing:
        raise ManifestError(f"{path} lacks the columns {', '.join(missing)}; a manifest has {', '.join(Clip._fields)}")
    base = path.parent if root is None else Path(root)
    clips = [_parse(row, base, f"{path}, row {number}") for number, row in enumerate(rows, start=1)]
    _check_unique(clips, path)
    return clips


def write_manifest(clips: Iterable[Clip], path: str | Path, *, root: str | Path | None = None) -> None:
    """Write a manifest, whole or not at all; audio paths are stored relative to `root`.

    Args:
        clips: its rows.
        path: a .csv or .parquet file.
        root: folder below which the audio lies; the manifest's own by default.

    Raises:
        ManifestError: audio outside the root, a label that CSV cannot hold, or another suffix.
    """
    path = Path(path)
    base = Path(os.path.realpath(path.parent if root is None else root))
    rows = [_plain(clip, base) for clip in clips]
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows, SCHEMA), partial)
    elif path.suffix == ".csv":
        _write_csv(rows, partial)
    else:
        raise ManifestError(f"{path}: a manifest ends in .csv or .parquet")
    partial.replace(path)


def manifest_hash(clips: Iterable[Clip]) -> str:
    """12 hex digits that name what the clips are, in any order and wherever they lie."""
    rows = sorted(json.dumps(clip._replace(path="")) for clip in clips)
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()[:12]


def contained(path: str | Path, root: str | Path) -> Path:
    """Where a relative `path` below `root` really lies, symbolic links followed.

    Raises:
        ManifestError: the path is absolute, or it leaves the root by `..` or by a link.
    """
    if Path(path).is_absolute():
        raise ManifestError(f"path {path} is absolute; give it relative to {root}")
    real_root = os.path.realpath(root)
    real = Path(os.path.realpath(os.path.join(real_root, path)))
    if not real.is_relative_to(real_root):
        raise ManifestError(f"path {path} leads out of {root}; audio must lie below it, and not through a link out")
    return real


def _read_rows(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".csv":
        return _read_csv(path)
    if path.suffix != ".parquet":
        raise ManifestError(f"{path}: a manifest ends in .csv or .parquet")
    try:
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
        return rows
    except pa.ArrowInvalid as error:
        raise ManifestError(f"{path} is no Parquet file: {error}") from error


def _read_csv(path: Path) -> list[dict[str, Any]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows: list[dict[str, Any]] = list(csv.DictReader(file))
    for number, row in enumerate(rows, start=1):
        if None in row or None in row.values():
            raise ManifestError(f"{path}, row {number} does not have one value for each column")
        if "labels" in row:
            row["labels"] = [name for name in row["labels"].split(LABEL_SEPARATOR) if name]
    return rows


def _write_csv(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    for row in rows:
        if bad := [label for label in row["labels"] if LABEL_SEPARATOR in label]:
            raise ManifestError(f"label {bad[0]!r} holds {LABEL_SEPARATOR!r}; write the manifest as .parquet")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, Clip._fields, lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, "labels": LABEL_SEPARATOR.join(row["labels"])} for row in rows)


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


def _parse(row: Mapping[str, Any], root: Path, place: str) -> Clip:
    """A checked clip; `place` names file and row in errors."""
    values = {}
    for name in Clip._fields:
        try:
            values[name] = _PARSERS[name](row[name])
        except ValueError as error:
            raise ManifestError(f"{place}: {name} is {row[name]!r}; it must be {error}") from error
    try:
        values["path"] = str(contained(values["path"], root))
    except ManifestError as error:
        raise ManifestError(f"{place}: {error}") from error
    return Clip(**values)


def _plain(clip: Clip, root: Path) -> dict[str, Any]:
    real = Path(os.path.realpath(clip.path))
    if not real.is_relative_to(root):
        raise ManifestError(f"{clip.path} lies outside {root}; write the manifest into the folder of the corpus")
    return clip._asdict() | {"path": real.relative_to(root).as_posix(), "labels": list(clip.labels)}


def _check_unique(clips: Sequence[Clip], path: Path) -> None:
    first: dict[str, int] = {}
    for number, clip in enumerate(clips, start=1):
        before = first.setdefault(clip.clip_id, number)
        if before != number:
            raise ManifestError(f"{path}, row {number}: clip_id {clip.clip_id!r} stands in row {before} already")
