"""One part of the shards: a Parquet file, and the record of what is in it and where.

The record is written after the file is whole, so a part that has one is done.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from sonar.data.audio import SAMPLE_RATE
from sonar.data.manifest import SCHEMA, Clip
from sonar.data.shard_audio import WAV_HEADER_BYTES, BadClip, Encoded
from sonar.data.shard_folder import ShardFolder
from sonar.data.shard_plan import BYTES_PER_SAMPLE, Part
from sonar.files import sha256_of

RECORDS = "_parts"  # folder of the records, while the shards are unfinished
_END_BYTES = 108  # of a clip's first and last bytes, which it is found by
ROW_GROUP_BYTES = 8 * 2**20  # of audio that a task holds before it is written

_VALUES = {pa.string(): "string", pa.float64(): "float64", pa.int64(): "int64"}
# `datasets` takes the kinds of the columns from here, so that audio and labels need no cast; "Sequence" is read by
# its releases before and after 4.0, which writes "List".
_FEATURES = {
    field.name: {"feature": {"dtype": "string", "_type": "Value"}, "_type": "Sequence"}
    if field.name == "labels"
    else {"dtype": _VALUES[field.type], "_type": "Value"}
    for field in SCHEMA
} | {"audio": {"sampling_rate": SAMPLE_RATE, "_type": "Audio"}}
_SHARD_SCHEMA = pa.schema(
    [*SCHEMA, ("audio", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))],
    metadata={"huggingface": json.dumps({"info": {"features": _FEATURES}})},
)
_PLACES = [("file", pa.string()), ("offset", pa.int64()), ("num_samples", pa.int64())]
INDEX_SCHEMA = pa.schema([*SCHEMA, *_PLACES])
_RECORD_SCHEMA = pa.schema([*INDEX_SCHEMA, ("reason", pa.string()), ("kind", pa.string()), ("settled", pa.bool_())])


Encode = Callable[[Sequence[Clip]], Iterable[Encoded]]


class PartRecord(NamedTuple):
    """What one part holds.

    Attributes:
        rows: a row per clip: a manifest's columns, where its audio lies, and `reason` where it has none.
        file: of its audio; empty where no clip is good.
        sha256: of the file.
        num_bytes: of the file.
    """

    rows: pa.Table
    file: str
    sha256: str
    num_bytes: int

    @property
    def num_bad(self) -> int:
        """Clips without audio."""
        return sum(bool(reason) for reason in self.rows["reason"].to_pylist())


def write_part(part: Part, folder: ShardFolder, encode: Encode) -> PartRecord:
    """Write the audio of a part, then its record; a clip that cannot be read takes no other with it.

    A part that is written again gets the same file, byte by byte.

    Args:
        part: of the plan.
        folder: of the shards.
        encode: gives 16 kHz mono WAV bytes of each clip, in order, or why there are none.
    """
    with folder.scratch() as scratch:
        made = scratch / "part.parquet"
        rows = _write_audio(part, made, encode)
        if any(not row["reason"] for row in rows):
            record = PartRecord(_table(rows), part.file, sha256_of(made), made.stat().st_size)
            folder.put(made, part.file)
        else:
            record = PartRecord(_table(rows), "", "", 0)
        folder.put_bytes(_record_bytes(record), _record_file(part.key))
    return record


def _write_audio(part: Part, made: Path, encode: Encode) -> list[dict[str, Any]]:
    """Write the file of a part; the rows of its record."""
    rows, written = [], []
    with pq.ParquetWriter(
        made, _SHARD_SCHEMA, compression="none", use_dictionary=False, write_statistics=False
    ) as writer:
        group = _RowGroup(writer)
        for clip, audio in zip(part.clips, encode(part.clips), strict=True):
            row: dict[str, Any] = clip._asdict() | {"labels": list(clip.labels)}
            if isinstance(audio, BadClip):
                rows.append(row | audio._asdict())
                continue
            group.add(row, audio)
            num_samples = (len(audio) - WAV_HEADER_BYTES) // BYTES_PER_SAMPLE
            rows.append(row | {"file": part.file, "num_samples": num_samples, "reason": "", "settled": True})
            written.append(_Ends(len(audio), audio[:_END_BYTES], audio[-_END_BYTES:]))
        group.flush()
    good = [row for row in rows if not row["reason"]]
    for row, begin in zip(good, _places(made, written), strict=True):
        row["offset"] = begin + WAV_HEADER_BYTES
    return rows


def read_record(key: str, folder: ShardFolder) -> PartRecord:
    """The record of a part that is done."""
    with pa.ipc.open_file(pa.BufferReader(folder.read(_record_file(key)))) as file:
        rows = file.read_all()
    about = json.loads(rows.schema.metadata[b"part"])
    return PartRecord(rows.replace_schema_metadata(None), about["file"], about["sha256"], about["num_bytes"])


def finished_parts(parts: Iterable[Part], folder: ShardFolder) -> dict[str, PartRecord]:
    """Records, by key, of the parts that need not be written again.

    A part is written again where its file is not there in its full size, or where one of its clips had no file that
    the manifest describes: it may be there now.
    """
    sizes, found = folder.sizes(), {}
    for part in parts:
        if _record_file(part.key) in sizes:
            try:
                record = read_record(part.key, folder)
            except ValueError:  # cut off by a disk that lost power
                continue
            is_whole = not record.file or sizes.get(record.file) == record.num_bytes
            if is_whole and all(record.rows["settled"].to_pylist()):
                found[part.key] = record
    return found


class _RowGroup:
    """Rows that wait to be written together, so that memory is bounded by them and not by the part."""

    def __init__(self, writer: pq.ParquetWriter) -> None:
        self._writer, self._held = writer, 0
        self._rows: list[dict[str, Any]] = []

    def add(self, row: dict[str, Any], audio: bytes) -> None:
        self._rows.append(row | {"audio": {"bytes": audio, "path": row["clip_id"]}})
        self._held += len(audio)
        if self._held >= ROW_GROUP_BYTES:
            self.flush()

    def flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, _SHARD_SCHEMA))
        self._rows, self._held = [], 0


class _Ends(NamedTuple):
    """What a clip's WAV file is known by: its header says its length too."""

    size: int
    head: bytes
    tail: bytes


def _places(path: Path, written: Sequence[_Ends]) -> Iterator[int]:
    """Where each clip's WAV file begins: they lie in order, uncompressed, each in one piece."""
    position = 0
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for clip in written:
            position = content.find(clip.head, position)
            while position >= 0 and not _ends_with(content, position + clip.size, clip.tail):
                position = content.find(clip.head, position + 1)
            if position < 0:
                raise RuntimeError(f"{path}: the audio of a clip does not lie in one piece")
            yield position
            position += clip.size


def _ends_with(content: mmap.mmap, end: int, tail: bytes) -> bool:
    return content[end - len(tail) : end] == tail


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, _RECORD_SCHEMA)


def _record_bytes(record: PartRecord) -> bytes:
    about = {"file": record.file, "sha256": record.sha256, "num_bytes": record.num_bytes}
    table = record.rows.replace_schema_metadata({"part": json.dumps(about)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _record_file(key: str) -> str:
    return f"{RECORDS}/{key}.arrow"
