"""A domain card as one HTML file that needs nothing else; the audio itself is not in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape

from sonar.card_pictures import Picture, picture_sections
from sonar.data.audio import AudioError
from sonar.data.card_copies import Copy
from sonar.data.card_schema import BadFile, Card
from sonar.data.card_sound import Sound
from sonar.data.manifest import SPLITS
from sonar.page import bar, cell, number, page, share, table

SHOWN = 50  # rows of a list of files or pairs
_TITLE_NAMES = 3
_STYLE = """
h2 { margin-top: 2em } .lead { font-size: 17px }
.tiles { display: flex; flex-wrap: wrap; gap: 12px } .tiles div { background: #f4f6f8; padding: 10px 16px }
.tiles b { display: block; font-size: 22px } 
.advice { list-style: none; padding: 0 } .advice li { border-left: 5px solid #9aa3ad; margin: 8px 0; padding: 2px 12px }
.advice .must { border-color: #c0392b } .advice .should { border-color: #e08a1e }
.histogram { display: flex; align-items: flex-end; height: 150px; gap: 4px; margin-bottom: 46px; max-width: 700px }
.histogram div { flex: 1; background: #2f6fb2; position: relative; min-height: 1px }
.histogram span { position: absolute; left: 0; right: 0; text-align: center; font-size: 12px }
.histogram .many { top: -20px } .histogram .from { bottom: -22px }
.pictures { display: flex; flex-wrap: wrap; gap: 12px } figure { margin: 0; width: 320px; font-size: 12px }
.spectrogram { position: relative } .spectrogram img { display: block; width: 320px; height: 160px; background: #000 }
.spectrogram i { position: absolute; left: 0; right: 0; border-top: 1px dashed #7fdfff; color: #7fdfff;
  font-size: 10px; padding-left: 3px; text-shadow: 0 0 3px #000, 0 0 3px #000 }
figcaption { overflow-wrap: anywhere; color: #444 } small { color: #666 }
"""
_Pictures = Mapping[tuple[str, str], Sequence[Picture | AudioError]]


def card_page(card: Card, pictures: _Pictures) -> str:
    """The page as text; every name in it is escaped.

    Args:
        card: what is told.
        pictures: a few spectrograms of classes, by (corpus, label); a clip that cannot be read is told with its error.
    """
    sections = [
        f"<h1>{escape(_title(card))}</h1>",
        _summary(card),
        "<h2>What to do</h2>",
        _advice(card),
        "<h2>Classes</h2>",
        _classes(card),
        "<h2>Band: what a 16 kHz encoder hears</h2>",
        f'<p class="lead">{escape(card.sounds.verdict)}</p>',
        _band(card),
        "<h2>Level and silence</h2>",
        _levels(card),
        "<h2>Lengths and formats</h2>",
        _lengths(card),
        "<h2>Copies, leakage, torn groups</h2>",
        *_copies(card),
        "<h2>Files left out</h2>",
        _quarantine(card),
        "<h2>Spectrograms</h2>",
        *picture_sections(pictures, num_classes=len(card.counts.classes), with_corpus=len(card.counts.corpora) > 1),
        _reading(),
    ]
    return page(_title(card), sections, style=_STYLE)


def _title(card: Card) -> str:
    names = [one.corpus for one in card.counts.corpora]
    more = f" and {len(names) - _TITLE_NAMES} more" if len(names) > _TITLE_NAMES else ""
    return f"Domain card: {', '.join(names[:_TITLE_NAMES])}{more}"


def _summary(card: Card) -> str:
    counts, copies = card.counts, card.copies
    lost = card.sounds.all.lost.median
    tiles = {
        "clips": f"{counts.all.clips:,}",
        "hours": f"{counts.all.hours:.2f}",
        "classes": str(sum(one.classes for one in counts.corpora)),
        "groups": f"{counts.all.groups:,}",
        "energy above 8 kHz": "not known" if lost is None else f"{lost:.0%}",
        "copies across splits": str(len(copies.across_splits)),
        "torn groups": str(len(counts.torn_groups)),
        "left out": "not scanned" if card.quarantine is None else str(len(card.quarantine)),
    }
    if card.origin.against:
        tiles["shared with others"] = str(len(copies.against))
    shown = "".join(f"<div><b>{escape(value)}</b>{escape(name)}</div>" for name, value in tiles.items())
    drawn = "" if card.origin.seed is None else f", drawn from all {counts.all.clips} by seed {card.origin.seed}"
    made = f" Splits were made here for {card.origin.splits_made} clips." if card.origin.splits_made else ""
    against = f" Held against {escape(', '.join(card.origin.against))}." if card.origin.against else ""
    return (
        f'<div class="tiles">{shown}</div><p><small>{escape(card.origin.path)}, clips {card.origin.manifest_hash}: the '
        f"audio of {card.origin.measured} clips was read{drawn}; {len(card.unreadable)} could not be read."
        f"{made}{against}</small></p>"
    )


def _advice(card: Card) -> str:
    if not card.advice:
        return "<p>Nothing: no rule found a fault.</p>"
    items = (f'<li class="{one.weight}"><b>{one.weight}</b> · {escape(one.text)}</li>' for one in card.advice)
    return f'<ul class="advice">{"".join(items)}</ul>'


def _classes(card: Card) -> str:
    lines = []
    for one in card.counts.corpora:
        balance = (
            f"{one.classes} classes, as even as {one.effective_classes:.1f} classes of one size; the largest has "
            f"{one.largest_to_smallest:.1f} times the clips of the smallest"
            if one.effective_classes is not None
            else "no labels"
        )
        lines.append(f"<p><b>{escape(one.corpus)}</b>: {balance}.</p>")
    most = max(one.all.clips for one in card.counts.classes)
    rows = (
        [
            cell(one.corpus),
            cell(one.label or "(no label)"),
            bar(one.all.clips, one.all.clips / most, f"{one.all.clips:,}"),
            *(cell(one.splits[split].clips) for split in SPLITS),
            number(one.all.hours * 60, 1),
            cell(one.all.groups),
        ]
        for one in card.counts.classes
    )
    return "".join(lines) + table(["corpus", "class", "clips", *SPLITS, "minutes", "groups"], rows)


def _band(card: Card) -> str:
    rows = (
        [
            cell(name),
            cell("not known") if one.lost.median is None else share(one.lost.median),
            cell(one.lost.clips),
            cell(one.lost.half),
            number(_kilo(one.energy_99_hz), 2),
            number(_kilo(one.top_hz), 2),
            share(one.narrow / one.clips if one.clips else None),
        ]
        for name, one in _sounds(card)
    )
    columns = ["class", "energy above 8 kHz", "known of clips", "losing half", "99 % below, kHz", "used up to, kHz"]
    return table([*columns, "narrow clips"], rows)


def _levels(card: Card) -> str:
    rows = (
        [
            cell(name),
            number(one.rms_dbfs, 1),
            number(one.peak_dbfs, 1),
            share(one.silent),
            share(one.zero),
            *map(cell, (one.mostly_silent, one.clipped, one.offset)),
        ]
        for name, one in _sounds(card)
    )
    columns = ["class", "level, dBFS", "peak, dBFS", "silence", "digital silence", "clips all silent"]
    return table([*columns, "clips clipped", "clips off zero"], rows)


def _lengths(card: Card) -> str:
    lengths = card.counts.lengths
    most = max(lengths.clips)
    bars = "".join(
        f'<div style="height:{100 * many / most:.1f}%"><span class="many">{many or ""}</span>'
        f'<span class="from">{edge:g} s</span></div>'
        for edge, many in zip(lengths.edges_s, lengths.clips, strict=True)
    )
    quantiles = table(
        ["share of the clips", *(f"{float(at):.0%}" for at in lengths.quantiles_s)],
        [[cell("last at most, s"), *(number(seconds, 2) for seconds in lengths.quantiles_s.values())]],
    )
    formats = table(
        ["sample rate, kHz", "channels", "clips", "hours"],
        (
            [cell(one.sample_rate / 1000), cell(one.channels), cell(one.clips), number(one.hours, 2)]
            for one in card.counts.formats
        ),
    )
    return f'<p>Clips by length:</p><br><div class="histogram">{bars}</div>{quantiles}<br>{formats}'


def _copies(card: Card) -> Iterator[str]:
    copies = card.copies
    yield _pairs("in different splits", copies.across_splits)
    yield _pairs("in the same split", copies.within_splits)
    for other in card.origin.against:
        yield _pairs(f"shared with {other}", [one for one in copies.against if one.other == other])
    torn = card.counts.torn_groups
    yield f"<p>Groups in more than one split: {len(torn)}.</p>"
    rows = ([cell(one.group), *(cell(one.splits.get(split, 0)) for split in SPLITS)] for one in torn[:SHOWN])
    yield table(["group", *SPLITS], rows) if torn else ""


def _pairs(which: str, copies: Sequence[Copy]) -> str:
    text = f"<p>Pairs of clips that are the same audio, {escape(which)}: {len(copies)}.{_first(copies)}</p>"
    rows = (
        [*map(cell, (one.kind, one.clip_id, one.split, one.other_clip_id, one.other_split)), share(one.error_rate)]
        for one in copies[:SHOWN]
    )
    return text + (table(["same", "clip", "split", "clip", "split", "bits that differ"], rows) if copies else "")


def _quarantine(card: Card) -> str:
    parts = []
    if card.quarantine is None:
        parts.append("<p>Not scanned: a manifest does not say what a scan left out.</p>")
    else:
        parts.append(_files("left out by the scan", card.quarantine))
    if card.unreadable:
        parts.append(_files("that could not be read for this card", card.unreadable))
    return "".join(parts)


def _files(which: str, files: Sequence[BadFile]) -> str:
    rows = (map(cell, (one.path, one.reason, one.sha256[:12])) for one in files[:SHOWN])
    text = f"<p>Files {escape(which)}: {len(files)}.{_first(files)}</p>"
    return text + (table(["file", "reason", "sha256"], rows) if files else "")


def _reading() -> str:
    return """<h2>How to read it</h2><ul>
<li><b>energy above 8 kHz</b>: of the median clip, by Welch's spectrum at the file's own rate. Not known where no file
has a rate above 16 kHz: what was there is gone.</li>
<li><b>used up to</b>: the highest frequency within 80 dB of the strongest. Far below half the sample rate it tells of a
lossy codec, a doubled rate, or a low sound; <b>narrow</b>: below 80 % of half the rate.</li>
<li><b>level</b>: a sine at full scale has -3 dBFS. <b>silence</b>: share of frames below -60 dBFS; <b>digital
silence</b>: of samples that are exactly 0. <b>all silent</b>: nine frames in ten. <b>clipped</b>: 0.1 % of the samples
or more repeat at full scale. <b>off zero</b>: their mean is 1 % of full scale or more.</li>
<li><b>groups</b>: recordings, speakers or days; the clips of one belong in one split.</li></ul>"""


def _sounds(card: Card) -> Iterator[tuple[str, Sound]]:
    yield "all", card.sounds.all
    for one in card.sounds.classes:
        name = one.label or "(no label)"
        yield name if len(card.counts.corpora) == 1 else f"{one.corpus}: {name}", one


def _kilo(hertz: float | None) -> float | None:
    return None if hertz is None else hertz / 1000


def _first(items: Sequence[object]) -> str:
    return f" The first {SHOWN} are shown." if len(items) > SHOWN else ""
