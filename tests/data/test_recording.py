"""Clips of one file: the parts that are named, decoded once, of the file as it is now."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sonar.data import recording
from sonar.data.audio import AudioError, decode_audio, file_sha256
from sonar.data.recording import decode_clip, last_recording
from sonar.data.shard_audio import AudioSlice, BadClip, encode_slice, encode_wav

Write = Callable[..., Path]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of what is decoded from here on, in bytes."""
    sizes: list[int] = []

    def decode(source: bytes) -> np.ndarray:
        sizes.append(len(source))
        return decode_audio(source)

    monkeypatch.setattr(recording, "decode_audio", decode)
    return sizes


def test_a_clip_is_the_part_that_is_named(write_audio: Write) -> None:
    path = write_audio("a.wav", 1.0)
    assert np.array_equal(decode_clip(path, 0.25, 0.5), decode_audio(path)[4_000:12_000])
    with pytest.raises(AudioError, match=r"lasts to 1.25 s, the file to 1.00 s"):
        decode_clip(path, 0.75, 0.5)


def test_segments_of_a_file_are_those_of_single_decodes_and_it_is_decoded_once(
    write_audio: Write, decoded: list[int]
) -> None:
    paths = [str(write_audio(name, 1.0, 44_100, 2)) for name in ("a.flac", "b.flac")]
    asked = [AudioSlice(path, number / 10, 0.1, file_sha256(path)) for path in paths for number in range(10)]
    made = [encode_slice(one) for one in asked]
    assert decoded == [Path(path).stat().st_size for path in paths]
    assert made == [encode_wav(decode_clip(one.path, one.start_s, one.duration_s)) for one in asked]
    assert len(set(made)) == 20


def test_a_file_that_changes_between_its_clips_is_noticed(write_audio: Write, decoded: list[int]) -> None:
    path = write_audio("a.wav", 1.0)
    asked = AudioSlice(str(path), 0.5, 0.1, file_sha256(path))
    first = encode_slice(asked)
    soundfile.write(path, np.zeros(16_000), 16_000)
    changed = encode_slice(asked)
    assert isinstance(first, bytes) and isinstance(changed, BadClip) and changed.kind == "changed"
    assert len(decoded) == 1


def test_a_version_that_nothing_tells_is_read_again(write_audio: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(write_audio("a.wav"))
    assert last_recording(path) is last_recording(path)
    version = recording.stat(path)._replace(stamp="")
    monkeypatch.setattr(recording, "stat", lambda path: version)
    assert last_recording(path) is not last_recording(path)


def test_a_large_file_is_not_held_as_bytes(write_audio: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(write_audio("a.wav"))
    held = last_recording(path).clip(0.1, 0.1)
    monkeypatch.setattr(recording, "HELD_BYTES", 10)
    recording._held.clear()
    monkeypatch.setattr(recording, "read_bytes", None)
    found = last_recording(path)
    assert found.sha256 == file_sha256(path)
    assert np.array_equal(found.clip(0.1, 0.1), held)
