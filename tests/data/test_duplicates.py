"""Planted copies of every kind are reported once, with what they are and where; strangers are not."""

from collections.abc import Callable, Iterable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given
from hypothesis import strategies as st

from sonar.data import leakage
from sonar.data.audio import AudioError, file_sha256
from sonar.data.guard import Guard
from sonar.data.leakage import duplicate_report
from sonar.data.manifest import Clip
from sonar.data.near_duplicates import Fingerprint, FingerprintIndex, index_in_parts
from sonar.data.recording import decode_clip

RATE = 16_000
MakeClip = Callable[..., Clip]


def recording(seed: int, seconds: float = 3.0) -> np.ndarray:
    """Broadband sound that changes: noise in eighths of a second, each coloured at random and faded in and out."""
    rng = np.random.default_rng(seed)
    length, step = round(seconds * RATE), RATE // 8
    wave = np.zeros(length + 2 * step)
    for begin in range(0, length, step // 2):
        spectrum = np.fft.rfft(rng.standard_normal(step))
        colour = np.interp(np.linspace(0, 8, len(spectrum)), np.arange(9), rng.uniform(-2, 2, 9))
        wave[begin : begin + step] += np.hanning(step) * np.fft.irfft(spectrum * np.exp(colour))
    return (0.2 * wave[:length] / np.abs(wave).max()).astype(np.float32)


@pytest.fixture
def write(tmp_path: Path, make_clip: MakeClip) -> Callable[..., Clip]:
    """Write a waveform; the clip of the file."""

    def write(name: str, wave: np.ndarray, rate: int = RATE, split: str = "train", **options: Any) -> Clip:
        path = tmp_path / name
        soundfile.write(path, wave, rate, **options)
        info = soundfile.info(path)
        plain = make_clip(name, path=str(path), sha256=file_sha256(path), group=name, split=split)
        return plain._replace(duration_s=info.frames / info.samplerate, sample_rate=info.samplerate)

    return write


def noisy(wave: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal(len(wave)).astype(np.float32)
    return wave + noise * np.float32(10 ** (-20 / 20) * np.sqrt(np.mean(wave**2)))


COPIES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str, int, float]] = {  # change, suffix, rate, offset
    "ogg": (lambda wave: wave, "ogg", RATE, 0.0),
    "mp3": (lambda wave: wave, "mp3", RATE, 0.0),
    "12 dB louder": (lambda wave: 4 * wave, "wav", RATE, 0.0),
    "12 dB quieter": (lambda wave: wave / 4, "wav", RATE, 0.0),
    "a fifth off each end": (lambda wave: wave[9_600:-9_600], "wav", RATE, 0.6),
    "half a second later": (lambda wave: np.concatenate([recording(99, 0.5), wave]), "wav", RATE, -0.5),
    "offset of 0.05": (lambda wave: wave + 0.05, "wav", RATE, 0.0),
    "noise at 20 dB": (noisy, "wav", RATE, 0.0),
    "8 kHz": (lambda wave: soxr.resample(wave, RATE, 8_000), "wav", 8_000, 0.0),
    "22.05 kHz": (lambda wave: soxr.resample(wave, RATE, 22_050), "wav", 22_050, 0.0),
    "44.1 kHz": (lambda wave: soxr.resample(wave, RATE, 44_100), "wav", 44_100, 0.0),
    "1 % faster": (lambda wave: soxr.resample(wave, RATE, RATE / 1.01), "wav", RATE, 0.0),
    "trimmed, quieter, ogg at 22.05 kHz": (
        lambda wave: soxr.resample(wave[4_800:-4_800] / 4, RATE, 22_050), "ogg", 22_050, 0.3,
    ),
}  # fmt: skip


@pytest.mark.parametrize("copy", COPIES)
def test_a_planted_copy_is_found_where_it_lies_and_nothing_else(write: Callable[..., Clip], copy: str) -> None:
    change, suffix, rate, offset_s = COPIES[copy]
    train = [write(f"t{seed}.wav", recording(seed)) for seed in range(6)]
    test = [write(f"e{seed}.{suffix}", change(recording(seed)), rate, split="test") for seed in (1, 4)]
    report = duplicate_report([*test, *train, write("stranger.wav", recording(50), split="test")])
    assert [(p.kind, p.one.clip_id, p.other.clip_id) for p in report.duplicates] == [
        ("near", "t1.wav", f"e1.{suffix}"),
        ("near", "t4.wav", f"e4.{suffix}"),
    ]
    assert report.across_splits() == list(report.duplicates)
    for pair in report.duplicates:
        assert pair.offset_s == pytest.approx(offset_s, abs=0.03)
        assert 0 <= pair.error_rate <= 0.2


@pytest.mark.parametrize(
    ("name", "options"),
    [("c.flac", {"subtype": "PCM_16"}), ("c.aiff", {"subtype": "PCM_16"}), ("c.wav", {"subtype": "PCM_24"})],
)
def test_the_same_samples_in_another_container_are_an_exact_duplicate(
    write: Callable[..., Clip], name: str, options: dict[str, str]
) -> None:
    wave = np.rint(recording(0) * 32767) / 32768
    clips = [write("a.wav", wave, subtype="PCM_16"), write(name, wave, split="dev", **options)]
    assert clips[0].sha256 != clips[1].sha256
    assert [(pair.kind, pair.across_splits) for pair in duplicate_report(clips).duplicates] == [("audio", True)]


def test_the_same_file_is_a_duplicate_but_another_part_of_it_is_not(write: Callable[..., Clip]) -> None:
    whole = write("a.wav", recording(0, 6.0))
    first, second = whole._replace(duration_s=3.0), whole._replace(clip_id="b", start_s=3.0, duration_s=3.0)
    assert duplicate_report([first, second]).duplicates == ()
    (pair,) = duplicate_report([first, first._replace(clip_id="again")]).duplicates
    assert (pair.kind, pair.one.clip_id, pair.other.clip_id) == ("file", "a.wav", "again")
    (overlap,) = duplicate_report([first, second._replace(start_s=1.0)]).duplicates
    assert (overlap.kind, overlap.offset_s) == ("near", 1.0)


def test_every_exact_copy_is_paired_with_the_first_of_each_split(write: Callable[..., Clip]) -> None:
    clips = [
        write(f"{i}.wav", recording(0), split=split)
        for i, split in enumerate(("test", "train", "train", "dev", "test"))
    ]
    report = duplicate_report(clips)
    pairs = {(pair.one.clip_id[0], pair.other.clip_id[0]) for pair in report.duplicates}
    assert pairs == {
        ("1", "0"),
        ("2", "0"),
        ("3", "0"),
        ("0", "4"),
        ("1", "2"),
        ("1", "3"),
        ("1", "4"),
        ("2", "3"),
        ("3", "4"),
    }
    assert len(report.within_splits()) == 2


def test_what_cannot_be_searched_is_counted(write: Callable[..., Clip], tmp_path: Path) -> None:
    short = [write(f"s{i}.wav", recording(i, 0.4)) for i in range(2)]
    long_enough = write("long.wav", recording(2, 0.45))
    silent = write("silent.wav", np.zeros(RATE))
    tone = write("tone.wav", 0.1 * np.sin(2 * np.pi * 1000 / RATE * np.arange(RATE)))
    broken = short[0]._replace(clip_id="broken", path=str(tmp_path / "broken.wav"))
    Path(broken.path).write_bytes(b"RIFF")
    report = duplicate_report([*short, long_enough, silent, tone, broken])
    assert report.num_clips == 6
    assert report.too_short == tuple(short)
    assert report.featureless == (silent, tone)
    assert [(bad.path, bad.reason) for bad in report.unreadable] == [
        (broken.path, "cannot be decoded: Format not recognised.")
    ]
    copy = short[0]._replace(clip_id="copy", split="test")
    assert [pair.kind for pair in duplicate_report([*short, copy]).duplicates] == ["file"]


def test_a_guarded_pool_gives_the_same_report(write: Callable[..., Clip]) -> None:
    clips = [write(f"{i}.wav", recording(i % 3) / (1 + i), split=("train", "test")[i % 2]) for i in range(6)]
    with Guard(workers=1) as guard:
        report = duplicate_report(clips, run=guard.map)
    assert report == duplicate_report(clips)
    assert len(report.duplicates) == 3


def test_a_decoder_that_crashed_is_reported(write: Callable[..., Clip]) -> None:
    def run(function: Callable[[Clip], Any], clips: Iterable[Clip]) -> Iterable[Any]:
        return (AudioError("the decoder crashed") if clip.clip_id == "1.wav" else function(clip) for clip in clips)

    clips = [write(f"{i}.wav", recording(0), split="train") for i in range(3)]
    report = duplicate_report(clips, run=run)
    assert [bad.reason for bad in report.unreadable] == ["the decoder crashed"]
    assert [(pair.one.clip_id, pair.other.clip_id) for pair in report.duplicates] == [("0.wav", "2.wav")]


@given(lengths=st.lists(st.integers(0, 60), min_size=1, max_size=12), most=st.integers(1, 100))
def test_an_index_in_parts_finds_what_one_index_finds(lengths: list[int], most: int) -> None:
    rng = np.random.default_rng(0)
    long = rng.integers(0, 2**32, 60, dtype=np.uint32)
    prints = [Fingerprint(long[:length].copy(), np.ones(length, dtype=np.bool_)) for length in lengths]
    parts = list(index_in_parts(prints, most))
    assert sorted(begin for begin, _ in parts) == [begin for begin, _ in parts]
    whole = FingerprintIndex(prints)
    for asked in prints:
        found = [match._replace(clip=begin + match.clip) for begin, index in parts for match in index.matches(asked)]
        assert found == whole.matches(asked)


def test_pairs_are_those_of_every_clip_against_every_other(
    write: Callable[..., Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Brute force over an index of one clip each, with the report's index in parts of about two clips."""
    cuts = [(0, 0, 3.0), (0, 1, 2.0), (1, 0, 3.0), (1, 0.5, 2.0), (2, 0, 2.5), (0, 0.5, 1.5)]
    waves = [recording(seed, 4.0)[round(begin * RATE) :][: round(length * RATE)] for seed, begin, length in cuts]
    clips = [write(f"{i}.wav", wave) for i, wave in enumerate(waves)]
    prints = [leakage.fingerprint(decode_clip(clip.path, 0.0, clip.duration_s)) for clip in clips]
    expected = {
        (one, other)
        for one, other in combinations(range(len(clips)), 2)
        if FingerprintIndex([prints[one]]).matches(prints[other])
    }
    assert len(expected) >= 4
    monkeypatch.setattr(leakage, "index_in_parts", lambda prints: index_in_parts(prints, 500))
    found = duplicate_report(clips).duplicates
    assert {(int(pair.one.clip_id[0]), int(pair.other.clip_id[0])) for pair in found} == expected
