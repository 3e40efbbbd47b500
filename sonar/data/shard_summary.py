"""What finished shards say of themselves: index, quarantine and summary. The summary is written last."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa

from sonar.data.audio import SAMPLE_RATE, Quarantined
from sonar.data.shard_folder import ShardFolder
from sonar.data.shard_plan import BYTES_PER_SAMPLE, FORMAT, stratum_of

SUMMARY_FILE = "_summary.json"
QUARANTINE_FILE = "quarantine.json"
INDEX_FILE = "index.arrow"


class Stratum(NamedTuple):
    """The clips of a corpus and split: their number, hours, bytes of 16 kHz 16-bit audio, and those left out."""

    num_clips: int
    hours: float
    num_bytes: int
    num_bad: int


class ShardFile(NamedTuple):
    """Hash and size of a file."""

    sha256: str
    num_bytes: int


@dataclass(frozen=True, kw_only=True)
class ShardSummary:
    """What was written.

    Attributes:
        manifest: hash of all clips that were asked for, `manifest_hash`.
        strata: by the name of their folder.
        files: every file by its path below the folder, but the summary.
        quarantine: clips that were left out.
    """

    manifest: str
    strata: dict[str, Stratum]
    files: dict[str, ShardFile]
    quarantine: tuple[Quarantined, ...]

    @property
    def num_clips(self) -> int:
        """Good clips."""
        return sum(stratum.num_clips for stratum in self.strata.values())


class Damage(NamedTuple):
    """A file of the shards that is not what was written, and how."""

    file: str
    reason: str


class LeftOut(NamedTuple):
    """Clips without audio: the list, and how many of each stratum."""

    quarantine: tuple[Quarantined, ...]
    per_stratum: Mapping[str, int]


def write_summary(
    folder: ShardFolder, manifest: str, index: pa.Table, left_out: LeftOut, files: Mapping[str, ShardFile]
) -> ShardSummary:
    """Complete a folder of shards: what had been unfinished is whole when this returns.

    Args:
        folder: of the shards.
        manifest: hash of all clips that were asked for.
        index: of the good clips (see `shard_parts.INDEX_SCHEMA`), in order of their ids.
        left_out: the others.
        files: that hold the audio.
    """
    listed = json.dumps([item._asdict() for item in left_out.quarantine], indent=1).encode()
    made = {INDEX_FILE: _arrow_bytes(index), QUARANTINE_FILE: listed}
    for name, content in made.items():
        folder.put_bytes(content, name)
    hashed = {name: ShardFile(hashlib.sha256(content).hexdigest(), len(content)) for name, content in made.items()}
    summary = ShardSummary(
        manifest=manifest,
        strata=_strata(index, left_out.per_stratum),
        files=dict(files) | hashed,
        quarantine=left_out.quarantine,
    )
    folder.put_bytes(_render(_content(summary)), SUMMARY_FILE)
    return summary


def read_summary(folder: ShardFolder) -> ShardSummary:
    """The summary of shards that are complete.

    Raises:
        FileNotFoundError: there are none, or they are unfinished.
        ValueError: they were written by another release, or the summary is damaged.
    """
    content = _checked(folder)
    return ShardSummary(
        manifest=content["manifest"],
        strata={name: Stratum(**fields) for name, fields in content["strata"].items()},
        files=_files(content),
        quarantine=tuple(Quarantined(**item) for item in json.loads(folder.read(QUARANTINE_FILE))),
    )


def verify_shards(folder: ShardFolder) -> list[Damage]:
    """Read every byte of finished shards and name the files that are not what was written.

    Raises:
        FileNotFoundError: there are no finished shards.
        ValueError: the summary itself is damaged.
    """
    damaged = []
    for name, file in _files(_checked(folder)).items():
        try:
            found = folder.sha256(name)
        except FileNotFoundError:
            damaged.append(Damage(name, "missing"))
            continue
        if found != file.sha256:
            damaged.append(Damage(name, f"its sha256 is {found[:12]}..., and {file.sha256[:12]}... was written"))
    return damaged


def _checked(folder: ShardFolder) -> dict[str, Any]:
    """The content of a summary that is what was written."""
    if not folder.exists(SUMMARY_FILE):
        raise FileNotFoundError(f"no finished shards in {folder}; prepare the corpus again")
    written = folder.read(SUMMARY_FILE)
    try:
        content = json.loads(written)
    except ValueError as error:
        raise ValueError(f"{folder}/{SUMMARY_FILE} is damaged: {error}; prepare the corpus again") from error
    if content.get("format") != FORMAT:
        raise ValueError(
            f"{folder} holds shards of format {content.get('format', 1)}, and this release reads {FORMAT}; remove the "
            "folder and prepare the corpus again"
        )
    if content.pop("sha256", None) is None or _render(content) != written:
        raise ValueError(f"{folder}/{SUMMARY_FILE} is damaged: it is not what was written; prepare the corpus again")
    return content


def _files(content: Mapping[str, Any]) -> dict[str, ShardFile]:
    return {name: ShardFile(**fields) for name, fields in content["files"].items()}


def _content(summary: ShardSummary) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "manifest": summary.manifest,
        "strata": {name: stratum._asdict() for name, stratum in summary.strata.items()},
        "files": {name: file._asdict() for name, file in summary.files.items()},
    }


def _render(content: dict[str, Any]) -> bytes:
    """JSON that ends with its own hash."""
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    return json.dumps(content | {"sha256": digest}, indent=1).encode()


def _strata(index: pa.Table, num_bad: Mapping[str, int]) -> dict[str, Stratum]:
    counted = index.group_by(["corpus", "split"]).aggregate([("num_samples", "sum"), ("num_samples", "count")])
    totals: dict[str, list[int]] = {name: [0, 0] for name in num_bad}
    for row in counted.to_pylist():
        total = totals.setdefault(stratum_of(row["corpus"], row["split"]), [0, 0])
        total[0] += row["num_samples_count"]
        total[1] += row["num_samples_sum"]
    return {
        name: Stratum(count, samples / SAMPLE_RATE / 3600, samples * BYTES_PER_SAMPLE, num_bad.get(name, 0))
        for name, (count, samples) in sorted(totals.items())
    }


def _arrow_bytes(table: pa.Table) -> bytes:
    """Uncompressed, so that it can be mapped into memory."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return sink.getvalue().to_pybytes()
