import io
import struct
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy.signal import firwin, resample_poly

from sonar.data.audio import (
    AudioError,
    check_audio,
    decode_audio,
    file_sha256,
    probe_audio,
    seconds_to_samples,
)
from sonar.data.containers import mpeg_seconds


def encode(samples: np.ndarray, sample_rate: int = 16_000, kind: str = "WAV", subtype: str | None = "PCM_16") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, sample_rate, format=kind, subtype=subtype)
    return buffer.getvalue()


def noise(count: int, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(count)


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "AIFF"])
def test_16_bit_mono_at_16_khz_comes_back_bit_by_bit(kind: str) -> None:
    samples = np.random.default_rng(0).integers(-32768, 32768, 5_000).astype(np.int16)
    decoded = decode_audio(encode(samples, kind=kind))
    assert decoded.dtype == np.float32
    assert np.array_equal(decoded * 32768, samples)


def test_path_string_and_bytes_decode_alike(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(encode(noise(4_000), 22_050))
    assert np.array_equal(decode_audio(path), decode_audio(path.read_bytes()))
    assert np.array_equal(decode_audio(path), decode_audio(str(path)))


def test_channels_are_averaged() -> None:
    left, right = noise(3_000, 1), noise(3_000, 2)
    decoded = decode_audio(encode(np.stack([left, right], axis=1), subtype="DOUBLE"))
    np.testing.assert_allclose(decoded, (left + right) / 2, atol=1e-7)


RATES = [8_000, 11_025, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000, 192_000]


def sine(hz: float, sample_rate: int, seconds: float = 1.0) -> np.ndarray:
    """Sampled at `sample_rate`; the same function of time at every rate."""
    return np.sin(2 * np.pi * hz * np.arange(round(seconds * sample_rate)) / sample_rate + 0.3)


@pytest.mark.parametrize("sample_rate", RATES)
def test_resampling_keeps_a_sine_within_the_stated_bound(sample_rate: int) -> None:
    band = min(sample_rate / 2, 8_000)
    for share, bound in ((1 / 2, 1e-5), (7 / 8, 1e-3)):
        for hz in np.linspace(50, share * band, 20):
            decoded = decode_audio(encode(0.5 * sine(hz, sample_rate), sample_rate, subtype="FLOAT"))
            assert abs(len(decoded) - 16_000) <= 1
            inner = slice(2_000, 14_000)
            np.testing.assert_allclose(decoded[inner], 0.5 * sine(hz, 16_000)[inner], atol=0.5 * bound)


@pytest.mark.parametrize("sample_rate", [rate for rate in RATES if rate > 18_000])
def test_resampling_removes_what_lies_above_8_khz(sample_rate: int) -> None:
    for hz in np.linspace(8_200, min(0.98 * sample_rate / 2, 90_000), 20):
        decoded = decode_audio(encode(sine(hz, sample_rate), sample_rate, subtype="DOUBLE"))
        assert np.abs(decoded[2_000:14_000]).max() < 1e-5


@pytest.mark.parametrize("sample_rate", [22_050, 44_100, 48_000])
def test_resampling_equals_a_reference_with_a_long_window(sample_rate: int) -> None:
    """Against scipy's polyphase filter with a Kaiser window of 120 dB, on noise within the pass band."""
    rng = np.random.default_rng(0)
    spectrum = np.fft.rfft(rng.standard_normal(sample_rate))
    spectrum[5_000:] = 0  # one bin is 1 Hz
    wave = np.fft.irfft(spectrum, sample_rate)
    wave /= 2 * np.abs(wave).max()
    divisor = np.gcd(sample_rate, 16_000)
    up, down = 16_000 // divisor, sample_rate // divisor
    taps = firwin(2 * 200 * down + 1, 1 / down, window=("kaiser", 12.3))
    reference = resample_poly(wave, up, down, window=taps)
    decoded = decode_audio(encode(wave, sample_rate, subtype="DOUBLE"))
    inner = slice(2_000, 14_000)
    np.testing.assert_allclose(decoded[inner], reference[inner], atol=1e-5)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("sample_rate", [8_000, 16_000, 44_100, 96_000])
@pytest.mark.parametrize(
    ("kind", "subtype", "error"),
    [
        ("WAV", "PCM_16", 4e-5),
        ("WAV", "PCM_24", 2e-5),
        ("WAV", "FLOAT", 2e-5),
        ("FLAC", "PCM_16", 4e-5),
        ("FLAC", "PCM_24", 2e-5),
        ("OGG", "VORBIS", 0.05),
        ("MP3", "MPEG_LAYER_III", 0.05),
    ],
)
def test_every_format_depth_and_rate_decodes_to_the_same_tone(
    kind: str, subtype: str, error: float, sample_rate: int, channels: int
) -> None:
    if kind == "MP3" and sample_rate > 48_000:
        pytest.skip("MP3 ends at 48 kHz")
    tone = 0.5 * sine(500, sample_rate)
    decoded = decode_audio(encode(np.stack([tone] * channels, axis=1), sample_rate, kind, subtype))
    assert abs(len(decoded) - 16_000) <= 1
    np.testing.assert_allclose(decoded[2_000:14_000], 0.5 * sine(500, 16_000)[2_000:14_000], atol=error)


@pytest.mark.parametrize("kind", ["WAV", "AIFF", "FLAC", "OGG", "MP3"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_truncated_file_is_never_silently_shortened(kind: str, share: float) -> None:
    whole = encode(noise(32_000), kind=kind, subtype={"OGG": "VORBIS", "MP3": None}.get(kind, "PCM_16"))
    assert len(decode_audio(whole)) == 32_000
    with pytest.raises(AudioError, match=r"truncated|cannot be decoded"):
        decode_audio(whole[: int(share * len(whole))])


def test_wav_cut_by_one_byte_is_truncated() -> None:
    with pytest.raises(AudioError, match="truncated: 1999 of 2000 bytes of audio"):
        decode_audio(encode(noise(1_000))[:-1])


def test_wav_of_unknown_length_from_a_pipe_is_read() -> None:
    wav = bytearray(encode(noise(1_000)))
    wav[40:44] = struct.pack("<I", 0xFFFFFFFF)
    assert len(decode_audio(bytes(wav))) == 1_000


def test_mp3_without_a_frame_count_is_read_although_its_length_is_a_guess() -> None:
    mp3 = encode(np.concatenate([np.zeros(80_000), noise(80_000)]), 44_100, "MP3", None)
    stripped = mp3[mp3.find(mp3[:2], 200) :]
    assert b"Xing" not in stripped
    assert b"Info" not in stripped
    with soundfile.SoundFile(io.BytesIO(stripped)) as file:
        guessed_s = file.frames / 44_100
    assert len(decode_audio(stripped)) < 16_000 * guessed_s / 1.5


@pytest.mark.parametrize("sample_rate", [8_000, 22_050, 44_100])
def test_an_mp3_that_the_decoder_would_cut_short_is_refused(sample_rate: int) -> None:
    mp3 = encode(np.concatenate([noise(80_000), np.zeros(80_000)]), sample_rate, "MP3", None)
    assert mpeg_seconds(io.BytesIO(mp3)) == pytest.approx(160_000 / sample_rate, abs=0.3)
    stripped = b"ID3\3\0\0\0\0\1\0" + bytes(128) + mp3[mp3.find(mp3[:2], 200) :]
    with soundfile.SoundFile(io.BytesIO(stripped)) as file:
        assert len(file.read()) < 80_000
    with pytest.raises(AudioError, match=r"only \d.* s would be decoded: an MP3 of varying bit rate without a count"):
        decode_audio(stripped)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (b"", "empty file"),
        (b"RIFF of a kind", "cannot be decoded"),
        (encode(np.empty(0)), "no samples"),
        (encode(np.array([0.0, np.nan]), subtype="FLOAT"), "NaN or infinite"),
        (encode(np.array([0.0, -np.inf]), subtype="FLOAT"), "NaN or infinite"),
        (encode(np.array([0.0, 30_000.0]), subtype="FLOAT"), "30000 times full scale"),
        (encode(noise(100), 900), "sample rate 900 Hz"),
    ],
)
def test_what_cannot_be_trusted_is_refused_with_its_reason(source: bytes, reason: str) -> None:
    for function in (decode_audio, partial(check_audio, name="a")):
        with pytest.raises(AudioError, match=reason):
            function(source)


def test_a_header_that_lies_about_its_length_is_refused_before_memory_is_taken() -> None:
    flac = bytearray(encode(noise(1_000), kind="FLAC"))
    flac[21:26] = bytes([flac[21] | 0x0F, 0xFF, 0xFF, 0xFF, 0xFF])  # 36 bits of total samples
    with pytest.raises(AudioError, match="header declares"):
        decode_audio(bytes(flac))


def test_missing_file_and_folder_are_named(tmp_path: Path) -> None:
    for function in (decode_audio, probe_audio, file_sha256):
        with pytest.raises(AudioError, match="no such file"):
            function(tmp_path / "none.wav")
        with pytest.raises(AudioError, match="not a regular file"):
            function(tmp_path)


def test_probe_reads_the_header_of_the_file(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros((22_050, 2)), 44_100)
    assert probe_audio(tmp_path / "a.wav") == (0.5, 44_100, 2)


def test_seconds_round_to_the_nearest_sample() -> None:
    assert seconds_to_samples(1.0) == 16_000
    assert seconds_to_samples(0.29 * 3) == 13_920  # 0.8699999999999999 s
    assert seconds_to_samples(0.5, 44_100) == 22_050
