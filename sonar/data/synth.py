"""The embedded demo corpora: procedural, labelled, the same bytes under the same seed.

Every clip is a sound of its class (sounds.py) heard through a recording: the clips of one recording share a
pitch range, a tempo, a level, a room noise and a filter, and stand in one split.
"""

from __future__ import annotations

import csv
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from sonar.data.audio import SAMPLE_RATE, seconds_to_samples
from sonar.data.sounds import (
    Prosody,
    Sound,
    Take,
    beat,
    bell,
    blips,
    clicks,
    decay,
    drift,
    melody,
    noise,
    pluck,
    repeat,
    saw,
    speech,
    sum_of,
    swell,
    tone,
    unit_power,
)
from sonar.files import whole_folder

_ODD = (1.0, 0.0, 0.4, 0.0, 0.25, 0.0, 0.15, 0.0, 0.1)
_SOFT = (1.0, 0.35, 0.12)
_BRASS = (0.6, 0.9, 1.0, 0.9, 0.7, 0.6, 0.4, 0.3, 0.2)
_PRIOR: Mapping[str, Sound] = {
    "harmonic_tone": lambda t: tone(t, 260, saw(8)),
    "up_chirp": lambda t: repeat(t, lambda s: tone(s, 900, _SOFT, glide=(0.5, 2)) * swell(s), 0.4, 2),
    "down_chirp": lambda t: repeat(t, lambda s: tone(s, 900, _SOFT, glide=(2, 0.5)) * swell(s), 0.4, 2),
    "am_noise": lambda t: noise(t, 300, 3000) * beat(t, 7),
    "click_train": lambda t: clicks(t, 300, 12, jitter=0.05),
    "fm_bell": lambda t: repeat(t, lambda s: bell(s, 500, 1.4, 4), 0.9, 1.6),
    "band_noise": lambda t: noise(t, 700, 1800),
    "engine": lambda t: tone(t, 45, saw(20, 0.7), vibrato=(1.5, 0.05)) * beat(t, 11, 0.5) + noise(t, 50, 1500, -6),
    "rain": lambda t: clicks(t, 800, 150) + 0.1 * noise(t, 500, 6000),
    "siren": lambda t: tone(t, 800, _ODD, vibrato=(0.8, 0.4)),
    "knock": lambda t: repeat(t, lambda s: (tone(s, 180, _SOFT) + noise(s, 100, 1200)) * decay(s, 0.03), 0.2, 4, 0.3),
    "drone_chord": lambda t: sum_of([tone(t, 130 * r, saw(5)) for r in (1, 1.26, 1.5, 2.0)]),
    "whistle": lambda t: tone(t, 1700, (1, 0.05), vibrato=(5, 0.03)) * drift(t, 3),
    "saw_buzz": lambda t: tone(t, 120, saw(40, 0.6)) * beat(t, 25, 0.3),
    "beeps": lambda t: tone(t, 900, _ODD) * (beat(t, 3.5) > 0.5),
}
_BIO: Mapping[str, Sound] = {
    "trill": lambda t: repeat(t, lambda s: tone(s, 3000, glide=(1.2, 0.9)) * swell(s), 0.05, 13, 0.05),
    "sweep_call": lambda t: repeat(
        t, lambda s: tone(s, 2800, (1, 0.2), glide=(0.6, 1.6, 1.2)) * swell(s), 0.3, 2.2, 0.3
    ),
    "hoot": lambda t: repeat(t, lambda s: tone(s, 420, _SOFT, glide=(1, 0.9)) * swell(s), 0.4, 1.6),
    "croak": lambda t: repeat(t, lambda s: noise(s, 500, 1800) * beat(s, 45) * swell(s), 0.3, 2, 0.2),
    "insect_buzz": lambda t: noise(t, 2800, 5200) * beat(t, 55, 0.9) * drift(t, 2),
    "whale_glide": lambda t: tone(t, 330, _SOFT, glide=(0.6, 1.4, 0.9, 0.5), vibrato=(4, 0.03)) * swell(t),
    "bark": lambda t: repeat(
        t,
        lambda s: (tone(s, 450, saw(10), glide=(0.8, 1.1, 0.7)) + noise(s, 300, 3000)) * swell(s),
        0.18,
        2.4,
    ),
}
_MUSIC: Mapping[str, Sound] = {
    "plucked": lambda t: melody(t, lambda s: pluck(s, 260)),
    "bowed": lambda t: melody(t, lambda s: tone(s, 260, saw(14), vibrato=(5.5, 0.012)) * swell(s) ** 0.5),
    "flute": lambda t: melody(
        t, lambda s: (tone(s, 330, _SOFT, vibrato=(5, 0.008)) + 0.12 * noise(s, 600, 5000)) * swell(s) ** 0.3
    ),
    "brass": lambda t: melody(t, lambda s: tone(s, 260, _BRASS) * swell(s) ** 0.7),
    "bell": lambda t: melody(t, lambda s: bell(s, 400, 2.76, 3)),
    "organ": lambda t: melody(t, lambda s: tone(s, 260, (1, 0.8, 0, 0.6, 0, 0, 0, 0.4)) * swell(s) ** 0.1),
    "reed": lambda t: melody(t, lambda s: tone(s, 260, _ODD) * swell(s) ** 0.4),
}
_SPEECH: Mapping[str, Sound] = {
    "neutral": lambda t: speech(t, Prosody(140, (1.05, 1, 0.95), 4.0, 0.2, -6)),
    "happy": lambda t: speech(t, Prosody(190, (1, 1.4, 1, 1.5), 5.0, 0.4, -4)),
    "sad": lambda t: speech(t, Prosody(120, (1, 0.9, 0.8), 2.6, 0.15, -9)),
    "angry": lambda t: speech(t, Prosody(180, (1.3, 1.1, 1.2, 0.9), 5.5, 0.6, -2)),
    "fear": lambda t: speech(t, Prosody(210, (1, 1.1, 1.1, 1.2), 6.0, 0.3, -6)),
}
_ENV: Mapping[str, Sound] = {
    "wind": lambda t: noise(t, 60, 900, -6) * drift(t, 3) + 0.1 * tone(t, 500, vibrato=(0.7, 0.15)),
    "stream": lambda t: noise(t, 400, 5000, -3) + blips(t),
    "fire": lambda t: clicks(t, 500, 18) + 0.3 * noise(t, 60, 600, -6),
    "crickets": lambda t: repeat(t, lambda s: tone(s, 4200) * beat(s, 35) * swell(s), 0.15, 3.5),
    "traffic": lambda t: noise(t, 50, 1200, -4) * drift(t, 1) + 0.3 * tone(t, 70, saw(10)) * drift(t, 2),
    "footsteps": lambda t: repeat(t, lambda s: noise(s, 80, 2500, -4) * decay(s, 0.03), 0.15, 2, 0.15),
    "waves": lambda t: noise(t, 200, 5000, -4) * beat(t, 0.6) ** 2,
}
SYNTH_CORPORA: Mapping[str, Mapping[str, Sound]] = {
    "prior": _PRIOR,
    "bio": _BIO,
    "music": _MUSIC,
    "speech": _SPEECH,
    "env": _ENV,
}
CLIPS_PER_RECORDING = 3
MAX_RECORDINGS = 15  # of a class: 9 train, 3 valid, 3 test
_COLUMNS = ("file", "label", "split", "source_id")
_FADE_SAMPLES = 80


class Recording(NamedTuple):
    """What the clips of one recording share.

    Attributes:
        source_id: its name.
        split: train, valid or test.
        pitch: factor on every frequency.
        tempo: factor on every rate.
        level_db: mean power of a clip, dBFS.
        snr_db: power of the sound over the room noise.
        noise_tilt_db: of the room noise, per octave.
        tilt_db: of the filter, per octave.
        peak_hz: of the filter.
        peak_db: of the filter; a dip below 0.
    """

    source_id: str
    split: str
    pitch: float
    tempo: float
    level_db: float
    snr_db: float
    noise_tilt_db: float
    tilt_db: float
    peak_hz: float
    peak_db: float


def write_synth_corpus(name: str, folder: Path, *, clips_per_class: int = 48, seed: int = 0) -> Path:
    """Write one synthetic corpus as FLAC files in class folders with a metadata.csv, whole or not at all.

    Args:
        name: one of `SYNTH_CORPORA`.
        folder: to make.
        clips_per_class: at least 3, one recording for each split.
        seed: of everything.

    Returns:
        The folder, for `load_corpus`.

    Raises:
        ValueError: unknown name, or too few clips.
        FileExistsError: the folder exists.
    """
    if name not in SYNTH_CORPORA:
        raise ValueError(f"no synthetic corpus {name!r}; there are {', '.join(SYNTH_CORPORA)}")
    if clips_per_class < 3:
        raise ValueError(f"clips_per_class is {clips_per_class}; it must be >= 3, a recording for each split")
    with whole_folder(folder) as partial, (partial / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(_COLUMNS)
        for label, sound in SYNTH_CORPORA[name].items():
            key = (seed, _key(name), _key(label))
            table.writerows(_write_class(partial, label, sound, clips_per_class, key))
    return folder


def _write_class(
    root: Path, label: str, sound: Sound, num_clips: int, key: tuple[int, ...]
) -> Iterator[tuple[str, str, str, str]]:
    """Write the clips of a class; yields their rows of the table."""
    (root / "audio" / label).mkdir(parents=True)
    num_recordings = min(MAX_RECORDINGS, max(3, num_clips // CLIPS_PER_RECORDING))
    recordings = [
        _draw_recording(label, number, num_recordings, np.random.default_rng((*key, 0, number)))
        for number in range(num_recordings)
    ]
    for number in range(num_clips):
        recording = recordings[number * num_recordings // num_clips]
        file = f"audio/{label}/{recording.source_id}_{number:04d}.flac"
        clip = _record(sound, recording, np.random.default_rng((*key, 1, number)))
        soundfile.write(root / file, clip, SAMPLE_RATE, subtype="PCM_16")
        yield file, label, recording.split, recording.source_id


def _draw_recording(label: str, number: int, num_recordings: int, rng: np.random.Generator) -> Recording:
    held_out = max(1, round(0.2 * num_recordings))  # recordings of valid, and of test
    place = num_recordings - number
    return Recording(
        source_id=f"{label}_r{number:02d}",
        split="test" if place <= held_out else "valid" if place <= 2 * held_out else "train",
        pitch=float(2 ** rng.uniform(-0.4, 0.4)),
        tempo=float(2 ** rng.uniform(-0.4, 0.4)),
        level_db=float(rng.uniform(-36, -18)),
        snr_db=float(rng.uniform(5, 30)),
        noise_tilt_db=float(rng.uniform(-6, 0)),
        tilt_db=float(rng.uniform(-2, 2)),
        peak_hz=float(200 * 2 ** rng.uniform(0, 5)),
        peak_db=float(rng.uniform(-8, 8)),
    )


def _record(sound: Sound, recording: Recording, rng: np.random.Generator) -> np.ndarray:
    """(T,) int16: one clip of 1.7 to 2.3 s, the sound beginning somewhere in its first 0.4 s."""
    num_samples = seconds_to_samples(rng.integers(17, 24) / 10)
    onset = seconds_to_samples(rng.integers(0, 5) / 10)
    take = Take(
        rng,
        num_samples - onset,
        recording.pitch * float(2 ** rng.uniform(-0.15, 0.15)),
        recording.tempo * float(2 ** rng.uniform(-0.1, 0.1)),
    )
    wave = np.zeros(num_samples)
    wave[onset:] = unit_power(sound(take))
    wave[onset : onset + _FADE_SAMPLES] *= np.linspace(0, 1, _FADE_SAMPLES)
    wave = unit_power(_filter(wave, recording))
    room = noise(Take(rng, num_samples, 1.0, 1.0), 60, SAMPLE_RATE / 2, recording.noise_tilt_db)
    wave = unit_power(wave + 10 ** (-recording.snr_db / 20) * room)
    wave *= 10 ** ((recording.level_db + rng.uniform(-3, 3)) / 20)
    return np.round(32767 * wave / max(1.0, float(np.abs(wave).max()))).astype(np.int16)


def _filter(wave: np.ndarray, recording: Recording) -> np.ndarray:
    """(T,) a tilt and one peak or dip, as of a microphone and a room."""
    hz = np.maximum(np.fft.rfftfreq(len(wave), 1 / SAMPLE_RATE), 20)
    peak = np.exp(-0.5 * (np.log2(hz / recording.peak_hz) / 0.5) ** 2)
    gain_db = recording.tilt_db * np.log2(hz / 1000) + recording.peak_db * peak
    return np.fft.irfft(np.fft.rfft(wave) * 10 ** (gain_db / 20), len(wave))


def _key(text: str) -> int:
    """A seed that names the text: classes may be added or moved without a change to the others."""
    return zlib.crc32(text.encode())
