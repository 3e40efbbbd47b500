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
            f"{_count(copies, 'pair')} of clips in different splits are the same audio ({_names(pairs)}). Keep one.",
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
    for one in card.sounds.classes:
        if one.lost.median is not None and one.lost.median >= QUARTER:
            amount = "half the energy or more" if one.lost.median >= HALF else f"{one.lost.median:.0%} of the energy"
            yield (
                "must" if one.lost.median >= HALF else "should",
                f"{amount} of {one.label or 'clips without a label'} lies above 8 kHz (median of "
                f"{_count(range(one.lost.clips), 'clip')}): a 16 kHz encoder cannot hear it. Slow the recordings "
                "down, or expect this class to be poor.",
            )


def _lost_band_not_known(card: Card) -> _Said:
    known, measured = card.sounds.all.lost.clips, card.sounds.all.clips
    if known < measured:
        which = "no file has" if known == 0 else f"only {known} of {measured} clips have"
        yield (
            "know",
            f"{which} a rate above 16 kHz: what the recordings had above 8 kHz is gone from the others, and how much "
            "that was is not known. Make the card of the original recordings if you have them.",
        )


def _narrow_band(card: Card) -> _Said:
    named = [one for one in card.sounds.classes if one.label]
    narrow = [one for one in named if one.narrow * 2 >= one.clips > 0]
    if narrow:
        told = (f"{one.label} (up to {one.top_hz or 0:.0f} Hz)" for one in narrow)
        reason = "They were recorded at a lower rate, cut by a codec, or are low sounds."
        shortcut = " A model can tell them from the others by the band alone." if len(narrow) < len(named) else ""
        yield (
            "should",
            f"{_count(narrow, 'class')} use less than 80 % of the band that their rate allows in half of their clips "
            f"or more: {_names(told)}. {reason}{shortcut}",
        )


def _few_clips(card: Card) -> _Said:
    for one in card.counts.corpora:
        if one.few_clips:
            yield "should", f"{one.corpus}: {_count(one.few_clips, 'class')} with few clips: {_names(one.few_clips)}."


def _few_groups(card: Card) -> _Said:
    for one in card.counts.corpora:
        if one.few_groups:
            yield (
                "should",
                f"{one.corpus}: {_count(one.few_groups, 'class')} with fewer than three groups (recordings, speakers "
                f"or days), one for each split: {_names(one.few_groups)}.",
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
    yield from _faulty(
        card, card.sounds.all.clipped, "clipped (0.1 % of samples or more at full scale)", "Record lower."
    )


def _silence(card: Card) -> _Said:
    yield from _faulty(
        card,
        card.sounds.all.mostly_silent,
        "silent (below -60 dBFS) for nine tenths of their length",
        "Cut the clips to the sound, or leave them out.",
    )


def _padding(card: Card) -> _Said:
    zero = card.sounds.all.zero
    if zero is not None and zero >= PADDED:
        yield (
            "know",
            f"{zero:.0%} of the median clip is digital silence, as of padding: it is paid for and says nothing.",
        )


def _offset(card: Card) -> _Said:
    yield from _faulty(card, card.sounds.all.offset, "off zero by 1 % of full scale or more", "Check the recorder.")


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
        yield "know", f"{_count(copies, 'pair')} of clips in the same split are the same audio: they count twice."


RULES: Sequence[Callable[[Card], _Said]] = (
    _torn_groups,
    _copies_across_splits,
    _leakage,
    _missing_splits,
    _unreadable,
    _lost_band,
    _quarantine,
    _narrow_band,
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
        yield "should", f"{clips} of {measured} clips are {what}. {remedy}"


def _count(items: Sequence[object] | set[str], noun: str) -> str:
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{len(items)} {noun if len(items) == 1 else plural}"


def _names(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _NAMES} more" if len(listed) > _NAMES else ""
    return ", ".join(listed[:_NAMES]) + more
