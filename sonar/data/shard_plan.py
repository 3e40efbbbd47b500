"""Which clips go into which part of the shards: a function of the manifest alone."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from sonar.data.audio import seconds_to_samples
from sonar.data.manifest import Clip

FORMAT = 2  # of parts, index and summary; parts of another format have other names
SHARD_BYTES = 64 * 2**20  # of audio in a part at most, but for a clip that is longer by itself
_SMALLEST_PART = 4 * 2**20  # parts of a small corpus, so that several CPUs have work
_PARTS_WANTED = 32
BYTES_PER_SAMPLE = 2


class Part(NamedTuple):
    """Clips of one stratum whose audio one task writes into one file.

    Attributes:
        stratum: folder of the file.
        key: 16 hex digits of what the clips are, wherever they lie.
        clips: in order of their ids.
    """

    stratum: str
    key: str
    clips: tuple[Clip, ...]

    @property
    def file(self) -> str:
        """Path of its Parquet file below the folder of the shards."""
        return f"{self.stratum}/part-{self.key}.parquet"


def plan_parts(clips: Iterable[Clip]) -> list[Part]:
    """Cut a manifest into parts of at most `SHARD_BYTES` of audio, the same whatever the order and the cluster.

    A corpus of less than 32 such parts is cut into smaller ones, of 4 MB at least.
    """
    ordered = sorted(clips, key=lambda clip: (stratum_of(clip.corpus, clip.split), clip.clip_id))
    limit = min(SHARD_BYTES, max(_SMALLEST_PART, sum(map(_num_bytes, ordered)) // _PARTS_WANTED))
    return [
        Part(stratum, _key(members), members)
        for stratum, of_stratum in groupby(ordered, key=lambda clip: stratum_of(clip.corpus, clip.split))
        for members in cut(of_stratum, limit)
    ]


def stratum_of(corpus: str, split: str) -> str:
    """Folder name of a stratum: a corpus and a split."""
    return re.sub(r"[^\w.-]", "_", f"{corpus}-{split}").lstrip("._")


def _num_bytes(clip: Clip) -> int:
    """Of a clip's 16-bit audio at 16 kHz, as its manifest says."""
    return BYTES_PER_SAMPLE * seconds_to_samples(clip.duration_s)


def cut(clips: Iterable[Clip], limit: int) -> Iterator[tuple[Clip, ...]]:
    """Consecutive clips with at most `limit` bytes of audio together; one that is longer comes by itself."""
    members: list[Clip] = []
    held = 0
    for clip in clips:
        size = _num_bytes(clip)
        if members and held + size > limit:
            yield tuple(members)
            members, held = [], 0
        members.append(clip)
        held += size
    yield tuple(members)


def _key(clips: Sequence[Clip]) -> str:
    rows = [json.dumps(clip._replace(path="")) for clip in clips]
    return hashlib.sha256("\n".join([str(FORMAT), *rows]).encode()).hexdigest()[:16]
