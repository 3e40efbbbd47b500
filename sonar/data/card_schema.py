"""The domain card: what it holds, and its JSON.

The JSON has the fields of these classes by their names. A number that is not known is null, a share lies between 0 and
1, levels are in dBFS. `SCHEMA` names it; its number is raised when a field goes or changes its meaning, not when one is
added.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from sonar.data.card_copies import Copies
from sonar.data.card_counts import Counts
from sonar.data.card_sound import Sounds

SCHEMA = "sonar.domain-card/1"


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What the card was made from.

    Attributes:
        path: of the manifest or folder, as given.
        manifest_hash: 12 hex digits that name the clips, wherever they lie.
        measured: clips whose audio was read: all of them, or a sample.
        seed: of the sample; None where all were read.
        against: other manifests or folders, as given.
        splits_made: clips that had no split and got the one that training would give them.
    """

    path: str
    manifest_hash: str
    measured: int
    seed: int | None
    against: tuple[str, ...]
    splits_made: int


@dataclass(frozen=True, kw_only=True)
class BadFile:
    """A file or clip that could not be used, and why; sha256 is empty where it is not known."""

    path: str
    reason: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Advice:
    """Something to do.

    Attributes:
        rule: its name, as in docs/data.md.
        weight: must (results would be wrong), should (they would be poorer), know (for who reads them).
        text: one or two sentences with the numbers that say so.
    """

    rule: str
    weight: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Card:
    """All that is told of a corpus.

    Attributes:
        origin: what it was made from.
        counts: what the manifest says: of all clips.
        sounds: what the audio says: of the measured clips.
        unreadable: clips to be measured that could not be read.
        copies: clips that are the same audio, within and against other manifests.
        quarantine: files that the scan left out; None where no scan's report is known.
        advice: what to do, the weightiest first.
    """

    origin: Origin
    counts: Counts
    sounds: Sounds
    unreadable: tuple[BadFile, ...]
    copies: Copies
    quarantine: tuple[BadFile, ...] | None
    advice: tuple[Advice, ...] = ()


def card_json(card: Card) -> str:
    """The card as JSON text."""
    return json.dumps({"schema": SCHEMA} | asdict(card), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
