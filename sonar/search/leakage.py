"""No evaluation clip in training: by file, by recording group, and by what can be heard."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import ray

from sonar.config import config_hash
from sonar.data.manifest import Clip
from sonar.data.near_duplicates import VERSION, Fingerprint, FingerprintIndex, Match, fingerprint, index_in_parts
from sonar.data.shard_view import shards_without
from sonar.data.stream import ClipStore
from sonar.files import write_whole_text
from sonar.search.progress import Say

CLIPS_PER_TASK = 256  # fingerprinted by one Ray task, some seconds


class NearDuplicate(NamedTuple):
    """A training clip that is the same recording as an evaluation clip (see `near_duplicates.Match`)."""

    clip_id: str
    evaluation_clip_id: str
    error_rate: float
    offset_s: float


def separate(sides: Sequence[list[Clip]], say: Say) -> Sequence[list[Clip]]:
    """Each side without the training clips whose file or recording group an evaluation clip of any side shares."""
    for attribute, meaning in (("sha256", "file"), ("group", "recording group")):
        held_out = {getattr(clip, attribute) for clips in sides for clip in clips if clip.split != "train"}
        kept = [[c for c in clips if c.split != "train" or getattr(c, attribute) not in held_out] for clips in sides]
        dropped = sum(map(len, sides)) - sum(map(len, kept))
        if dropped:
            say(f"{dropped} training clips left out: their {meaning} is in an evaluation split")
        sides = kept
    return sides


def without_near_duplicates(shards: Sequence[Path], cache: Path, say: Say) -> list[Path]:
    """The shards without training clips that are the same recording as an evaluation clip of any of them.

    Args:
        shards: folders named by their manifests.
        cache: gets what is left out, `near-duplicates-HASH.json`, a list for each folder; where it is there, nothing
            is computed.
        say: hears how many clips are left out.

    Returns:
        The same folders, or views of them.
    """
    key = config_hash({"shards": [folder.name for folder in shards], "version": VERSION})
    path = cache / f"near-duplicates-{key}.json"
    if not path.exists():
        found = [[pair._asdict() for pair in pairs] for pairs in find_near_duplicates(shards)]
        write_whole_text(path, json.dumps(found, indent=1))
    kept = []
    for folder, pairs in zip(shards, json.loads(path.read_text()), strict=True):
        left_out = {pair["clip_id"] for pair in pairs}
        if left_out:
            say(f"{len(left_out)} training clips left out: they sound as an evaluation clip does, see {path}")
        kept.append(shards_without(folder, left_out) if left_out else folder)
    return kept


def find_near_duplicates(shards: Sequence[Path]) -> list[list[NearDuplicate]]:
    """For each folder of shards its near-duplicates of evaluation clips of any, by tasks on the connected Ray.

    The evaluation clips' fingerprints are held by the driver and by every node, indexed in parts: 40 KB for a clip of
    10 s.
    """
    stores = [ClipStore(folder) for folder in shards]
    held_out = [(store, np.concatenate([store.index(split=name) for name in ("dev", "test")])) for store in stores]
    ids = [store.clips.take(rows).column("clip_id").to_pylist() for store, rows in held_out]
    evaluation_ids = [clip_id for of_store in ids for clip_id in of_store]
    if not evaluation_ids:
        return [[] for _ in stores]
    fingerprints, matches = ray.remote(_fingerprints), ray.remote(_matches)
    asked = [fingerprints.remote(str(s.folder), part) for s, rows in held_out for part in _parts(rows)]
    of_evaluation = [one for part in ray.get(asked) for one in part]
    begins, indices = zip(*((begin, ray.put(index)) for begin, index in index_in_parts(of_evaluation)), strict=True)
    pending = [
        [matches.remote(str(store.folder), part, begins, *indices) for part in _parts(store.index(split="train"))]
        for store in stores
    ]
    return [
        [
            NearDuplicate(store.clips[row].clip_id, evaluation_ids[match.clip], match.error_rate, match.offset_s)
            for part in ray.get(tasks)
            for row, match in part
        ]
        for store, tasks in zip(stores, pending, strict=True)
    ]


def _parts(rows: np.ndarray) -> Iterator[np.ndarray]:
    return (rows[begin : begin + CLIPS_PER_TASK] for begin in range(0, len(rows), CLIPS_PER_TASK))


def _fingerprints(folder: str, rows: np.ndarray) -> list[Fingerprint]:
    store = ClipStore(folder)
    return [fingerprint(store.waveform(row)) for row in rows]


def _matches(
    folder: str, rows: np.ndarray, begins: Sequence[int], *indices: FingerprintIndex
) -> list[tuple[int, Match]]:
    """Rows and their matches; a match names its place among the clips of all indices, which begin at `begins`."""
    store = ClipStore(folder)
    return [
        (int(row), match._replace(clip=begin + match.clip))
        for row in rows
        for asked in (fingerprint(store.waveform(row)),)
        for begin, index in zip(begins, indices, strict=True)
        for match in index.matches(asked)
    ]
