import csv
import io
import json
import os
import re
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sonar.data.audio import Quarantined, file_sha256
from sonar.data.corpora import scan_corpus
from sonar.data.manifest import Clip
from sonar.data.quarantine import Loss, losses, total, write_quarantine
from sonar.data.scan import ScanOptions

SUBTYPES = {"wav": "PCM_16", "flac": "PCM_16", "ogg": "VORBIS", "mp3": None}
PLANTED = {  # file -> pattern of the reason, kind, declared seconds
    "corrupt.wav": ("cannot be decoded", "corrupt", None),
    "truncated.wav": (r"truncated: \d+ of 64000 bytes", "truncated", 1.0),
    "truncated.flac": ("lost sync", "corrupt", 2.0),
    "truncated.ogg": ("the last Ogg page", "truncated", None),
    "truncated.mp3": (r"\d+ of 32000 samples can be decoded", "truncated", 2.0),
    "empty.wav": ("empty file", "empty", 0.0),
    "silent.wav": ("no samples", "no samples", 0.0),
    "text.wav": ("its content is text", "wrong extension", None),
    "zip.flac": ("its content is a ZIP archive", "wrong extension", None),
    "flac.wav": ("its content is FLAC, its name ends in .wav; rename it", "wrong extension", 2.0),
    "nochannels.wav": ("declares 0 channels", "bad header", None),
    "nan.wav": ("NaN or infinite", "bad samples", 1.0),
    "loud.wav": ("3000 times full scale", "bad samples", 1.0),
    "absurd.flac": ("the header declares 4294967 s", "bad header", None),
    "absurd.wav": (r"truncated: 64000 of 2147483647 bytes", "truncated", 2.0),
    "pipe.wav": ("not a regular file", "not a file", None),
    "link.wav": ("not through a link out", "outside", None),
    "device.wav": ("not through a link out", "outside", None),
    "gone.wav": ("no such file", "missing", None),
}


def encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    noise = 0.1 * np.random.default_rng(0).standard_normal(32_000)
    soundfile.write(buffer, noise, 16_000, format=kind.upper(), subtype=SUBTYPES[kind])
    return buffer.getvalue()


@pytest.fixture
def planted(tmp_path: Path, write_audio: Callable[..., Path]) -> Path:
    """Three good files in each of two classes, and every fault in the first class."""
    folder = tmp_path / "corpus" / "a"
    for label in ("a", "b"):
        for number in range(3):
            write_audio(f"corpus/{label}/good{number}.wav")
    whole = {kind: encoded(kind) for kind in SUBTYPES}
    for kind, content in whole.items():
        (folder / f"truncated.{kind}").write_bytes(content[: len(content) // 2])
    wav, flac = whole["wav"], whole["flac"]
    (folder / "corrupt.wav").write_bytes(wav[:20] + b"\xff" * 20 + wav[40:])
    (folder / "empty.wav").touch()
    soundfile.write(folder / "silent.wav", np.empty(0), 16_000)
    (folder / "text.wav").write_text("these are my field notes\n" * 20)
    with zipfile.ZipFile(folder / "zip.flac", "w") as archive:
        archive.writestr("a", "b")
    (folder / "flac.wav").write_bytes(flac)
    (folder / "nochannels.wav").write_bytes(wav[:22] + b"\0\0" + wav[24:])
    soundfile.write(folder / "nan.wav", np.array([0.1, np.nan] * 8_000), 16_000, subtype="FLOAT")
    soundfile.write(folder / "loud.wav", np.array([0.1, 3_000.0] * 8_000), 16_000, subtype="FLOAT")
    (folder / "absurd.flac").write_bytes(flac[:21] + bytes([flac[21] | 15, 255, 255, 255, 255]) + flac[26:])
    (folder / "absurd.wav").write_bytes(wav[:40] + struct.pack("<I", 2**31 - 1) + wav[44:])
    os.mkfifo(folder / "pipe.wav")
    (folder / "link.wav").symlink_to(write_audio("outside.wav"))
    (folder / "device.wav").symlink_to("/dev/zero")
    (folder / "gone.wav").symlink_to(folder / "nowhere.wav")
    return tmp_path / "corpus"


def test_every_planted_fault_is_left_out_and_every_good_row_survives_whole(planted: Path, tmp_path: Path) -> None:
    options = ScanOptions(workers=2)
    clips, quarantine = scan_corpus(planted, domain="bio", options=options)
    found = {Path(bad.path).name: bad for bad in quarantine}
    assert found.keys() == PLANTED.keys()
    for name, (pattern, kind, seconds) in PLANTED.items():
        bad, path = found[name], planted / "a" / name
        assert re.search(pattern, bad.reason), bad
        assert (bad.kind, bad.stratum) == (kind, "corpus/a"), bad
        assert bad.seconds == pytest.approx(seconds, abs=1e-3) if seconds is not None else bad.seconds is None, bad
        hashed = path.is_file() and not path.is_symlink() and path.stat().st_size > 0
        assert bad.sha256 == (file_sha256(path) if hashed else "")
    for name in PLANTED:
        (planted / "a" / name).unlink()
    alone, nothing = scan_corpus(planted, domain="bio", options=options)
    assert (alone, nothing) == (clips, ())
    assert len(alone) == 6


def test_a_name_that_is_no_text_is_left_out_and_shown(tmp_path: Path, write_audio: Callable[..., Path]) -> None:
    write_audio("corpus/a/good.wav")
    good = (tmp_path / "corpus" / "a" / "good.wav").read_bytes()
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/corpus/a/\xff.wav")).write_bytes(good)
    clips, (bad,) = scan_corpus(tmp_path / "corpus", domain="bio", options=ScanOptions(workers=1))
    assert len(clips) == 1
    assert "is no text that a manifest can hold; rename the file" in bad.reason
    write_quarantine(clips, (bad,), str(tmp_path / "m.csv"))
    assert r"\udcff.wav" in (tmp_path / "m.quarantine.csv").read_text()


def test_a_device_is_never_opened(planted: Path) -> None:
    device = planted / "a" / "good0.wav"
    device.unlink()
    try:
        os.mknod(device, 0o600 | stat.S_IFCHR, os.makedev(1, 5))  # /dev/zero
    except OSError:
        pytest.skip("devices are made by root only")
    _, quarantine = scan_corpus(planted, domain="bio", options=ScanOptions(workers=1))
    assert {Path(bad.path).name: bad.reason for bad in quarantine}["good0.wav"] == "not a regular file"


def test_a_suffix_of_the_same_family_or_of_none_is_good(tmp_path: Path) -> None:
    for kind, name in (("WAVEX", "a.wav"), ("RF64", "b.wav"), ("AIFF", "c.aif"), ("FLAC", "d.FLAC"), ("OGG", "e.dat")):
        soundfile.write(tmp_path / name, np.zeros(800), 16_000, format=kind)
    rows = [f"{path.name},x" for path in sorted(tmp_path.iterdir())]
    (tmp_path / "metadata.csv").write_text("\n".join(["file,label", *rows]))
    clips, quarantine = scan_corpus(tmp_path, domain="bio", options=ScanOptions(workers=1))
    assert quarantine == ()
    assert len(clips) == 5


def test_losses_are_summed_by_stratum(make_clip: Callable[..., Clip]) -> None:
    clips = [make_clip("1", duration_s=1_800.0), make_clip("2", labels=("b", "a")), make_clip("3", labels=())]
    bad = [
        Quarantined("x", "r", "", "corrupt", "birds/wren", 3_600.0),
        Quarantined("y", "r", "", "corrupt", "birds/wren", None),
        Quarantined("z", "r", "", "corrupt", "birds/owl", 1_800.0),
    ]
    found = losses(clips, bad)
    assert found == {
        "birds": Loss(1, 0, pytest.approx(1 / 3_600), 0.0, 0),
        "birds/b;a": Loss(1, 0, pytest.approx(1 / 3_600), 0.0, 0),
        "birds/owl": Loss(0, 1, 0.0, 0.5, 0),
        "birds/wren": Loss(1, 2, 0.5, 1.0, 1),
    }
    assert total(found) == Loss(3, 3, pytest.approx(0.5 + 2 / 3_600), 1.5, 1)
    assert total({}) == Loss(0, 0, 0.0, 0.0, 0)


def test_the_report_has_every_file_and_replaces_the_last_one(tmp_path: Path, make_clip: Callable[..., Clip]) -> None:
    bad = (Quarantined('a,"b".wav', "why, then", "0" * 64, "corrupt", "birds/wren", 1.5),)
    paths = write_quarantine([make_clip()], bad, str(tmp_path / "m.csv"))
    assert paths == [str(tmp_path / "m.quarantine.json"), str(tmp_path / "m.quarantine.csv")]
    content = json.loads((tmp_path / "m.quarantine.json").read_text())
    assert [Quarantined(**row) for row in content["files"]] == list(bad)
    assert content["strata"] == {"birds/wren": content["total"]}
    assert content["total"]["bad"] == 1
    with (tmp_path / "m.quarantine.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row == bad[0]._asdict() | {"seconds": "1.5"}
    write_quarantine([make_clip()], (), str(tmp_path / "m.csv"))
    assert json.loads((tmp_path / "m.quarantine.json").read_text())["files"] == []
    assert len((tmp_path / "m.quarantine.csv").read_text().splitlines()) == 1
