"""Log-mel against Kaldi's definition, written out in float64, and the frame formula."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sonar.model.fbank import FbankConfig, _Block, log_mel, mel_filters, num_frames, num_patches

CONFIG = FbankConfig()


def kaldi_frame(samples: np.ndarray) -> np.ndarray:
    """One normalised frame by the definition, without a single shared line."""
    frame = samples.astype(np.float64) * 32768
    frame = frame - frame.mean()
    frame = np.array([frame[0] - 0.97 * frame[0]] + [frame[i] - 0.97 * frame[i - 1] for i in range(1, 400)])
    frame *= (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 399)) ** 0.85
    power = np.abs(np.fft.fft(frame, 512)) ** 2
    edges = np.linspace(1127 * math.log(1 + 20 / 700), 1127 * math.log(1 + 8000 / 700), 130)
    energies = np.zeros(128)
    for k in range(256):
        mel = 1127 * math.log(1 + k * 16000 / 512 / 700)
        for m in range(128):
            if edges[m] < mel < edges[m + 2]:
                rise = (mel - edges[m]) / (edges[m + 1] - edges[m])
                fall = (edges[m + 2] - mel) / (edges[m + 2] - edges[m + 1])
                energies[m] += min(rise, fall) * power[k]
    return (np.log(np.maximum(energies, 2.0**-23)) - 15.41663) / (2 * 6.55582)


def test_frames_equal_kaldis_definition(generator: torch.Generator) -> None:
    waveform = torch.rand(1, 4000, generator=generator) - 0.5
    features = log_mel(waveform, CONFIG)[0].numpy()
    for frame in (0, 7, 22):
        expected = kaldi_frame(waveform[0, frame * 160 : frame * 160 + 400].numpy())
        np.testing.assert_allclose(features[frame], expected, atol=2e-4)


@given(st.integers(2800, 40_000))
@settings(max_examples=20, deadline=None)
def test_shape_follows_the_frame_formula(num_samples: int) -> None:
    features = log_mel(torch.zeros(1, num_samples), CONFIG)
    assert features.shape == (1, 1 + (num_samples - 400) // 160, 128)
    assert num_frames(num_samples) == features.shape[1]
    assert num_patches(num_samples) == features.shape[1] // 16 * 8


def test_ten_seconds_have_998_frames_and_496_patches() -> None:
    assert (num_frames(160_000), num_patches(160_000)) == (998, 496)
    assert (num_frames(399), num_patches(2799), num_patches(2800)) == (0, 0, 8)


def test_silence_is_the_floor() -> None:
    assert log_mel(torch.zeros(2, 2800), CONFIG).unique().tolist() == pytest.approx([-2.391693], abs=1e-5)


def test_filter_3_is_empty_as_in_kaldi() -> None:
    assert (mel_filters(128).sum(0) == 0).nonzero().flatten().tolist() == [3]


def test_a_constant_offset_changes_nothing(generator: torch.Generator) -> None:
    waveform = torch.rand(1, 8000, generator=generator) * 0.5
    torch.testing.assert_close(log_mel(waveform + 0.25, CONFIG), log_mel(waveform, CONFIG), atol=1e-2, rtol=0)


def test_clips_and_blocks_do_not_touch_each_other(generator: torch.Generator) -> None:
    waveform = torch.rand(3, 60_000, generator=generator) - 0.5
    together = log_mel(waveform, CONFIG)
    torch.testing.assert_close(together[1:2], log_mel(waveform[1:2], CONFIG), atol=0, rtol=0)
    torch.testing.assert_close(together[:, :50], log_mel(waveform[:, :8400], CONFIG)[:, :50], atol=1e-4, rtol=0)


def test_how_a_clip_is_cut_into_blocks_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, generator: torch.Generator
) -> None:
    waveform = torch.rand(2, 60_000, generator=generator) - 0.5  # 373 frames
    whole = log_mel(waveform, CONFIG)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    for frames in (50, 186, 372, 373):
        monkeypatch.setattr("sonar.model.fbank.CPU_BLOCK_FRAMES", frames)
        torch.testing.assert_close(log_mel(waveform, CONFIG), whole, atol=1e-5, rtol=0)


def test_the_whole_batch_as_one_block_as_on_a_gpu_has_the_same_features(
    monkeypatch: pytest.MonkeyPatch, generator: torch.Generator
) -> None:
    waveform = torch.rand(3, 8000, generator=generator) - 0.5
    by_clip = log_mel(waveform, CONFIG)
    whole = _Block(3, by_clip.shape[1], CONFIG, waveform.device)
    monkeypatch.setattr("sonar.model.fbank._block", lambda frames, config: whole)
    torch.testing.assert_close(log_mel(waveform, CONFIG), by_clip, atol=1e-5, rtol=0)


def test_no_clips_have_no_features() -> None:
    assert log_mel(torch.zeros(0, 4000), CONFIG).shape == (0, 23, 128)


def test_autocast_and_half_input_keep_float32(generator: torch.Generator) -> None:
    waveform = torch.rand(1, 2800, generator=generator).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        features = log_mel(waveform, CONFIG)
    assert features.dtype == torch.float32
    torch.testing.assert_close(features, log_mel(waveform.float(), CONFIG), atol=0, rtol=0)


def test_constants_belong_to_the_config() -> None:
    other = FbankConfig(mean=0.0, std=0.5)
    assert log_mel(torch.zeros(1, 2800), other).unique().tolist() == pytest.approx([math.log(2.0**-23)])


def test_too_short_a_clip_states_the_minimum() -> None:
    with pytest.raises(ValueError, match=r"2799 samples: at least 2800"):
        log_mel(torch.zeros(1, 2799), CONFIG)
    with pytest.raises(ValueError, match=r"give \(clips, samples\)"):
        log_mel(torch.zeros(2800), CONFIG)


@pytest.mark.parametrize(("name", "value"), [("num_mel_bins", 100), ("std", 0.0), ("mean", math.nan)])
def test_impossible_constants_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        FbankConfig(**{name: value})  # type: ignore[arg-type]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_gpu_equals_cpu(generator: torch.Generator) -> None:
    waveform = torch.rand(2, 16_000, generator=generator) - 0.5
    torch.testing.assert_close(log_mel(waveform.cuda(), CONFIG).cpu(), log_mel(waveform, CONFIG), atol=1e-3, rtol=0)
