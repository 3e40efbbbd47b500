"""Manifest -> Parquet shards by one Ray Data pass: decode, check, resample, stratify. The only data file with Ray.

A shard holds clips of one stratum (corpus and split): the columns of the manifest, and the audio as 16 kHz mono 16-bit
WAV in Hugging Face's `Audio` struct `{bytes, path}`, so that `datasets` reads it too. The audio lies uncompressed in
the file, and the index says where, so that training maps it into memory and reads single clips (stream.ClipStore).

The work is cut into parts by the manifest alone (shard_plan). A part is a file under a name that its clips give it, and
then a record; a pass that was killed goes on with the parts that have none. The summary comes last and makes the
folder complete.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import ray.data

from sonar.data.audio import AudioError, Quarantined
from sonar.data.clip_table import ClipTable
from sonar.data.corpora import MAX_BAD_FRACTION, refuse_bad_share
from sonar.data.guard import Guard
from sonar.data.manifest import Clip, manifest_hash
from sonar.data.quarantine import stratum_name
from sonar.data.shard_audio import AudioSlice, BadClip, Encoded, encode_slice
from sonar.data.shard_folder import ShardFolder, only_one
from sonar.data.shard_parts import (
    INDEX_SCHEMA,
    RECORDS,
    ROW_GROUP_BYTES,
    PartRecord,
    finished_parts,
    read_record,
    write_part,
)
from sonar.data.shard_plan import Part, cut, plan_parts, stratum_of
from sonar.data.shard_summary import SUMMARY_FILE, LeftOut, ShardFile, ShardSummary, read_summary, write_summary

_CHUNK = 8  # clips that travel to the decoding process together, some milliseconds each


class Progress(NamedTuple):
    """How far a pass is: clips that are done, those of them without audio, and all."""

    num_done: int
    num_bad: int
    num_clips: int


def write_shards(
    clips: Sequence[Clip],
    place: str | Path,
    *,
    max_bad_fraction: float = MAX_BAD_FRACTION,
    concurrency: int | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> ShardSummary:
    """Write the shards of a manifest, go on where a killed pass stopped, or find them whole already.

    Args:
        clips: the manifest.
        place: folder or URL to fill, the same for every node. It is complete, and readable by `ClipStore`, once it
            holds its summary; if that is of this manifest, nothing is done. Drivers that want the same folder wait
            for each other; a URL has no such lock.
        max_bad_fraction: share of clips that may be unreadable; those are listed in `quarantine.json`.
        concurrency: tasks at a time; None: as many as there are CPUs. A task holds one decoded file and some row groups
            of `shard_parts.ROW_GROUP_BYTES`.
        on_progress: hears after every part.

    Raises:
        ValueError: no clips, a clip_id twice, a folder of something else, or too many unreadable clips, as soon as
            there are; the parts that are done stay for the next call.
    """
    folder, manifest = ShardFolder(place), manifest_hash(clips)
    if folder.exists(SUMMARY_FILE):
        return _find(folder, manifest)
    doubled = [name for name, count in Counter(clip.clip_id for clip in clips).items() if count > 1]
    if not clips or doubled:
        raise ValueError(f"clip_id {doubled[0]!r} stands twice" if doubled else "no clips: the manifest is empty")
    if folder.exists() and not any(name.startswith(f"{RECORDS}/") for name in folder.sizes()):
        raise ValueError(f"{folder} exists and holds no shards; give another folder, or remove it")
    with nullcontext() if folder.local is None else only_one(folder.local / RECORDS / "lock"):
        if folder.exists(SUMMARY_FILE):  # by another driver, that this one waited for
            return _find(folder, manifest)
        folder.put_bytes(manifest.encode(), f"{RECORDS}/manifest")
        parts = plan_parts(clips)
        records = finished_parts(parts, folder)
        tally = _Tally(len(clips), max_bad_fraction, on_progress)
        for record in records.values():
            tally.add(record)
        left = [part for part in parts if part.key not in records]
        with closing(_pass(left, folder, concurrency)) as written:  # stderr comes back before an error is told
            for key in written:
                records[key] = _seen_from_here(key, folder)
                tally.add(records[key])
        return finish([records[part.key] for part in parts], folder, manifest)


def finish(records: Sequence[PartRecord], folder: ShardFolder, manifest: str) -> ShardSummary:
    """Complete the folder once every part has its record; removes what earlier passes left over."""
    rows = pa.concat_tables(record.rows for record in records)
    is_good = pc.equal(rows["reason"], "")
    index = rows.filter(is_good).select(INDEX_SCHEMA.names).sort_by("clip_id")
    bad = rows.filter(pc.invert(is_good)).sort_by("clip_id").to_pylist()
    left_out = LeftOut(
        tuple(map(_quarantined, bad)),
        Counter(stratum_of(row["corpus"], row["split"]) for row in bad),
    )
    files = {record.file: ShardFile(record.sha256, record.num_bytes) for record in records if record.file}
    summary = write_summary(folder, manifest, index, left_out, files)
    folder.clear(keep={SUMMARY_FILE, *summary.files})
    return summary


def _quarantined(row: Mapping[str, Any]) -> Quarantined:
    stratum = stratum_name(row["corpus"], row["labels"])
    return Quarantined(row["path"], row["reason"], row["sha256"], row["kind"], stratum, row["duration_s"])


def encode_guarded(clips: Sequence[Clip]) -> Iterator[Encoded]:
    """The audio of some clips, decoded by a process that may crash, hang or ask for too much memory."""
    for few in cut(clips, ROW_GROUP_BYTES):  # what is decoded ahead of the writer stays in memory
        asked = [AudioSlice(clip.path, clip.start_s, clip.duration_s, clip.sha256) for clip in few]
        for found in _guard().map(encode_slice, asked, chunk=_CHUNK):
            yield BadClip(str(found), found.kind, settled=False) if isinstance(found, AudioError) else found


@lru_cache(maxsize=1)
def _guard() -> Guard:
    """One decoding process for all tasks that this process runs; it ends with this process."""
    return Guard(workers=1).__enter__()


def _find(folder: ShardFolder, manifest: str) -> ShardSummary:
    """The summary of shards that are there, if they are those of the manifest."""
    summary = read_summary(folder)
    if summary.manifest != manifest:
        raise ValueError(
            f"{folder} holds the shards of manifest {summary.manifest}, not of {manifest}; give another folder"
        )
    return summary


class _Tally:
    """Counts clips as parts are done, and stops the pass when too many are bad."""

    def __init__(self, num_clips: int, max_bad_fraction: float, on_progress: Callable[[Progress], None]) -> None:
        self._num_clips, self._max_bad_fraction, self._on_progress = num_clips, max_bad_fraction, on_progress
        self._num_done = 0
        self._bad: list[Quarantined] = []

    def add(self, record: PartRecord) -> None:
        self._num_done += record.rows.num_rows
        self._bad += map(_quarantined, record.rows.filter(pc.not_equal(record.rows["reason"], "")).to_pylist())
        self._on_progress(Progress(self._num_done, len(self._bad), self._num_clips))
        refuse_bad_share(self._bad, self._num_clips, self._max_bad_fraction, "clips are unreadable")


def _pass(parts: Sequence[Part], folder: ShardFolder, concurrency: int | None) -> Generator[str, None, None]:
    """Write parts in Ray's workers, a task each; yields the key of each when it is done."""
    if not parts:
        return
    with quiet_ray_data():
        written = ray.data.from_arrow([_block(part) for part in parts]).map_batches(
            partial(_write_block, place=folder.shared_place),
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.TaskPoolStrategy(size=concurrency),
        )
        for row in written.iter_rows():
            yield row["key"]


def _block(part: Part) -> pa.Table:
    """A part as it travels to its task."""
    table = ClipTable.from_clips(part.clips).table
    return table.append_column("part", pa.array([part.key] * len(table)))


def _write_block(block: pa.Table, place: str) -> pa.Table:
    """Write the parts of a block, which is one part; run again after a lost worker, it writes the same files again."""
    folder, keys = ShardFolder(place), block["part"].unique().to_pylist()
    for key in keys:
        clips = tuple(ClipTable(block.filter(pc.equal(block["part"], key))))
        part = Part(stratum_of(clips[0].corpus, clips[0].split), key, clips)
        write_part(part, folder, encode_guarded)
    return pa.table({"key": keys})


def _seen_from_here(key: str, folder: ShardFolder) -> PartRecord:
    try:
        return read_record(key, folder)
    except FileNotFoundError as error:
        raise ValueError(
            f"a node of the cluster has written to {folder} what is not seen here; give a folder that all nodes share"
        ) from error


@contextmanager
def quiet_ray_data() -> Iterator[None]:
    """No progress bars, no chatter of Ray Data, and no warning that there are none; all of it if the block fails."""
    context, logger = ray.data.DataContext.get_current(), logging.getLogger("ray.data")
    bars, level = context.enable_progress_bars, logger.level
    context.enable_progress_bars = False
    logger.setLevel(logging.ERROR)
    try:
        with _held_back_stderr():
            yield
    finally:
        context.enable_progress_bars = bars
        logger.setLevel(level)


@contextmanager
def _held_back_stderr() -> Iterator[None]:
    """Ray's own threads write past every logger: each actor pool logs an error that is none (ray#53727)."""
    with tempfile.TemporaryFile() as held:
        sys.stderr.flush()
        stderr = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except GeneratorExit:  # no failure of Ray's: its user has had enough
            raise
        except BaseException:
            held.seek(0)
            os.write(stderr, held.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
