import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sonar.data.manifest import Clip


@pytest.fixture(scope="session")
def make_clip() -> Callable[..., Clip]:
    """A clip with made-up values; keyword arguments replace them."""

    def make(clip_id: str = "c/a.wav", **values: object) -> Clip:
        plain = Clip(
            clip_id=clip_id,
            path="/nowhere/a.wav",
            start_s=0.0,
            duration_s=1.0,
            sample_rate=16_000,
            channels=1,
            corpus="birds",
            domain="bio",
            labels=("wren",),
            group="g",
            split="train",
            sha256="0" * 64,
        )
        return plain._replace(**values)

    return make


@pytest.fixture
def write_audio(tmp_path: Path) -> Callable[..., Path]:
    """Write noise below `tmp_path`, another one for each name."""

    def write(name: str, seconds: float = 0.2, sample_rate: int = 16_000, channels: int = 1) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(list(name.encode()))
        soundfile.write(path, 0.1 * rng.standard_normal((round(seconds * sample_rate), channels)), sample_rate)
        return path

    return write


@pytest.fixture(scope="session")
def packs() -> list[Path]:
    """Folders of the real packs; set SONAR_AUDIO where they lie elsewhere."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "audio"
    root = Path(os.environ.get("SONAR_AUDIO", beside))
    found = sorted(path.parent for path in root.glob("*/metadata.csv"))
    if not found:
        pytest.skip(f"no audio packs in {root}")
    return found


@pytest.fixture
def faulty_folder(tmp_path: Path, write_audio: Callable[..., Path]) -> Path:
    """Two classes of three good files, and every planted fault in the first class."""
    root = tmp_path / "corpus"
    for label in ("a", "b"):
        for number in range(3):
            write_audio(f"corpus/{label}/good{number}.wav")
    folder = root / "a"
    whole = (folder / "good0.wav").read_bytes()
    (folder / "corrupt.wav").write_bytes(whole[:20] + b"\xff" * 20 + whole[40:])
    (folder / "truncated.wav").write_bytes(whole[: len(whole) // 2])
    flac = write_audio("corpus/a/truncated.flac").read_bytes()
    (folder / "truncated.flac").write_bytes(flac[: len(flac) // 2])
    (folder / "empty.wav").touch()
    soundfile.write(folder / "silent.wav", np.empty(0), 16_000)
    (folder / "text.wav").write_text("these are my field notes\n" * 20)
    soundfile.write(folder / "nan.wav", np.array([0.1, np.nan]), 16_000, subtype="FLOAT")
    outside = write_audio("outside.wav")
    (folder / "link.wav").symlink_to(outside)
    os.mkfifo(folder / "pipe.wav")
    return root


FAULTS = {
    "corrupt.wav": "cannot be decoded",
    "truncated.wav": "truncated",
    "truncated.flac": "cannot be decoded|truncated",
    "empty.wav": "empty file",
    "silent.wav": "no samples",
    "text.wav": "cannot be decoded",
    "nan.wav": "NaN",
    "link.wav": "leads out of",
    "pipe.wav": "not a regular file",
}


@pytest.fixture
def fault_reasons() -> dict[str, str]:
    """Pattern of the reason for every file of `faulty_folder` that is to be quarantined."""
    return FAULTS
