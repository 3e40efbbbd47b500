"""The domain card of a manifest or folder: read, measured in worker processes, counted, judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sonar.data.audio import AudioError
from sonar.data.card_advice import advise
from sonar.data.card_copies import find_copies
from sonar.data.card_counts import count_clips
from sonar.data.card_schema import BadFile, Card, Origin
from sonar.data.card_signal import ClipSignal, measure_clip
from sonar.data.card_sound import summarise_sounds
from sonar.data.corpora import load_corpus
from sonar.data.guard import Guard, Limits
from sonar.data.manifest import Clip, manifest_hash, read_manifest

_CHUNK = 16  # clips that travel to a worker together
_SECONDS = 600.0  # for one clip: the longest that is read lasts 4 h

Progress = Callable[[int, int], None]  # clips measured so far, of how many


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
    """A corpus to be described: as it was named, its clips, and what a scan left out (None: not known)."""

    path: str
    clips: list[Clip]
    quarantine: tuple[BadFile, ...] | None


def read_source(path: str | Path) -> Source:
    """Read a manifest as it stands, torn groups and all, or scan a folder.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: a manifest or folder that cannot be read (see `read_manifest`, `load_corpus`).
    """
    if Path(path).is_file():
        return Source(str(path), read_manifest(path), None)
    found = load_corpus(path, domain="new", max_bad_fraction=1.0)
    bad = tuple(BadFile(path=one.path, reason=one.reason, sha256=one.sha256) for one in found.quarantine)
    return Source(str(path), found.clips, bad)


def make_card(
    source: Source,
    *,
    against: Sequence[Source] = (),
    config: CardConfig | None = None,
    progress: Progress | None = None,
) -> Card:
    """Describe a corpus.

    Memory grows by about 100 bytes for each clip beside the manifest itself; audio is read in blocks.

    Args:
        source: the corpus.
        against: corpora that must not share audio with it, as its evaluation sets.
        config: how.
        progress: hears how far it is.
    """
    config = config or CardConfig()
    chosen = draw_clips(source.clips, config)
    measured, signals, unreadable = _measure(chosen, config.workers, progress or _silent)
    card = Card(
        origin=Origin(
            path=source.path,
            manifest_hash=manifest_hash(source.clips),
            measured=len(measured),
            seed=config.seed if len(chosen) < len(source.clips) else None,
            against=tuple(one.path for one in against),
        ),
        counts=count_clips(source.clips, min_clips=config.min_clips),
        sounds=summarise_sounds(measured, signals),
        unreadable=unreadable,
        copies=find_copies(source.clips, {one.path: one.clips for one in against}),
        quarantine=source.quarantine,
    )
    return replace(card, advice=advise(card))


def draw_clips(clips: Sequence[Clip], config: CardConfig) -> Sequence[Clip]:
    """The clips to be measured, in their order: all, or as many as asked for, by the seed."""
    if config.max_clips is None or config.max_clips >= len(clips):
        return clips
    rows = np.random.default_rng(config.seed).choice(len(clips), config.max_clips, replace=False)
    return [clips[row] for row in np.sort(rows)]


def _measure(
    clips: Sequence[Clip], workers: int | None, progress: Progress
) -> tuple[list[Clip], list[ClipSignal], tuple[BadFile, ...]]:
    measured, signals, unreadable = [], [], []
    with Guard(workers=workers, limits=Limits(seconds=_SECONDS)) as guard:
        parts = ((clip.path, clip.start_s, clip.duration_s) for clip in clips)
        for clip, signal in zip(clips, guard.map(_measure_part, parts, chunk=_CHUNK), strict=True):
            if isinstance(signal, AudioError):
                unreadable.append(BadFile(path=clip.path, reason=str(signal), sha256=clip.sha256))
            else:
                measured.append(clip)
                signals.append(signal)
            progress(len(measured) + len(unreadable), len(clips))
    return measured, signals, tuple(unreadable)


def _measure_part(part: tuple[str, float, float]) -> ClipSignal:
    return measure_clip(*part)


def _silent(done: int, total: int) -> None:
    """Progress that nobody hears."""
