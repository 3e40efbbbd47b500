"""The numbers of a clip equal what its sound was made of."""

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from sonar.data import card_signal
from sonar.data.audio import AudioError
from sonar.data.card_signal import FLOOR_DBFS, ClipSignal, measure_clip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("signals")


def sine(hertz: float, amplitude: float, rate: int, seconds: float = 1.0) -> np.ndarray:
    return amplitude * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def band(low: float, high: float, rate: int, seconds: float = 2.0) -> np.ndarray:
    """Noise that is flat from `low` to `high` Hz and nothing else."""
    spectrum = np.fft.rfft(np.random.default_rng(0).standard_normal(round(seconds * rate)))
    hertz = np.fft.rfftfreq(round(seconds * rate), 1 / rate)
    wave = np.fft.irfft(np.where((hertz >= low) & (hertz <= high), spectrum, 0))
    return 0.5 * wave / np.abs(wave).max()


def measured(folder: Path, wave: np.ndarray, rate: int, subtype: str = "FLOAT") -> ClipSignal:
    path = folder / "clip.wav"
    soundfile.write(path, wave, rate, subtype=subtype)
    return measure_clip(str(path), 0.0, len(wave) / rate)


@pytest.mark.parametrize("rate", [22_050, 44_100, 48_000, 96_000, 250_000])
def test_the_share_lost_is_that_of_the_sines_above_8_khz(folder: Path, rate: int) -> None:
    found = measured(folder, sine(2_000, 0.3, rate) + sine(9_500, 0.4, rate), rate)
    assert found.lost == pytest.approx(0.4**2 / (0.3**2 + 0.4**2), abs=2e-3)


@given(low=st.floats(0.05, 0.4), high=st.floats(0.05, 0.4))
def test_the_share_lost_holds_for_any_mix(folder: Path, low: float, high: float) -> None:
    found = measured(folder, sine(3_000, low, 44_100, 0.3) + sine(12_000, high, 44_100, 0.3), 44_100)
    assert found.lost == pytest.approx(high**2 / (low**2 + high**2), abs=2e-3)


@pytest.mark.parametrize("rate", [8_000, 16_000])
def test_what_a_low_rate_lost_is_not_known(folder: Path, rate: int) -> None:
    assert math.isnan(measured(folder, sine(2_000, 0.3, rate), rate).lost)


@pytest.mark.parametrize("amplitude", [1.0, 0.5, 0.01])
def test_a_sine_lies_3_db_below_its_peak(folder: Path, amplitude: float) -> None:
    found = measured(folder, sine(1_000, amplitude, 16_000), 16_000)
    assert found.peak_dbfs == pytest.approx(20 * math.log10(amplitude), abs=0.01)
    assert found.rms_dbfs == pytest.approx(20 * math.log10(amplitude) - 10 * math.log10(2), abs=0.01)


def test_silence_is_the_share_of_quiet_frames_and_zeros_the_share_of_zeros(folder: Path) -> None:
    quiet = np.concatenate([band(100, 7_000, 16_000, 1.0), np.full(16_000, 1e-4), np.zeros(32_000)])
    found = measured(folder, quiet, 16_000)
    assert found.silent == pytest.approx(0.75, abs=0.02)  # a frame lasts 64 ms of 4 s
    assert found.zero == 0.5


def test_an_offset_is_told_and_changes_nothing_in_the_spectrum(folder: Path) -> None:
    wave = sine(2_000, 0.3, 44_100) + sine(12_000, 0.1, 44_100)
    plain, moved = measured(folder, wave, 44_100), measured(folder, wave - 0.2, 44_100)
    assert (plain.dc, moved.dc) == pytest.approx((0.0, 0.2), abs=1e-4)
    assert moved[-3:] == pytest.approx(plain[-3:], rel=1e-3)


def test_clipped_are_the_samples_that_stay_at_full_scale(folder: Path) -> None:
    wave = np.clip(sine(440, 2.0, 44_100), -1, 1)
    repeats = sum(abs(wave[i]) >= 0.999 and wave[i] == wave[i - 1] for i in range(1, len(wave)))
    assert measured(folder, wave, 44_100).clipped == repeats / len(wave) > 0.6
    assert measured(folder, sine(441.3, 1.0, 44_100), 44_100).clipped == 0, "full scale alone is no clipping"


def test_clipping_of_one_channel_is_seen(folder: Path) -> None:
    loud = np.clip(sine(440, 2.0, 44_100), -1, 1)
    assert measured(folder, np.stack([sine(300, 0.1, 44_100), loud], axis=1), 44_100).clipped > 0.6


@pytest.mark.parametrize("edge", [2_000, 5_000, 16_000])
def test_the_band_in_use_ends_where_the_sound_does(folder: Path, edge: int) -> None:
    found = measured(folder, band(50, edge, 44_100), 44_100, "PCM_16")
    assert found.top_hz == pytest.approx(edge, abs=100)
    assert found.energy_99_hz == pytest.approx(50 + 0.99 * (edge - 50), abs=150)


def test_an_mp3_shows_where_its_encoder_cut(folder: Path) -> None:
    path = folder / "cut.mp3"
    soundfile.write(path, band(50, 20_000, 44_100), 44_100, bitrate_mode="CONSTANT", compression_level=0.95)
    assert measure_clip(str(path), 0.0, 2.0).top_hz < 0.8 * 22_050


def test_a_part_is_measured_as_if_it_were_a_file(folder: Path) -> None:
    wave = np.stack([band(50, 20_000, 44_100), sine(500, 0.1, 44_100, 2.0)], axis=1)
    path = folder / "whole.flac"
    soundfile.write(path, wave, 44_100)
    part, _ = soundfile.read(path, start=22_050, stop=55_125)
    assert measure_clip(str(path), 0.5, 0.75) == pytest.approx(measured(folder, part, 44_100))


@pytest.mark.parametrize("block", [64, 1_000, 50_000])
def test_blocks_do_not_show_in_the_numbers(folder: Path, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    wave = np.concatenate([band(50, 20_000, 44_100, 0.4), np.zeros(3_001)])
    whole = measured(folder, wave, 44_100)
    monkeypatch.setattr(card_signal, "_BLOCK_VALUES", block)
    assert measured(folder, wave, 44_100) == pytest.approx(whole, rel=1e-5)


def test_channels_are_averaged_as_for_the_encoder(folder: Path) -> None:
    wave = sine(1_000, 0.5, 16_000)
    cancelled = measured(folder, np.stack([wave, -wave], axis=1), 16_000)
    assert cancelled.rms_dbfs == FLOOR_DBFS and cancelled.zero == 1.0
    assert cancelled.peak_dbfs == pytest.approx(-6.02, abs=0.01)


def test_nothing_but_zeros_has_a_level_and_no_spectrum(folder: Path) -> None:
    found = measured(folder, np.zeros(16_000), 44_100)
    assert found[:6] == (FLOOR_DBFS, FLOOR_DBFS, 0.0, 1.0, 1.0, 0.0)
    assert all(math.isnan(value) for value in found[6:])


def test_a_clip_shorter_than_a_frame_has_numbers_too(folder: Path) -> None:
    found = measured(folder, sine(12_000, 0.5, 44_100, 0.01), 44_100)
    assert found.rms_dbfs == pytest.approx(-9.03, abs=0.1) and found.lost > 0.99


def test_a_clip_beyond_the_end_of_its_file_is_refused(folder: Path) -> None:
    path = folder / "short.wav"
    soundfile.write(path, sine(440, 0.5, 16_000), 16_000)
    with pytest.raises(AudioError, match=r"the file ends 0\.50 s before the clip does"):
        measure_clip(str(path), 0.0, 1.5)
    with pytest.raises(AudioError, match=r"the file ends 1\.00 s before the clip does"):
        measure_clip(str(path), 5.0, 1.0)


def test_samples_that_are_no_numbers_are_refused(folder: Path) -> None:
    with pytest.raises(AudioError, match="NaN or infinite"):
        measured(folder, np.array([0.1, np.nan]), 16_000)


def test_what_is_no_audio_is_refused(folder: Path) -> None:
    path = folder / "notes.wav"
    path.write_text("these are my field notes\n" * 20)
    with pytest.raises(AudioError, match="cannot be decoded"):
        measure_clip(str(path), 0.0, 1.0)
    with pytest.raises(AudioError, match="no such file"):
        measure_clip(str(folder / "gone.wav"), 0.0, 1.0)
