"""Planted copies are found, other recordings are not, and sounds that stand still match nothing."""

import io
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from sonar.data.audio import decode_audio
from sonar.data.corpora import load_corpus
from sonar.data.near_duplicates import (
    FRAME,
    HOP,
    MAX_ERROR_RATE,
    Fingerprint,
    FingerprintIndex,
    fingerprint,
    overlap_error_rate,
)
from sonar.data.synth import SYNTH_CORPORA, write_synth_corpus

RATE = 16_000


class Recordings(NamedTuple):
    """Clips of many sounds, where each was recorded, and an index of them."""

    waveforms: list[np.ndarray]
    groups: list[str]
    fingerprints: list[Fingerprint]
    index: FingerprintIndex


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Recordings:
    root, waveforms, groups = tmp_path_factory.mktemp("synth"), [], []
    for name in SYNTH_CORPORA:
        for clip in load_corpus(write_synth_corpus(name, root / name, clips_per_class=6), domain=name).clips:
            waveforms.append(decode_audio(clip.path))
            groups.append(clip.group)
    fingerprints = [fingerprint(wave) for wave in waveforms]
    return Recordings(waveforms, groups, fingerprints, FingerprintIndex(fingerprints))


def encoded(wave: np.ndarray, kind: str) -> np.ndarray:
    file = io.BytesIO()
    soundfile.write(file, wave, RATE, format=kind)
    file.seek(0)
    return soundfile.read(file, dtype="float32")[0]


def noisy(wave: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal(len(wave)).astype(np.float32)
    return wave + noise * np.float32(10 ** (-30 / 20) * np.sqrt(np.mean(wave**2)))


COPIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "itself": lambda wave: wave,
    "ogg": lambda wave: encoded(wave, "OGG"),
    "mp3": lambda wave: encoded(wave, "MP3"),
    "10 dB quieter, 16 bit": lambda wave: np.rint(wave * 0.316 * 32768).astype(np.float32) / 32768,
    "from 0.27 s on": lambda wave: wave[4321:],
    "from 0.27 s on, ogg, quieter": lambda wave: encoded(0.3 * wave[4321:], "OGG"),
    "noise at 30 dB": noisy,
}


@pytest.mark.parametrize("copy", COPIES)
def test_a_copy_is_found_where_it_was_taken(recordings: Recordings, copy: str) -> None:
    asked = range(0, len(recordings.waveforms), 9)
    missed = []
    for place in asked:
        found = recordings.index.matches(fingerprint(COPIES[copy](recordings.waveforms[place])))
        assert all(match.error_rate <= MAX_ERROR_RATE for match in found)
        begin_s = 4321 / RATE if "from" in copy else 0.0
        if not any(match.clip == place and abs(match.offset_s - begin_s) <= 2 * HOP / RATE for match in found):
            missed.append(recordings.groups[place])
    assert len(missed) <= 0.1 * len(asked), missed


def test_different_recordings_match_nothing_but_themselves(recordings: Recordings) -> None:
    for place, asked in enumerate(recordings.fingerprints):
        assert [match.clip for match in recordings.index.matches(asked)] in ([place], [])


@pytest.mark.slow
def test_in_the_real_packs_only_the_known_pairs_sound_alike(packs: Sequence[Path]) -> None:
    """Ten are the same audio by cross-correlation at the same lag; the finch's are one note of one bird, twice."""
    clips = [clip for pack in packs for clip in load_corpus(pack, domain="any").clips]
    fingerprints = [fingerprint(decode_audio(clip.path)) for clip in clips]
    index = FingerprintIndex(fingerprints)
    pairs = {
        (clips[match.clip].group, clips[place].group)
        for place, asked in enumerate(fingerprints)
        for match in index.matches(asked)
        if clips[match.clip].group < clips[place].group
    }
    assert {group.split("/")[1] for pair in pairs for group in pair} <= {
        "fs28314", "fs30322", "fs151080", "fs151085",
        "gy6or6_gy6or6_baseline_240312_0820.1238", "gy6or6_gy6or6_baseline_260312_0811.3453",
    }  # fmt: skip
    assert len(pairs) <= 3


@pytest.fixture(scope="module")
def real_clips(packs: Sequence[Path]) -> list[np.ndarray]:
    """Every 40th clip of each pack."""
    return [decode_audio(clip.path) for pack in packs for clip in load_corpus(pack, domain="any").clips[::40]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("copy", "least"),
    [("ogg", 0.85), ("mp3", 0.85), ("10 dB quieter, 16 bit", 0.9), ("from 0.27 s on", 0.6), ("noise at 30 dB", 0.6)],
)
def test_most_copies_of_real_clips_are_found(real_clips: list[np.ndarray], copy: str, least: float) -> None:
    """What is missed are short notes and drums; docs/data.md has the shares of each pack."""
    index = FingerprintIndex([fingerprint(wave) for wave in real_clips])
    copies = [index.matches(fingerprint(COPIES[copy](wave))) for wave in real_clips]
    assert np.mean([place in [match.clip for match in found] for place, found in enumerate(copies)]) >= least


def tone(hertz: float, seconds: float = 2.0, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    time = np.arange(round(seconds * RATE)) / RATE
    clean = 0.3 * np.sin(2 * np.pi * hertz * time)
    return (clean + noise * np.random.default_rng(seed).standard_normal(len(time))).astype(np.float32)


def click(seconds: float = 2.0) -> np.ndarray:
    wave = np.zeros(round(seconds * RATE), dtype=np.float32)
    wave[RATE // 2] = 0.9
    return wave


@pytest.mark.parametrize(
    "still",
    [
        np.zeros(2 * RATE, dtype=np.float32),
        np.full(2 * RATE, 0.2, dtype=np.float32),
        np.sign(tone(7000, noise=1)).astype(np.float32) / 32768,  # the last bit
        tone(440),
        tone(1000) + tone(3000),
        tone(440, noise=1e-3),
        tone(440, 0.2),
        np.zeros(0, dtype=np.float32),
    ],
    ids=["silence", "offset", "last bit", "tone", "two tones", "tone in noise", "too short", "empty"],
)
def test_a_sound_that_stands_still_matches_no_other(recordings: Recordings, still: np.ndarray) -> None:
    others = [np.zeros_like(still), tone(440), tone(441), tone(440, noise=1e-3, seed=1), click()]
    index = FingerprintIndex([fingerprint(wave) for wave in others])
    assert index.matches(fingerprint(still)) == [] or np.array_equal(still, others[1])
    assert recordings.index.matches(fingerprint(still)) == []


def test_silence_around_a_sound_says_nothing() -> None:
    """Two clips that are mostly silence share no more than their sounds do."""
    rng = np.random.default_rng(0)
    clips = [np.zeros(4 * RATE, dtype=np.float32) for _ in range(2)]
    for clip in clips:
        clip[RATE : RATE + 4000] = 0.2 * rng.standard_normal(4000)
    one, other = map(fingerprint, clips)
    assert one.informative.mean() < 0.2
    assert FingerprintIndex([one]).matches(other) == []
    shifted = np.concatenate([clips[0][8000:], np.zeros(8000, dtype=np.float32)])
    assert [match.clip for match in FingerprintIndex([one]).matches(fingerprint(shifted))] == [0]


def test_frames_far_below_the_loudest_or_at_the_last_bit_say_nothing() -> None:
    noise = np.random.default_rng(0).standard_normal(4 * RATE).astype(np.float32)
    for level_db, says in ((-30, True), (-50, False)):
        quiet = noise * np.where(np.arange(len(noise)) < 2 * RATE, 0.1, 0.1 * 10 ** (level_db / 20)).astype(np.float32)
        informative = fingerprint(quiet).informative
        assert informative[: len(informative) // 3].all()
        assert (informative[-len(informative) // 3 :] == says).all()
    assert fingerprint(1e-3 * noise).informative.all()
    assert not fingerprint(np.rint(noise).clip(-1, 1) / 32768).informative.any()


def test_a_clip_without_two_frames_has_no_words() -> None:
    assert len(fingerprint(np.ones(FRAME + HOP - 1, dtype=np.float32)).words) == 0
    assert len(fingerprint(np.ones(FRAME + HOP, dtype=np.float32)).words) == 1


def test_words_are_the_signs_of_the_second_differences() -> None:
    """Against the formula of the paper, band by band, on one pair of frames."""
    wave = np.random.default_rng(0).standard_normal(FRAME + HOP).astype(np.float32)
    edges, hertz = np.geomspace(300, 7000, 34), np.fft.rfftfreq(FRAME, 1 / RATE)
    spectra = [np.abs(np.fft.rfft(np.hanning(FRAME) * wave[begin:][:FRAME])) ** 2 for begin in (0, HOP)]
    energy = [[s[(hertz >= a) & (hertz < b)].sum() for a, b in pairwise(edges)] for s in spectra]
    bits = [energy[1][m] - energy[1][m + 1] - (energy[0][m] - energy[0][m + 1]) > 0 for m in range(32)]
    assert f"{fingerprint(wave).words[0]:032b}" == "".join(str(int(bit)) for bit in bits)


@given(seed=st.integers(0, 99), flipped=st.integers(0, 8), shift=st.integers(-80, 80))
def test_the_error_rate_is_the_share_of_flipped_bits(seed: int, flipped: int, shift: int) -> None:
    rng = np.random.default_rng(seed)
    long = rng.integers(0, 2**32, 400, dtype=np.uint32)
    one, other = long[100:300], long[100 + shift : 300 + shift].copy()
    for bit in range(flipped):
        other ^= np.uint32(1 << bit)
    sure = np.ones(200, dtype=np.bool_)
    rate = overlap_error_rate(Fingerprint(one, sure), Fingerprint(other, sure), shift)
    assert rate == (flipped / 32 if flipped / 32 <= 0.2 else None)


def test_short_overlaps_need_fewer_errors() -> None:
    rng = np.random.default_rng(0)
    words = rng.integers(0, 2**32, 300, dtype=np.uint32)
    for num_frames, most in ((20, 3), (40, 5), (300, 6)):  # 0.5 - 6 sigma of 32 bits for each 256 ms
        for bits in range(9):
            wrong = words[:num_frames] ^ np.uint32(2**bits - 1)
            sure = np.ones(num_frames, dtype=np.bool_)
            rate = overlap_error_rate(Fingerprint(words[:num_frames], sure), Fingerprint(wrong, sure), 0)
            assert (rate is not None) == (bits <= most), (num_frames, bits)


def test_few_words_or_a_small_share_prove_nothing() -> None:
    rng = np.random.default_rng(0)
    sure = np.ones(200, dtype=np.bool_)
    still = Fingerprint(np.repeat(rng.integers(0, 2**32, 10, dtype=np.uint32), 20), sure)
    assert overlap_error_rate(still, still, 0) is None
    moving = Fingerprint(rng.integers(0, 2**32, 200, dtype=np.uint32), sure)
    assert overlap_error_rate(moving, moving, 0) == 0.0
    rest = Fingerprint(np.concatenate([moving.words[110:], rng.integers(0, 2**32, 110, dtype=np.uint32)]), sure)
    assert overlap_error_rate(moving, rest, 110) is None  # 90 frames of 200
    rest = Fingerprint(np.concatenate([moving.words[90:], rng.integers(0, 2**32, 90, dtype=np.uint32)]), sure)
    assert overlap_error_rate(moving, rest, 90) == 0.0
    assert overlap_error_rate(moving, moving, 195) is None
    assert overlap_error_rate(moving, moving, 500) is None


def test_an_empty_index_knows_nothing() -> None:
    assert FingerprintIndex([]).matches(fingerprint(tone(440, noise=0.1))) == []
