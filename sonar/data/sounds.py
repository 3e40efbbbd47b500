"""Sound generators of the synthetic corpora: pure, vectorised, labelled by construction; 16 kHz.

A sound is a function of a `Take`, with which its pitch and tempo scale; synth.py makes tables of them.

Shapes: T samples of a clip, K samples of one event, E events.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from sonar.data.audio import SAMPLE_RATE, seconds_to_samples

_NYQUIST_HZ = SAMPLE_RATE / 2
_VOWELS_HZ = ((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480), (570, 840, 2410))
_FORMANT_WIDTH_HZ = np.array([90.0, 120.0, 180.0])


class Take(NamedTuple):
    """One performance of a sound: its randomness, length, and factors of pitch and tempo around 1."""

    rng: np.random.Generator
    num_samples: int
    pitch: float
    tempo: float

    @property
    def seconds(self) -> np.ndarray:
        """(T,) float64 time of every sample, s."""
        return np.arange(self.num_samples) / SAMPLE_RATE


Sound = Callable[[Take], np.ndarray]


class Prosody(NamedTuple):
    """How an emotion speaks: pitch and its contour, tempo, unevenness, spectral tilt in dB per octave."""

    pitch_hz: float
    contour: Sequence[float]
    syllables_per_s: float
    unevenness: float
    tilt_db: float


def tone(
    take: Take,
    hz: float,
    partials: Sequence[float] = (1.0,),
    *,
    glide: Sequence[float] = (1.0,),
    vibrato: tuple[float, float] = (0.0, 0.0),
) -> np.ndarray:
    """(T,) harmonics of `hz` times a `glide` contour; `partials` are amplitudes, `vibrato` is (Hz, share)."""
    place = np.linspace(0, len(glide) - 1, take.num_samples)
    contour = np.exp(np.interp(place, np.arange(len(glide)), np.log(glide)))  # (T,)
    rate_hz, depth = vibrato
    swing = 2 * np.pi * rate_hz * take.tempo * take.seconds + take.rng.uniform(0, 2 * np.pi)
    frequency = hz * take.pitch * contour * (1 + depth * np.sin(swing))
    phase = 2 * np.pi * np.cumsum(frequency) / SAMPLE_RATE
    wave = np.zeros(take.num_samples)
    below, harmonic, twice_cos = np.zeros(take.num_samples), np.sin(phase), 2 * np.cos(phase)
    for number, amplitude in enumerate(partials, start=1):
        in_band = number * frequency.max() < _NYQUIST_HZ or number * frequency < _NYQUIST_HZ
        wave += amplitude * harmonic * in_band
        # sin (k + 1) x = 2 cos x sin k x - sin (k - 1) x
        below, harmonic = harmonic, twice_cos * harmonic - below
    return wave


def noise(take: Take, low_hz: float, high_hz: float, tilt_db: float = 0.0) -> np.ndarray:
    """(T,) Gaussian noise of unit power in a band that the pitch moves, tilted in dB per octave."""
    hz = np.fft.rfftfreq(take.num_samples, 1 / SAMPLE_RATE)
    octave = np.log2(np.maximum(hz, 20) / (low_hz * take.pitch))
    band = (hz >= low_hz * take.pitch) & (hz <= high_hz * take.pitch)
    real, imaginary = take.rng.standard_normal((2, len(hz)))
    spectrum = (real + 1j * imaginary) * band * 10 ** (tilt_db * octave / 20)
    return unit_power(np.fft.irfft(spectrum, take.num_samples))


def unit_power(wave: np.ndarray) -> np.ndarray:
    """(T,) the wave scaled to a mean square of 1; silence stays."""
    power = np.sqrt(np.mean(wave**2))
    return wave / power if power > 0 else wave


def sum_of(waves: Sequence[np.ndarray]) -> np.ndarray:
    """(T,) the waves added."""
    total: np.ndarray = np.sum(waves, axis=0)
    return total


def decay(take: Take, time_s: float) -> np.ndarray:
    """(T,) exponential decay with a 2 ms attack."""
    return np.minimum(1, take.seconds / 0.002) * np.exp(-take.seconds / time_s)


def swell(take: Take) -> np.ndarray:
    """(T,) half a sine: soft attack and release."""
    return np.sin(np.pi * (np.arange(take.num_samples) + 0.5) / take.num_samples)


def beat(take: Take, rate_hz: float, depth: float = 1.0) -> np.ndarray:
    """(T,) amplitude modulation between 1 - depth and 1 at the take's tempo."""
    phase = 2 * np.pi * rate_hz * take.tempo * take.seconds + take.rng.uniform(0, 2 * np.pi)
    return 1 - depth * (0.5 + 0.5 * np.cos(phase))


def drift(take: Take, rate_hz: float) -> np.ndarray:
    """(T,) slow random gain in [0.1, 1]."""
    points = max(2, round(take.num_samples / SAMPLE_RATE * rate_hz * take.tempo) + 1)
    return np.interp(np.linspace(0, points - 1, take.num_samples), np.arange(points), take.rng.uniform(0.1, 1, points))


def repeat(take: Take, event: Sound, length_s: float, rate_hz: float, jitter: float = 0.1) -> np.ndarray:
    """(T,) an event at a regular rate; jitter is a share of the interval, and 1 means random times."""
    length = min(take.num_samples, max(16, seconds_to_samples(length_s / take.tempo)))
    wave = event(take._replace(num_samples=length))  # (K,)
    rate = rate_hz * take.tempo
    count = max(1, int(take.num_samples / SAMPLE_RATE * rate))
    if jitter >= 1:
        starts = take.rng.uniform(0, 1, count) * take.num_samples  # (E,)
    else:
        steps = np.arange(count) + take.rng.uniform(0, 0.5) + jitter * take.rng.uniform(-0.5, 0.5, count)
        starts = np.abs(steps) * SAMPLE_RATE / rate
    impulses = np.zeros(take.num_samples)
    np.add.at(impulses, np.minimum(starts.astype(int), take.num_samples - 1), take.rng.uniform(0.4, 1, count))
    size = 2 * take.num_samples
    return np.fft.irfft(np.fft.rfft(impulses, size) * np.fft.rfft(wave, size), size)[: take.num_samples]


def melody(take: Take, note: Sound, notes_per_s: float = 2.5) -> np.ndarray:
    """(T,) notes of a pentatonic scale, one after the other."""
    count = max(2, round(take.num_samples / SAMPLE_RATE * notes_per_s * take.tempo))
    ends = np.linspace(0, take.num_samples, count + 1).astype(int)
    steps = take.rng.choice([-7, -5, -3, 0, 2, 4, 7, 9], count)
    notes = [
        note(take._replace(num_samples=int(length), pitch=take.pitch * 2 ** (step / 12)))
        for length, step in zip(np.diff(ends), steps, strict=True)
    ]
    return np.concatenate(notes)


def clicks(take: Take, low_hz: float, rate_hz: float, jitter: float = 1.0) -> np.ndarray:
    """(T,) unit power: bursts of 3 ms above `low_hz`."""
    return unit_power(repeat(take, lambda s: noise(s, low_hz, 7000) * decay(s, 0.003), 0.02, rate_hz, jitter))


def blips(take: Take) -> np.ndarray:
    """(T,) unit power: short rising tones at random times, as of bubbles."""
    return unit_power(repeat(take, lambda s: tone(s, 900, glide=(0.8, 1.5)) * swell(s), 0.03, 30, 1))


def bell(take: Take, hz: float, ratio: float, index: float) -> np.ndarray:
    """(T,) frequency-modulated bell whose brightness decays with it."""
    envelope = decay(take, 0.25)
    phase = 2 * np.pi * hz * take.pitch * take.seconds
    return envelope * np.sin(phase + index * envelope * np.sin(ratio * phase))


def pluck(take: Take, hz: float) -> np.ndarray:
    """(T,) plucked string: higher partials die sooner."""
    return sum_of([tone(take, hz * k, (1 / k,)) * decay(take, 0.5 / k) for k in range(1, 9)])


def speech(take: Take, prosody: Prosody) -> np.ndarray:
    """(T,) syllables of glottal pulses through three formants each."""
    count = max(2, round(take.num_samples / SAMPLE_RATE * prosody.syllables_per_s * take.tempo))
    ends = np.linspace(0, take.num_samples, count + 1).astype(int)
    pitch_hz = prosody.pitch_hz * take.pitch
    place = np.linspace(0, len(prosody.contour) - 1, take.num_samples)
    contour = np.interp(place, np.arange(len(prosody.contour)), prosody.contour)
    shimmer = 1 + prosody.unevenness * (drift(take, 2 * prosody.syllables_per_s) - 0.55)
    cycles = np.cumsum(pitch_hz * contour * shimmer) / SAMPLE_RATE
    pulses = np.diff(np.floor(cycles), prepend=0.0)  # (T,) 1 where a cycle begins, else 0
    pulses += 0.02 * take.rng.standard_normal(take.num_samples)
    tract = take.rng.uniform(0.9, 1.1)
    wave = np.zeros(take.num_samples)
    for begin, end in pairwise(ends):
        formants = np.array(_VOWELS_HZ[take.rng.integers(len(_VOWELS_HZ))]) * tract
        voiced = take._replace(num_samples=int(end - begin))
        wave[begin:end] = _vowel(pulses[begin:end], formants, prosody.tilt_db) * swell(voiced)
        wave[begin:end] *= 1 + prosody.unevenness * take.rng.uniform(-1, 1)
    return wave


def _vowel(source: np.ndarray, formants_hz: np.ndarray, tilt_db: float) -> np.ndarray:
    """(K,) pulses through resonances at the formants and a spectral tilt."""
    hz = np.fft.rfftfreq(len(source), 1 / SAMPLE_RATE)
    offset = (hz[:, None] - formants_hz) / _FORMANT_WIDTH_HZ  # (K // 2 + 1, 3)
    tilt = 10 ** (tilt_db * np.log2(np.maximum(hz, 60) / 500) / 20)
    return np.fft.irfft(np.fft.rfft(source) * (1 / (1 + offset**2)).sum(axis=1) * tilt, len(source))


def saw(count: int, power: float = 1.0) -> tuple[float, ...]:
    """Amplitudes of `count` partials that fall with their number."""
    return tuple(k**-power for k in range(1, count + 1))
