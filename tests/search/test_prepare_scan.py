"""The corpora of a sweep are scanned once, and what was found lies in its cache."""

import os
from pathlib import Path

import numpy as np
import soundfile

from sonar.search.prepare import load_domain


def test_a_second_sweep_reads_no_file_that_has_not_changed(tmp_path: Path) -> None:
    for number in range(8):
        path = tmp_path / "birds" / "ab"[number % 2] / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.1 * np.random.default_rng(number).standard_normal(1_600), 16_000)
    said: list[str] = []
    clips = load_domain("bio", str(tmp_path / "birds"), tmp_path / "cache", said.append)
    assert [file.name[:5] for file in (tmp_path / "cache").iterdir()] == ["scan-"]
    assert said == [f"bio: {tmp_path / 'birds'}: 8 clips, 0.00 h, 0 quarantined"]
    before = path.stat()
    path.write_bytes(b"\0" * before.st_size)  # who reads it again finds no audio in it
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert load_domain("bio", str(tmp_path / "birds"), tmp_path / "cache", said.append) == clips
