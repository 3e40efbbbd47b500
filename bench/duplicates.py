"""Which planted copies near-duplicate search finds, and what it takes: `python bench/duplicates.py --audio FOLDER`.

Of every corpus some clips are drawn, each is changed in every way of `CHANGES`, and looked for in an index of all clips
of all corpora. Found is a copy whose original is among the matches; a false alarm is a match that is not, and that the
clip itself does not have. Prints Markdown.
"""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import soundfile
import soxr
import typer
from harness import describe, machine, table

from sonar.cli.app import guarded
from sonar.data.audio import SAMPLE_RATE, decode_audio
from sonar.data.corpora import load_corpus
from sonar.data.near_duplicates import Fingerprint, FingerprintIndex, fingerprint

Change = Callable[[np.ndarray], np.ndarray]


class Planted(NamedTuple):
    """A clip that copies are made of: its place among all clips, its corpus and its waveform."""

    place: int
    corpus: str
    waveform: np.ndarray


def encoded(
    waveform: np.ndarray, kind: str, *, sample_rate: int = SAMPLE_RATE, compression: float | None = None
) -> np.ndarray:
    """Through a file of this format and rate, and back."""
    if sample_rate != SAMPLE_RATE:
        waveform = soxr.resample(waveform, SAMPLE_RATE, sample_rate)
    file = io.BytesIO()
    soundfile.write(file, np.clip(waveform, -1, 1), sample_rate, format=kind, compression_level=compression)
    return decode_audio(file.getvalue())


def louder(waveform: np.ndarray, *, decibels: float) -> np.ndarray:
    """At another level, clipped and rounded to 16 bits."""
    scaled = np.clip(waveform * 10 ** (decibels / 20), -1, 1)
    return np.rint(scaled * 32767) / 32767


def cut(waveform: np.ndarray, *, begin: float = 0.0, end: float = 0.0) -> np.ndarray:
    """Without these shares of its length."""
    return waveform[int(begin * len(waveform)) : len(waveform) - int(end * len(waveform))]


def noisy(waveform: np.ndarray, *, decibels: float) -> np.ndarray:
    """With white noise so far below it."""
    noise = np.random.default_rng(0).standard_normal(len(waveform))
    return waveform + noise * 10 ** (-decibels / 20) * np.sqrt(np.mean(waveform**2))


def faster(waveform: np.ndarray, *, share: float) -> np.ndarray:
    """Played faster by this share, its pitch with it."""
    return soxr.resample(waveform, SAMPLE_RATE * (1 + share), SAMPLE_RATE)


CHANGES: dict[str, Change] = {
    "itself": lambda waveform: waveform,
    "Ogg Vorbis": partial(encoded, kind="OGG"),
    "MP3": partial(encoded, kind="MP3"),
    "MP3 at the lowest rate": partial(encoded, kind="MP3", compression=0.95),
    "12 dB louder, clipped": partial(louder, decibels=12),
    "12 dB quieter, 16 bit": partial(louder, decibels=-12),
    "a tenth off the begin": partial(cut, begin=0.1),
    "a fifth off both ends": partial(cut, begin=0.2, end=0.2),
    "0.33 s of silence before": lambda waveform: np.concatenate([np.zeros(5333), waveform]),
    "constant offset 0.05": lambda waveform: waveform + 0.05,
    "white noise at 30 dB": partial(noisy, decibels=30),
    "white noise at 20 dB": partial(noisy, decibels=20),
    "8 kHz": partial(encoded, kind="WAV", sample_rate=8000),
    "22.05 kHz": partial(encoded, kind="WAV", sample_rate=22_050),
    "44.1 kHz": partial(encoded, kind="WAV", sample_rate=44_100),
    "1 % faster": partial(faster, share=0.01),
    "1.5 % faster": partial(faster, share=0.015),
    "2 % faster": partial(faster, share=0.02),
}
MIXED = {"mixed with another clip, 12 dB below": 12.0, "mixed with another clip, as loud": 0.0}


def mixed(one: Planted, other: Planted, decibels: float) -> np.ndarray:
    """A clip, and the other so far below it, as often as it goes into its length."""
    repeated = np.resize(other.waveform, len(one.waveform))
    gain = np.sqrt(np.mean(one.waveform**2) / max(float(np.mean(repeated**2)), 1e-12)) * 10 ** (-decibels / 20)
    return one.waveform + gain * repeated


class Copy(NamedTuple):
    """A changed clip, float32, and the places of the clips that are in it: the planted one first."""

    waveform: np.ndarray
    sources: tuple[int, ...]


def changed(planted: Sequence[Planted], name: str) -> list[Copy]:
    """A copy of every planted clip; what is mixed in comes from the other half of them."""
    copies = []
    for position, one in enumerate(planted):
        other = planted[(position + len(planted) // 2 + 1) % len(planted)]
        is_mixed = name in MIXED
        waveform = mixed(one, other, MIXED[name]) if is_mixed else CHANGES[name](one.waveform)
        sources = (one.place, other.place) if is_mixed else (one.place,)
        copies.append(Copy(np.ascontiguousarray(waveform, dtype=np.float32), sources))
    return copies


class Recall(NamedTuple):
    """Of one change: the share of copies found, percent, by corpus, and matches with clips that are not in them."""

    found: dict[str, float]
    false_alarms: int


def recall(index: FingerprintIndex, planted: Sequence[Planted], copies: Sequence[Copy]) -> Recall:
    """Look for every copy."""
    found: dict[str, list[bool]] = {}
    false_alarms = 0
    for one, copy in zip(planted, copies, strict=True):
        matched = {match.clip for match in index.matches(fingerprint(copy.waveform))}
        known = {match.clip for match in index.matches(fingerprint(one.waveform))}
        found.setdefault(one.corpus, []).append(one.place in matched)
        false_alarms += len(matched - known - set(copy.sources))
    return Recall({corpus: 100 * statistics.mean(hits) for corpus, hits in found.items()}, false_alarms)


def bench(
    audio: Annotated[list[Path], typer.Option(help="Folder of a corpus; again for more.")],
    clips: Annotated[int, typer.Option(min=2, help="Clips of each corpus that copies are made of.")] = 40,
    seed: Annotated[int, typer.Option(help="Of the choice of these clips.")] = 1,
) -> None:
    """Fingerprint all clips, plant the copies, print what is found and what it took."""
    made_by = machine()
    draw = np.random.default_rng(seed)
    prints: list[Fingerprint] = []
    planted: list[Planted] = []
    seconds, hours = 0.0, 0.0
    for folder in audio:
        waveforms = [decode_audio(clip.path) for clip in load_corpus(folder, domain="any").clips]
        chosen = draw.choice(len(waveforms), min(clips, len(waveforms)), replace=False)
        planted += [Planted(len(prints) + int(place), folder.name, waveforms[place]) for place in chosen]
        began = time.process_time()
        prints += [fingerprint(waveform) for waveform in waveforms]
        seconds += time.process_time() - began
        hours += sum(len(waveform) for waveform in waveforms) / SAMPLE_RATE / 3600
    index = FingerprintIndex(prints)
    names = [folder.name for folder in audio]
    rows, searching = [], []
    for name in (*CHANGES, *MIXED):
        copies = changed(planted, name)
        began = time.process_time()
        one = recall(index, planted, copies)
        searching.append((time.process_time() - began) / len(planted))
        rows.append([name, *(f"{one.found[corpus]:.0f}" for corpus in names), str(one.false_alarms)])
    typer.echo("\n".join(table(["copy", *names, "false alarms"], rows)))
    typer.echo(
        f"{len(prints)} clips, {hours:.2f} h: {seconds / hours / 720 * 1000:.0f} ms of a processor to fingerprint 5 s "
        f"of audio; {1000 * statistics.median(searching):.0f} ms to fingerprint and look up a copy and its original.\n"
    )
    typer.echo(describe(made_by))


if __name__ == "__main__":
    guarded(lambda: typer.run(bench))
