"""The domain card of a manifest or folder: read, measured in worker processes, counted, judged."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sonar.data.audio import AudioError
from sonar.data.card_advice import advise
from sonar.data.card_copies import find_copies
from sonar.data.card_counts import count_clips
from sonar.data.card_schema import BadFile, Card, Origin
from sonar.data.card_signal import ClipSignal, measure_clip
from sonar.data.card_sound import summarise_sounds
from sonar.data.corpora import scan_corpus
from sonar.data.guard import Guard, Limits
from sonar.data.leakage import Run
from sonar.data.manifest import SUFFIXES, Clip, beside_manifest, manifest_hash, read_manifest
from sonar.data.splits import complete_splits
from sonar.data.storage import exists, read_bytes

_CHUNK = 16  # clips that travel to a worker together
_SECONDS = 600.0  # for one clip: the longest that is read lasts 4 h

Progress = Callable[[int, int], None]  # clips read so far, of how many; each is read twice


@dataclass(frozen=True, kw_only=True)
class CardConfig:
    """How a card is made.

    Attributes:
        max_clips: clips whose audio is read, drawn by `seed`; None: all.
        seed: of the draw.
        min_clips: classes with fewer clips are told, at least 1.
        workers: processes; None: as many as there are CPUs.
    """

    max_clips: int | None = None
    seed: int = 0
    min_clips: int = 20
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.max_clips is not None and self.max_clips < 1:
            raise ValueError(f"max_clips is {self.max_clips}; give 1 or more, or leave it out to read all")
        if self.min_clips < 1:
            raise ValueError(f"min_clips is {self.min_clips}; give 1 or more")


class Source(NamedTuple):
    """A corpus to be described.

    Attributes:
        path: as it was given.
        clips: each with a split.
        quarantine: what a scan left out; None where that is not known.
        splits_made: clips that had no split.
    """

    path: str
    clips: list[Clip]
    quarantine: tuple[BadFile, ...] | None
    splits_made: int = 0


class _Measured(NamedTuple):
    """The clips that could be read, (n, 9) float64 rows of `ClipSignal`, and the others."""

    clips: list[Clip]
    signals: np.ndarray
    unreadable: tuple[BadFile, ...]


def read_source(path: str | Path) -> Source:
    """Read a manifest as it stands and the report that its scan left beside it, or scan a folder.

    Nothing is refused that a card can tell: torn groups, any share of bad files. Where clips have no split, splits are
    made as training would make them.

    Args:
        path: manifest or folder, or the URL of one.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: a manifest or folder that cannot be read, is without a clip, or has torn groups and clips without a
            split too.
    """
    path = str(path)
    if path.partition("::")[0].endswith(SUFFIXES):
        clips, quarantine = read_manifest(path), _left_out(beside_manifest(path, ".quarantine.json"))
    else:
        clips, found = scan_corpus(path, domain="new")
        quarantine = tuple(BadFile(path=one.path, reason=one.reason, sha256=one.sha256) for one in found)
    if not clips:
        raise ValueError(f"{path} holds no clip that can be read; `sonar data scan` tells why")
    without_split = sum(not clip.split for clip in clips)
    return Source(path, complete_splits(clips) if without_split else clips, quarantine, without_split)


def _left_out(report: str) -> tuple[BadFile, ...] | None:
    """The files of a scan's report; None where there is none."""
    if not exists(report):
        return None
    try:
        files = json.loads(read_bytes(report))["files"]
        return tuple(BadFile(path=one["path"], reason=one["reason"], sha256=one["sha256"]) for one in files)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{report} is not the report of a scan ({error!r}): scan anew by `sonar data scan`, or move it away"
        ) from error


def make_card(
    source: Source,
    *,
    against: Sequence[Source] = (),
    config: CardConfig | None = None,
    progress: Progress | None = None,
) -> Card:
    """Describe a corpus.

    Beside the manifest, 72 bytes are held for each clip, and what `duplicate_report` holds; audio is read in blocks.

    Args:
        source: the corpus.
        against: corpora that must not share audio with it, as its evaluation sets.
        config: how.
        progress: hears how far it is.
    """
    config = config or CardConfig()
    chosen = draw_clips(source.clips, config)
    others = {one.path: one.clips for one in against}
    total = 2 * len(chosen) + sum(map(len, others.values()))
    with Guard(workers=config.workers, limits=Limits(seconds=_SECONDS)) as guard:
        run = partial(_told, guard, progress or _silent, count(1), total)
        measured = _measure(chosen, run)
        copies = find_copies(measured.clips, others, run=run)
    card = Card(
        origin=Origin(
            path=source.path,
            manifest_hash=manifest_hash(source.clips),
            measured=len(measured.clips),
            seed=config.seed if len(chosen) < len(source.clips) else None,
            against=tuple(one.path for one in against),
            splits_made=source.splits_made,
        ),
        counts=count_clips(source.clips, min_clips=config.min_clips),
        sounds=summarise_sounds(measured.clips, measured.signals),
        unreadable=measured.unreadable,
        copies=copies,
        quarantine=source.quarantine,
    )
    return replace(card, advice=advise(card))


def draw_clips(clips: Sequence[Clip], config: CardConfig) -> Sequence[Clip]:
    """The clips to be measured, in their order: all, or as many as asked for, by the seed."""
    if config.max_clips is None or config.max_clips >= len(clips):
        return clips
    rows = np.random.default_rng(config.seed).choice(len(clips), config.max_clips, replace=False)
    return [clips[row] for row in np.sort(rows)]


def _measure(clips: Sequence[Clip], run: Run) -> _Measured:
    signals = np.full((len(clips), len(ClipSignal._fields)), np.nan)
    unreadable = {}
    for row, signal in enumerate(run(_measure_clip, clips)):
        if isinstance(signal, AudioError):
            unreadable[row] = str(signal)
        else:
            signals[row] = signal
    return _Measured(
        [clip for row, clip in enumerate(clips) if row not in unreadable],
        np.delete(signals, list(unreadable), axis=0),
        tuple(BadFile(path=clips[row].path, reason=why, sha256=clips[row].sha256) for row, why in unreadable.items()),
    )


def _measure_clip(clip: Clip) -> ClipSignal:
    return measure_clip(clip.path, clip.start_s, clip.duration_s)


def _told(
    guard: Guard,
    progress: Progress,
    done: Iterator[int],
    total: int,
    function: Callable[[Clip], Any],
    clips: Iterable[Clip],
) -> Iterator[Any]:
    for result in guard.map(function, clips, chunk=_CHUNK):
        progress(next(done), total)
        yield result


def _silent(done: int, total: int) -> None:
    """Progress that nobody hears."""
