"""Each rule speaks up for its own fault, for nothing else, and is documented."""

import re
from collections.abc import Callable, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from sonar.data.card_advice import RULES, advise
from sonar.data.card_copies import Copies, Copy
from sonar.data.card_counts import count_clips
from sonar.data.card_schema import BadFile, Card, Origin
from sonar.data.card_signal import ClipSignal
from sonar.data.card_sound import summarise_sounds
from sonar.data.manifest import SPLITS, Clip

CLEAN = ClipSignal(
    rms_dbfs=-20.0,
    peak_dbfs=-3.0,
    clipped=0.0,
    silent=0.1,
    zero=0.0,
    dc=0.0,
    lost=0.01,
    energy_99_hz=9_000.0,
    top_hz=22_000.0,
)
NO_COPIES = Copies(searched=24, not_comparable=0, within_splits=(), across_splits=(), against=())
PAIR = Copy(
    kind="near", clip_id="owl0", split="train", other="", other_clip_id="owl2", other_split="dev", error_rate=0.1
)
BAD = (BadFile(path="owl/a.wav", reason="empty file", sha256=""),)

Change = Callable[[Clip], Clip]
Sound = Callable[[Clip], ClipSignal]


@pytest.fixture
def card(make_clip: Callable[..., Clip]) -> Callable[..., Card]:
    """A card without fault but for what is changed: two classes of 24 clips, in groups of two."""
    clips = [
        make_clip(
            f"{label}{n}",
            path=f"/{label}{n}.wav",
            labels=(label,),
            split=SPLITS[n // 2 % 3],
            group=f"{label}{n // 2}",
            sample_rate=44_100,
        )
        for label in ("owl", "wren")
        for n in range(24)
    ]

    def make(change: Change = lambda clip: clip, sound: Sound = lambda clip: CLEAN, **fields: object) -> Card:
        changed = list(map(change, clips))
        made = Card(
            origin=Origin(
                path="m.csv", manifest_hash="0" * 12, measured=48, seed=None, against=("eval.csv",), splits_made=0
            ),
            counts=count_clips(changed, min_clips=10),
            sounds=summarise_sounds(changed, np.asarray(list(map(sound, changed)))),
            unreadable=(),
            copies=NO_COPIES,
            quarantine=(),
        )
        return replace(made, **fields)

    return make


def number(clip: Clip) -> int:
    return int(re.sub(r"\D", "", clip.clip_id))


def for_owls(**changed: float) -> Sound:
    return lambda clip: CLEAN._replace(**changed) if clip.labels == ("owl",) else CLEAN


def for_one(**changed: float) -> Sound:
    return lambda clip: CLEAN._replace(**changed) if clip.clip_id == "owl0" else CLEAN


def in_two_groups(clip: Clip) -> Clip:
    """The owls: one group in train, one in dev."""
    split = "train" if clip.split == "train" else "dev"
    return clip._replace(split=split, group=split) if clip.labels == ("owl",) else clip


class Fault(NamedTuple):
    """A fault, what is said of it, and the rules that it cannot but break too."""

    rule: str
    weight: str
    text: str
    changes: dict[str, object]
    also: Set[str] = frozenset()


FAULTS: Sequence[Fault] = (
    Fault(
        "torn_groups",
        "must",
        "1 group in more than one split (owl0)",
        {"change": lambda clip: clip._replace(split="test") if clip.clip_id == "owl1" else clip},
    ),
    Fault(
        "copies_across_splits",
        "must",
        "1 pair of clips in different splits with the same audio: owl0 = owl2",
        {"copies": replace(NO_COPIES, across_splits=(PAIR,))},
    ),
    Fault(
        "leakage",
        "must",
        "1 clip shared with eval.csv (owl0)",
        {"copies": replace(NO_COPIES, against=(replace(PAIR, other="eval.csv"),))},
    ),
    Fault(
        "missing_splits",
        "must",
        "1 class without a clip in some split: owl (dev)",
        {"change": lambda c: c._replace(split="test") if c.labels == ("owl",) and c.split == "dev" else c},
    ),
    Fault("unreadable", "must", "1 clip cannot be read (owl/a.wav: empty file)", {"unreadable": BAD}),
    Fault("quarantine", "should", "1 file quarantined (owl/a.wav: empty file)", {"quarantine": BAD}),
    Fault("lost_band", "must", "50% or more of the energy", {"sound": for_owls(lost=0.6)}),
    Fault("lost_band", "should", "above 8 kHz in 1 class: owl (30%)", {"sound": for_owls(lost=0.3)}),
    Fault("narrow_band", "should", "owl (up to 11000 Hz)", {"sound": for_owls(top_hz=11_000.0)}),
    Fault("groups_not_known", "should", "source_id", {"change": lambda clip: clip._replace(group=clip.clip_id)}),
    Fault(
        "few_groups",
        "should",
        "in 1 class of birds: owl",
        {"change": in_two_groups},
        also={"missing_splits"},
    ),
    Fault(
        "few_clips",
        "should",
        "few clips in 1 class of birds: wren",
        {"change": lambda clip: clip._replace(labels=("owl",)) if number(clip) >= 6 else clip},
    ),
    Fault(
        "uneven_classes",
        "should",
        "11 times the clips of the smallest",
        {"change": lambda clip: clip._replace(labels=("owl",)) if number(clip) >= 4 else clip},
        also={"missing_splits", "few_groups", "few_clips"},
    ),
    Fault("clipping", "should", "1 clip of 48 clipped", {"sound": for_one(clipped=0.01)}),
    Fault("silence", "should", "1 clip of 48 silent", {"sound": for_one(silent=0.95)}),
    Fault("offset", "should", "1 clip of 48 off zero", {"sound": for_one(dc=0.02)}),
    Fault("padding", "know", "50% of the median clip", {"sound": lambda clip: CLEAN._replace(zero=0.5)}),
    Fault("quiet", "know", "-55 dBFS", {"sound": lambda clip: CLEAN._replace(rms_dbfs=-55.0)}),
    Fault(
        "copies_within_splits",
        "know",
        "1 pair of clips in one split",
        {"copies": replace(NO_COPIES, within_splits=(PAIR,))},
    ),
    Fault(
        "mixed_rates",
        "know",
        "2 sample rates (44100 Hz, 48000 Hz)",
        {"change": lambda clip: clip._replace(sample_rate=48_000) if clip.clip_id == "owl0" else clip},
    ),
    Fault(
        "lost_band_not_known",
        "know",
        "only of 24 of 48 clips it is known",
        {"sound": for_owls(lost=float("nan"))},
    ),
)


def test_a_corpus_without_fault_is_let_be(card: Callable[..., Card]) -> None:
    assert advise(card()) == ()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.rule}-{fault.weight}")
def test_a_rule_tells_its_own_fault_and_no_other(card: Callable[..., Card], fault: Fault) -> None:
    said = advise(card(**fault.changes))
    (own,) = [one for one in said if one.rule == fault.rule]
    assert own.weight == fault.weight
    assert fault.text in own.text
    assert {one.rule for one in said} - {fault.rule} == fault.also


def test_the_weightiest_comes_first(card: Callable[..., Card]) -> None:
    made = card(sound=lambda clip: CLEAN._replace(zero=0.5, lost=0.6), quarantine=BAD)
    assert [one.weight for one in advise(made)] == ["must", "should", "know"]


def test_every_rule_is_tried_here_and_documented(root: Path) -> None:
    rules = {rule.__name__[1:] for rule in RULES}
    assert {fault.rule for fault in FAULTS} == rules
    documented = re.findall(
        r"^\| `(\w+)` \| (?:must|should|know)", (root / "docs" / "data.md").read_text(), re.MULTILINE
    )
    assert set(documented) == rules and len(documented) == len(rules)


def test_long_lists_are_cut(card: Callable[..., Card]) -> None:
    made = card(copies=replace(NO_COPIES, across_splits=(PAIR,) * 7))
    assert "7 pairs" in advise(made)[0].text and advise(made)[0].text.count("owl0") == 5
    assert "and 2 more" in advise(made)[0].text
