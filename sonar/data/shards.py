"""Manifest -> Parquet shards by one Ray Data pass: decode, check, resample, stratify. The only data file with Ray.

A shard holds clips of one stratum (corpus and split): the columns of the manifest, and the audio as 16 kHz mono 16-bit
WAV in Hugging Face's `Audio` struct `{bytes, path}`, so that `datasets` reads it too. The audio lies uncompressed in
the file, and the index says where, so that training maps it into memory and reads single clips (stream.ClipStore).
"""

from __future__ import annotations

import io
import json
import logging
import mmap
import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import ray.data
import soundfile

from sonar.data.audio import (
    SAMPLE_RATE,
    AudioError,
    Quarantined,
    decode_clip,
    file_sha256,
    seconds_to_samples,
)
from sonar.data.manifest import SCHEMA, Clip, manifest_hash

SUMMARY_FILE = "_summary.json"
QUARANTINE_FILE = "quarantine.json"
INDEX_FILE = "index.arrow"
WAV_HEADER_BYTES = 44  # of the 16-bit PCM files that are written here
SHARD_BYTES = 64 * 2**20  # of audio, about: one task's work

_ROW_SCHEMA = pa.schema([*SCHEMA, ("row", pa.int64())])
_SHARD_SCHEMA = pa.schema([*_ROW_SCHEMA, ("audio", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))])
_INDEX_SCHEMA = pa.schema([*_ROW_SCHEMA, ("file", pa.string()), ("offset", pa.int64()), ("num_samples", pa.int64())])
_RESULT_SCHEMA = pa.schema([*_INDEX_SCHEMA, ("reason", pa.string())])


class ShardSummary(NamedTuple):
    """What was written: clips per stratum, and what was left out."""

    num_clips: int
    strata: dict[str, int]
    quarantine: tuple[Quarantined, ...]


def write_shards(
    clips: Sequence[Clip],
    folder: str | Path,
    *,
    max_bad_fraction: float = 0.05,
    concurrency: int | None = None,
) -> ShardSummary:
    """Write the shards of a manifest, or find them whole already.

    Args:
        clips: the manifest.
        folder: to make; it appears when everything is in it. If it holds the shards of this manifest, nothing is done.
        max_bad_fraction: share of clips that may be unreadable; those are listed in `quarantine.json`.
        concurrency: tasks at a time; None: as many as there are CPUs.

    Raises:
        ValueError: no clips, a clip_id twice, too many unreadable clips, or a folder of something else.
    """
    folder, manifest = Path(folder), manifest_hash(clips)
    if folder.exists():
        return _find(folder, manifest)
    doubled = [name for name, count in Counter(clip.clip_id for clip in clips).items() if count > 1]
    if not clips or doubled:
        raise ValueError(f"clip_id {doubled[0]!r} stands twice" if doubled else "no clips: the manifest is empty")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as made:
        unfinished = Path(made) / "shards"
        summary = _summarise(_prepare(clips, unfinished, concurrency), unfinished)
        num_bad = len(summary.quarantine)
        if num_bad > max_bad_fraction * len(clips) or summary.num_clips == 0:
            shown = "; ".join(f"{item.path}: {item.reason}" for item in summary.quarantine[:5])
            raise ValueError(
                f"{num_bad} of {len(clips)} clips are unreadable (allowed: {max_bad_fraction:.0%}): {shown}"
            )
        content = {"manifest": manifest, "num_clips": summary.num_clips, "strata": summary.strata}
        (unfinished / SUMMARY_FILE).write_text(json.dumps(content, indent=1))
        unfinished.rename(folder)
    return summary


def _find(folder: Path, manifest: str) -> ShardSummary:
    """The summary of shards that are there, if they are those of the manifest."""
    if not (folder / SUMMARY_FILE).is_file():
        raise ValueError(f"{folder} exists and holds no shards; give another folder, or remove it")
    content = json.loads((folder / SUMMARY_FILE).read_text())
    if content["manifest"] != manifest:
        raise ValueError(
            f"{folder} holds the shards of manifest {content['manifest']}, not of {manifest}; give another folder"
        )
    bad = json.loads((folder / QUARANTINE_FILE).read_text())
    return ShardSummary(content["num_clips"], content["strata"], tuple(Quarantined(**item) for item in bad))


def _prepare(clips: Sequence[Clip], folder: Path, concurrency: int | None) -> pa.Table:
    """Write the shards in Ray's workers.

    Returns:
        A row per clip, in order of their ids: where its audio is, or the reason why it has none.
    """
    ordered = sorted(clips, key=lambda clip: clip.clip_id)
    rows = [clip._asdict() | {"labels": list(clip.labels), "row": row} for row, clip in enumerate(ordered)]
    rows.sort(key=stratum_of)  # stable: a block of consecutive rows touches few strata
    num_bytes = 2 * seconds_to_samples(sum(clip.duration_s for clip in clips))
    num_blocks = max(1, min(len(rows), max(num_bytes // SHARD_BYTES, min(8, len(rows) // 32))))
    with quiet_ray_data():
        manifest = ray.data.from_arrow(pa.Table.from_pylist(rows, _ROW_SCHEMA), override_num_blocks=num_blocks)
        written = manifest.map_batches(
            partial(_write_block, folder=str(folder)),
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.TaskPoolStrategy(size=concurrency),
        )
        results = pa.Table.from_pylist(written.take_all(), _RESULT_SCHEMA).sort_by("row")
    if results["row"].to_pylist() != list(range(len(rows))):
        raise RuntimeError(f"Ray Data returned {len(results)} of {len(rows)} rows; nothing is kept, prepare again")
    return results


def _write_block(block: pa.Table, folder: str) -> pa.Table:
    """Decode the clips of a block and write a shard per stratum; a bad clip takes no other with it.

    A block that is run again after a lost worker writes the same files again.
    """
    results: list[dict[str, Any]] = []
    for stratum, members in groupby(block.to_pylist(), key=stratum_of):
        decoded = [(row, *_encode(row)) for row in members]
        good = [
            row | {"audio": {"bytes": audio, "path": row["clip_id"]}} for row, audio, reason in decoded if not reason
        ]
        results += [row | {"reason": reason} for row, _, reason in decoded if reason]
        if good:
            name = f"{stratum}/part-{good[0]['row']:09d}.parquet"
            results += _write_shard(good, Path(folder), name)
    return pa.Table.from_pylist(results, _RESULT_SCHEMA)


def _write_shard(rows: Sequence[Mapping[str, Any]], folder: Path, name: str) -> list[dict[str, Any]]:
    """Write one file and find where in it each clip's samples begin."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(list(rows), _SHARD_SCHEMA)
    pq.write_table(table, path, compression="none", use_dictionary=False, write_statistics=False)
    placed, position = [], 0
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for row in rows:
            audio = row["audio"]["bytes"]
            position = content.find(audio, position)
            if position < 0:
                raise RuntimeError(f"{path}: the audio of {row['clip_id']} does not lie in one piece")
            num_samples = (len(audio) - WAV_HEADER_BYTES) // 2
            place = {"file": name, "offset": position + WAV_HEADER_BYTES, "num_samples": num_samples}
            placed.append({key: row[key] for key in row if key != "audio"} | place)
            position += len(audio)
    return placed


def _encode(row: Mapping[str, Any]) -> tuple[bytes, str]:
    """16 kHz mono WAV bytes of one clip, and the reason why there are none."""
    try:
        if file_sha256(row["path"]) != row["sha256"]:
            raise AudioError("the file has changed since its manifest was made; scan the corpus again")
        waveform = decode_clip(row["path"], row["start_s"], row["duration_s"])
    except AudioError as error:
        return b"", str(error)
    # Scaled by hand: a 16-bit file comes back bit by bit, and overshoot is clipped and not wrapped.
    samples = np.clip(np.rint(waveform * 32768), -32768, 32767).astype("<i2")
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return buffer.getvalue(), ""


def _summarise(results: pa.Table, folder: Path) -> ShardSummary:
    """Write index and quarantine of the results."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = results.to_pylist()
    good, bad = [row for row in rows if not row["reason"]], [row for row in rows if row["reason"]]
    quarantine = tuple(Quarantined(row["path"], row["reason"], row["sha256"]) for row in bad)
    feather.write_feather(pa.Table.from_pylist(good, _INDEX_SCHEMA), folder / INDEX_FILE)
    (folder / QUARANTINE_FILE).write_text(json.dumps([item._asdict() for item in quarantine], indent=1))
    return ShardSummary(len(good), dict(sorted(Counter(map(stratum_of, good)).items())), quarantine)


def stratum_of(row: Mapping[str, Any]) -> str:
    """Folder name of a clip's stratum."""
    return re.sub(r"[^\w.-]", "_", f"{row['corpus']}-{row['split']}").lstrip("._")


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
        except BaseException:
            held.seek(0)
            os.write(stderr, held.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
