"""Files broken at random places give all of their audio or a reason, in every format that is read."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from sonar.data.audio import AudioError, decode_audio, file_sha256, probe_audio

SUBTYPES = {"WAV": "PCM_16", "FLAC": "PCM_16", "OGG": "VORBIS", "MP3": "MPEG_LAYER_III", "AIFF": "PCM_16"}


def encode(kind: str) -> bytes:
    buffer = io.BytesIO()
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 8000)
    soundfile.write(buffer, samples, 16_000, format=kind, subtype=SUBTYPES[kind])
    return buffer.getvalue()


@pytest.mark.parametrize("kind", SUBTYPES)
@settings(max_examples=25)
@given(share=st.floats(0.01, 0.995))
def test_a_file_cut_anywhere_is_refused(kind: str, share: float) -> None:
    content = encode(kind)
    with pytest.raises(AudioError):
        decode_audio(content[: int(len(content) * share)])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # soundfile's seek within bytes
@pytest.mark.parametrize("kind", SUBTYPES)
@settings(max_examples=60)
@given(place=st.integers(0, 99), value=st.integers(0, 255))
def test_a_corrupt_header_gives_audio_or_a_reason_and_nothing_else(kind: str, place: int, value: int) -> None:
    content = bytearray(encode(kind))
    content[place] = value
    try:
        waveform = decode_audio(bytes(content))
    except AudioError as error:
        assert str(error)
    else:
        assert len(waveform) > 0
        assert np.isfinite(waveform).all()


@pytest.mark.timeout(30)
def test_a_pipe_is_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")  # opening it would wait for ever
    for function in (decode_audio, probe_audio, file_sha256):
        with pytest.raises(AudioError, match="not a regular file"):
            function(tmp_path / "pipe.wav")
