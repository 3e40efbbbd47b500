"""What to do about a corpus: one rule each, from the card's numbers alone (pure). docs/data.md lists the rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from sonar.data.card_schema import Advice, Card
from sonar.data.card_sound import HALF
from sonar.data.manifest import SPLITS

QUARTER = 0.25  # median share of energy above 8 kHz from which on it is told
UNEVEN = 10.0  # largest class over the smallest
PADDED = 0.25  # median share of samples that are exactly 0
QUIET_DBFS = -50.0
FEW = 0.01  # share of the clips from which on a fault of single clips is told
_NAMES = 5  # that a sentence lists
_ORDER = {"must": 0, "should": 1, "know": 2}


def advise(card: Card) -> tuple[Advice, ...]:
    """What every rule has to say, the weightiest first."""
    found = [Advice(rule=rule.__name__[1:], weight=weight, text=text) for rule in RULES for weight, text in rule(card)]
    return tuple(sorted(found, key=lambda one: _ORDER[one.weight]))


_Said = Iterator[tuple[str, str]]


def _torn_groups(card: Card) -> _Said:
    if torn := card.counts.torn_groups:
        yield (
            "must",
            f"{_count(torn, 'group')} in more than one split ({_names(one.group for one in torn)}): scores on the "
            "held-out splits would be too good. Correct the splits, or leave them out to have them made.",
        )


def _copies_across_splits(card: Card) -> _Said:
    if copies := card.copies.across_splits:
        pairs = (f"{one.clip_id} = {one.other_clip_id}" for one in copies)
        yield (
            "must",
            f"{_count(copies, 'pair')} of clips in different splits with the same audio: {_names(pairs)}. Keep one.",
        )


def _leakage(card: Card) -> _Said:
    for name in card.origin.against:
        copies = [one for one in card.copies.against if one.other == name]
        if copies:
            clips = {one.clip_id for one in copies}
            yield (
                "must",
                f"{_count(clips, 'clip')} shared with {name} ({_names(sorted(clips))}): do not train on one and "
                "evaluate on the other.",
            )


def _missing_splits(card: Card) -> _Said:
    lacking = [
        f"{one.label} ({', '.join(split for split in SPLITS if not one.splits[split].clips)})"
        for one in card.counts.classes
        if one.label and any(not one.splits[split].clips for split in SPLITS)
    ]
    if lacking:
        yield (
            "must",
            f"{_count(lacking, 'class')} without a clip in some split: {_names(lacking)}. A probe needs every class "
            "in every split: add recordings or leave the class out.",
        )


def _unreadable(card: Card) -> _Said:
    if bad := card.unreadable:
        yield (
            "must",
            f"{_count(bad, 'clip')} cannot be read ({bad[0].path}: {bad[0].reason}). Scan the corpus again.",
        )


def _quarantine(card: Card) -> _Said:
    if bad := card.quarantine:
        yield (
            "should",
            f"{_count(bad, 'file')} quarantined ({bad[0].path}: {bad[0].reason}). Repair, replace or delete them.",
        )


def _lost_band(card: Card) -> _Said:
    shares = [(one.lost.median or 0.0, _class(card, one.corpus, one.label)) for one in card.sounds.classes]
    for weight, least, most in (("must", HALF, 1.0), ("should", QUARTER, HALF)):
        losing = [f"{name} ({share:.0%})" for share, name in shares if least <= share and (share < most or most == 1.0)]
        if losing:
            yield (
                weight,
                f"{least:.0%} or more of the energy lies above 8 kHz in {_count(losing, 'class')}: {_names(losing)}. A "
                "16 kHz encoder cannot hear it. Slow these recordings down, or expect poor scores.",
            )


def _lost_band_not_known(card: Card) -> _Said:
    known, measured = card.sounds.all.lost.clips, card.sounds.all.clips
    if known < measured:
        which = "of no clip" if known == 0 else f"only of {known} of {measured} clips"
        yield (
            "know",
            f"{which} it is known what the sound had above 8 kHz: a sample rate of 16 kHz or less has cut it off. Make "
            "the card of the original recordings if you have them.",
        )


def _narrow_band(card: Card) -> _Said:
    named = [one for one in card.sounds.classes if one.label]
    narrow = [one for one in named if one.narrow * 2 >= one.clips > 0]
    if narrow:
        told = (f"{_class(card, one.corpus, one.label)} (up to {one.top_hz or 0:.0f} Hz)" for one in narrow)
        shortcut = " A model can tell them from the others by the band alone." if len(narrow) < len(named) else ""
        yield (
            "should",
            f"in {_count(narrow, 'class')} half of the clips or more use less than 80 % of the band that their rate "
            f"allows: {_names(told)}. Recorded at a lower rate, cut by a codec, or low sounds.{shortcut}",
        )


def _groups_not_known(card: Card) -> _Said:
    counts = card.counts.all
    if 1 < counts.clips == counts.groups:
        yield (
            "should",
            "every clip is a group of its own. Where several come from one recording, speaker or day, say so, as by "
            "source_id in a metadata.csv: else they stand in several splits, and scores are too good.",
        )


def _few_clips(card: Card) -> _Said:
    for one in card.counts.corpora:
        if one.few_clips:
            yield "should", f"few clips in {_count(one.few_clips, 'class')} of {one.corpus}: {_names(one.few_clips)}."


def _few_groups(card: Card) -> _Said:
    for one in card.counts.corpora:
        if one.few_groups:
            yield (
                "should",
                f"fewer than three groups (recordings, speakers or days), one for each split, in "
                f"{_count(one.few_groups, 'class')} of {one.corpus}: {_names(one.few_groups)}.",
            )


def _uneven_classes(card: Card) -> _Said:
    for one in card.counts.corpora:
        if one.largest_to_smallest is not None and one.largest_to_smallest >= UNEVEN:
            yield (
                "should",
                f"{one.corpus}: the largest class has {one.largest_to_smallest:.0f} times the clips of the smallest; "
                f"{one.classes} classes count as {one.effective_classes:.1f} even ones. Judge by macro-F1.",
            )


def _clipping(card: Card) -> _Said:
    what = "clipped, with 0.1 % of the samples or more at full scale"
    yield from _faulty(card, card.sounds.all.clipped, what, "Record at a lower level.")


def _silence(card: Card) -> _Said:
    what = "silent, below -60 dBFS, for nine tenths of their length"
    yield from _faulty(card, card.sounds.all.mostly_silent, what, "Cut them to the sound, or leave them out.")


def _padding(card: Card) -> _Said:
    zero = card.sounds.all.zero
    if zero is not None and zero >= PADDED:
        yield (
            "know",
            f"{zero:.0%} of the median clip is digital silence, as of padding: it costs time and says nothing.",
        )


def _offset(card: Card) -> _Said:
    what = "off zero by 1 % of full scale or more"
    yield from _faulty(card, card.sounds.all.offset, what, "The front end takes it out; the recorder may be faulty.")


def _quiet(card: Card) -> _Said:
    level = card.sounds.all.rms_dbfs
    if level is not None and level < QUIET_DBFS:
        yield "know", f"the median clip is at {level:.0f} dBFS: very quiet, so that 16-bit files lose detail."


def _mixed_rates(card: Card) -> _Said:
    rates = sorted({one.sample_rate for one in card.counts.formats})
    if len(rates) > 1:
        yield (
            "know",
            f"files have {len(rates)} sample rates ({_names(f'{rate} Hz' for rate in rates)}). If a rate goes with a "
            "class, a model can learn the rate.",
        )


def _copies_within_splits(card: Card) -> _Said:
    if copies := card.copies.within_splits:
        yield "know", f"{_count(copies, 'pair')} of clips in one split with the same audio: they count twice."


RULES: Sequence[Callable[[Card], _Said]] = (
    _torn_groups,
    _copies_across_splits,
    _leakage,
    _missing_splits,
    _unreadable,
    _lost_band,
    _quarantine,
    _narrow_band,
    _groups_not_known,
    _few_groups,
    _few_clips,
    _uneven_classes,
    _clipping,
    _silence,
    _padding,
    _offset,
    _copies_within_splits,
    _mixed_rates,
    _quiet,
    _lost_band_not_known,
)


def _faulty(card: Card, clips: int, what: str, remedy: str) -> _Said:
    """A fault of single clips, told where 1 % of them have it."""
    measured = card.sounds.all.clips
    if clips and clips >= FEW * measured:
        yield "should", f"{_count(range(clips), 'clip')} of {measured} {what}. {remedy}"


def _class(card: Card, corpus: str, label: str) -> str:
    name = label or "clips without a label"
    return name if len(card.counts.corpora) == 1 else f"{corpus}/{name}"


def _count(items: Sequence[object] | set[str], noun: str) -> str:
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{len(items)} {noun if len(items) == 1 else plural}"


def _names(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _NAMES} more" if len(listed) > _NAMES else ""
    return ", ".join(listed[:_NAMES]) + more
