"""A domain card for the terminal, within 80 columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich import box
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from sonar.data.card_schema import Card
from sonar.data.manifest import SPLITS

NOT_KNOWN = "-"
_LENGTHS = {"0.0": "least", "0.5": "median", "0.95": "95 %", "1.0": "most"}
_COLOURS = {"must": "bold red", "should": "yellow", "know": "cyan"}


def card_parts(card: Card) -> Iterator[Table | Text | Padding]:
    """What the terminal shows: the corpus, its classes, and what to do."""
    yield from (Text(line) for line in _head(card))
    yield _corpora(card)
    yield _classes(card)
    yield _sounds(card)
    yield from (Text(line) for line in _findings(card))
    yield Text("\nWhat to do" if card.advice else "\nNothing to do", style="bold")
    for one in card.advice:
        yield Text.assemble((one.weight, _COLOURS[one.weight]), f" ({one.rule})")
        yield Padding(Text(one.text), (0, 0, 0, 2))


def share(value: float | None) -> str:
    """A share as percent."""
    return NOT_KNOWN if value is None else f"{value:.1%}"


def number(value: float | None, digits: int = 0) -> str:
    """A number that may not be known."""
    return NOT_KNOWN if value is None else f"{value:.{digits}f}"


def _head(card: Card) -> Iterator[str]:
    counts, origin = card.counts, card.origin
    yield (
        f"{origin.path}: {counts.all.clips} clips in {counts.files} files, {counts.all.hours:.2f} h, "
        f"{counts.all.groups} groups; clips {origin.manifest_hash}"
    )
    drawn = "" if origin.seed is None else f", drawn by seed {origin.seed}"
    made = f"; splits made for {origin.splits_made} clips" if origin.splits_made else ""
    yield f"audio of {origin.measured} clips read{drawn}; {len(card.unreadable)} cannot be read{made}"
    quantiles = counts.lengths.quantiles_s
    yield "seconds: " + ", ".join(f"{name} {quantiles[at]:.2f}" for at, name in _LENGTHS.items())
    formats = (f"{one.sample_rate} Hz, {one.channels} ch: {one.clips}" for one in counts.formats)
    yield "clips by format: " + "; ".join(formats)


def _corpora(card: Card) -> Table:
    table = _table("Corpora", ["corpus", "clips", "hours", "groups", "classes", "as even", "max/min"])
    for one in card.counts.corpora:
        even, ratio = number(one.effective_classes, 1), number(one.largest_to_smallest, 1)
        amount = (one.all.clips, number(one.all.hours, 2), one.all.groups)
        _add(table, one.corpus, *amount, one.classes, even, ratio)
    return table


def _classes(card: Card) -> Table:
    table = _table("Classes", ["class", *SPLITS, "minutes", "groups"])
    for one in card.counts.classes:
        splits = (one.splits[split].clips for split in SPLITS)
        _add(table, _name(card, one.corpus, one.label), *splits, number(one.all.hours * 60, 1), one.all.groups)
    return table


def _sounds(card: Card) -> Table:
    columns = ["class", "> 8 kHz", "99 % Hz", "top Hz", "narrow", "dBFS", "silent", "clipped"]
    table = _table("Sound, medians; narrow and clipped: clips", columns)
    for one in (*card.sounds.classes, card.sounds.all):
        name = "all" if one is card.sounds.all else _name(card, one.corpus, one.label)
        band = (share(one.lost.median), number(one.energy_99_hz), number(one.top_hz), one.narrow)
        _add(table, name, *band, number(one.rms_dbfs, 1), share(one.silent), one.clipped)
    return table


def _findings(card: Card) -> Iterator[str]:
    copies = card.copies
    yield card.sounds.verdict
    yield (
        f"copies: {len(copies.across_splits)} pairs across splits, {len(copies.within_splits)} within, "
        f"{len(copies.against)} against other corpora; torn groups: {len(card.counts.torn_groups)}"
    )
    yield "quarantine: " + ("not scanned" if card.quarantine is None else f"{len(card.quarantine)} files")


def _name(card: Card, corpus: str, label: str) -> str:
    return label or "(no label)" if len(card.counts.corpora) == 1 else f"{corpus}/{label or '(no label)'}"


def _table(title: str, columns: Iterable[str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left", no_wrap=place > 0, overflow="fold")
    return table


def _add(table: Table, *cells: object) -> None:
    table.add_row(*(escape(str(cell)) for cell in cells))
