"""Spectrograms of a few clips of each class, at the file's own rate, as PNG in a data URI.

Shapes: T samples, F frames, Q frequency bins.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import NamedTuple

import numpy as np
from PIL import Image
from plotly.colors import hex_to_rgb, sequential

from sonar.data.audio import AudioError
from sonar.data.card_counts import by_class
from sonar.data.card_signal import ENCODER_HZ, open_part
from sonar.data.guard import Guard
from sonar.data.manifest import Clip

WIDTH, HEIGHT = 320, 160  # pixels
RANGE_DB = 70.0  # below the strongest point: black
LONGEST_S = 5.0  # shown: the loudest part of what is read
READ_S = 30.0
MAX_PICTURES = 150  # of a page, about 40 KB each
_FRAME_S = 0.03  # rounded to a power of two samples


class Picture(NamedTuple):
    """A spectrogram: frequency upwards from 0, time to the right.

    Attributes:
        clip_id: of the clip.
        uri: `data:image/png;base64,...`.
        start_s: where the picture begins in the clip.
        seconds: how much it shows.
        top_hz: its upper edge, half the sample rate.
    """

    clip_id: str
    uri: str
    start_s: float
    seconds: float
    top_hz: float


def draw_classes(
    clips: Sequence[Clip], per_class: int, *, workers: int | None = None
) -> dict[tuple[str, str], list[Picture | AudioError]]:
    """Pictures of the largest classes, by (corpus, label); a clip that cannot be read gives its error.

    Args:
        clips: of all classes.
        per_class: pictures of each, of different groups where there are as many.
        workers: processes; None: one for each CPU.
    """
    classes = by_class(clips)
    largest = sorted(classes, key=lambda name: (-len(classes[name]), name))[: MAX_PICTURES // max(1, per_class)]
    chosen = [(name, clip) for name in sorted(largest) for clip in choose(classes[name], per_class)]
    pictures: dict[tuple[str, str], list[Picture | AudioError]] = {name: [] for name, _ in chosen}
    with Guard(workers=workers) as guard:
        for (name, _), picture in zip(chosen, guard.map(draw_clip, (clip for _, clip in chosen)), strict=True):
            pictures[name].append(picture)
    return pictures


def choose(clips: Iterable[Clip], count: int) -> list[Clip]:
    """So many of the clips, the same ones every time: as it were at random, and of as many groups as possible."""
    ordered = sorted(clips, key=lambda clip: (clip.sha256, clip.clip_id))
    first_of_group: Mapping[str, Clip] = {clip.group: clip for clip in reversed(ordered)}
    firsts = {clip.clip_id for clip in first_of_group.values()}
    return sorted(ordered, key=lambda clip: clip.clip_id not in firsts)[:count]


def draw_clip(clip: Clip) -> Picture:
    """The loudest part of the beginning of a clip.

    Raises:
        AudioError: it cannot be read.
    """
    with open_part(clip.path, clip.start_s, min(clip.duration_s, READ_S)) as part:
        rate = part.sample_rate
        waveform = np.concatenate(
            [np.empty(0, dtype=np.float32), *(block.mean(axis=1) for block in part.blocks)]
        )  # (T,)
    if len(waveform) == 0:
        raise AudioError("the file ends before the clip begins", "truncated")
    begin = _loudest(waveform, round(LONGEST_S * rate))
    shown = waveform[begin : begin + round(LONGEST_S * rate)]
    return Picture(clip.clip_id, _png(spectrogram(shown, rate)), begin / rate, len(shown) / rate, rate / 2)


def picture_sections(
    pictures: Mapping[tuple[str, str], Sequence[Picture | AudioError]], *, num_classes: int, with_corpus: bool
) -> Iterator[str]:
    """The pictures as HTML, a section for each class; every name in it is escaped.

    Args:
        pictures: by (corpus, label).
        num_classes: that there are, drawn or not.
        with_corpus: whether its name stands before the class.
    """
    yield (
        f"<p>A few clips of {len(pictures)} of {num_classes} classes: their loudest 5 s, frequency from 0 to half the "
        "sample rate, 70 dB from black to yellow. A 16 kHz encoder cannot hear what lies above the dashed line.</p>"
    )
    for (corpus, label), drawn in pictures.items():
        name = label or "(no label)"
        title = f"{corpus}: {name}" if with_corpus else name
        figures = "".join(_figure(one, name) for one in drawn)
        yield f'<h3>{escape(title)}</h3><div class="pictures">{figures}</div>'


def spectrogram(waveform: np.ndarray, rate: int) -> np.ndarray:
    """(T,) -> (Q, F) float32 dB below the strongest point, at least -70, low frequencies first; silence is all -70."""
    length = 2 ** round(math.log2(rate * _FRAME_S))
    padded = np.pad(waveform, length // 2)
    hop = max(1, len(waveform) // WIDTH)
    frames = np.lib.stride_tricks.sliding_window_view(padded, length)[::hop]  # (F, length)
    power = np.abs(np.fft.rfft(frames * np.hanning(length).astype(np.float32), axis=1)).T ** 2  # (Q, F)
    if power.max() == 0:
        return np.full(power.shape, -RANGE_DB, dtype=np.float32)
    with np.errstate(divide="ignore"):  # of points that are exactly 0
        decibels = 10 * np.log10(power / power.max())
    return np.maximum(decibels, -RANGE_DB).astype(np.float32)


def _figure(picture: Picture | AudioError, name: str) -> str:
    """A picture of the class `name` as HTML, with a line at 8 kHz where it reaches higher."""
    if isinstance(picture, AudioError):
        return f"<figure>cannot be drawn: {escape(str(picture))}</figure>"
    height = 100 * ENCODER_HZ / picture.top_hz
    line = f'<i style="bottom:{height:.2f}%">8 kHz</i>' if height < 100 else ""
    return (
        f'<figure><div class="spectrogram"><img src="{picture.uri}" alt="Spectrogram, {escape(name)}">{line}</div>'
        f"<figcaption>{escape(picture.clip_id)} · {picture.seconds:.1f} s from {picture.start_s:.1f} s · "
        f"0 to {picture.top_hz / 1000:g} kHz</figcaption></figure>"
    )


def _loudest(waveform: np.ndarray, length: int) -> int:
    """Where the `length` samples with the most energy begin."""
    if len(waveform) <= length:
        return 0
    energy = np.concatenate([[0.0], np.cumsum(np.square(waveform, dtype=np.float64))])
    return int(np.argmax(energy[length:] - energy[:-length]))


def _png(decibels: np.ndarray) -> str:
    levels = np.rint((decibels[::-1] / RANGE_DB + 1) * 255).astype(np.uint8)  # high frequencies on top
    image = Image.fromarray(levels).resize((WIDTH, HEIGHT), Image.Resampling.BOX)
    image.putpalette(_PALETTE)
    file = io.BytesIO()
    image.save(file, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _palette() -> list[int]:
    """256 colours, as red, green, blue."""
    stops = np.asarray([hex_to_rgb(colour) for colour in sequential.Inferno], dtype=float)  # (stops, 3)
    places = np.linspace(0, len(stops) - 1, 256)
    channels = [np.interp(places, np.arange(len(stops)), stops[:, channel]) for channel in range(3)]
    return np.rint(np.stack(channels, axis=1)).astype(int).ravel().tolist()


_PALETTE = _palette()
