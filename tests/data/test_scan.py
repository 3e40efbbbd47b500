import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sonar.data.audio import decode_audio, file_sha256
from sonar.data.check import Checked, Job, check_file
from sonar.data.corpora import load_corpus, scan_listed
from sonar.data.guard import Limits
from sonar.data.listing import Listed
from sonar.data.manifest import write_manifest
from sonar.data.scan import ScanOptions, ScanProgress, check_files
from sonar.data.scan_progress import ScanLines, describe

Write = Callable[..., Path]


@pytest.fixture
def corpus(tmp_path: Path, write_audio: Write) -> Path:
    for number in range(12):
        write_audio(f"corpus/{'ab'[number % 2]}/{number:02d}.wav", seconds=0.1)
    return tmp_path / "corpus"


def files_of(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*.wav"))


def scan(root: Path, record: Path | None, **options: object) -> tuple[dict[str, Checked], ScanProgress]:
    """All of a folder by one worker, and how it ended."""
    seen: list[ScanProgress] = []
    settings = ScanOptions(record=record, report=seen.append, workers=1, **options)  # type: ignore[arg-type]
    return check_files(str(root), files_of(root), settings), seen[-1]


def change_unseen(path: Path) -> None:
    """Other bytes under the same size and time: who reads the file again will say something else of it."""
    before = path.stat()
    path.write_bytes(b"\0" * before.st_size)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def hang_or_crash(job: Job) -> Checked | None:
    """Stands for a decoder with a fault that some content triggers."""
    if "hang" in job.file:
        time.sleep(1e6)
    if "crash" in job.file:
        os.kill(os.getpid(), signal.SIGSEGV)
    return check_file(job)


def test_a_file_is_known_by_hash_true_length_rate_and_channels(tmp_path: Path, write_audio: Write) -> None:
    path = write_audio("corpus/a.flac", seconds=0.3, sample_rate=22_050, channels=2)
    (one,) = check_files(str(tmp_path), ["corpus/a.flac"], ScanOptions(workers=1)).values()
    assert one[1:] == (file_sha256(path), 0.3, 22_050, 2, "", "corrupt")


def test_the_length_of_an_mp3_that_only_guesses_it_is_counted(tmp_path: Path) -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal(80_000)
    soundfile.write(tmp_path / "a.mp3", np.concatenate([np.zeros(80_000), noise]), 44_100)
    mp3 = (tmp_path / "a.mp3").read_bytes()
    (tmp_path / "a.mp3").write_bytes(mp3[mp3.find(mp3[:2], 200) :])  # without the frame that counts the others
    (one,) = check_files(str(tmp_path), ["a.mp3"], ScanOptions(workers=1)).values()
    assert one.seconds == pytest.approx(len(decode_audio(tmp_path / "a.mp3")) / 16_000, abs=1e-4)


def test_a_file_too_large_to_be_held_is_checked_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(1_000), 16_000)
    held = check_file(Job(str(tmp_path), "a.wav", None))
    monkeypatch.setattr("sonar.data.recording.HELD_BYTES", 10)
    monkeypatch.setattr("sonar.data.recording.read_bytes", None)
    assert check_file(Job(str(tmp_path), "a.wav", None)) == held


KILLED = """
    import os, signal, sys
    from sonar.data.scan import ScanOptions, check_files
    def report(progress):
        if progress.done == 5:
            os.kill(os.getpid(), signal.SIGKILL)
    root, record, *files = sys.argv[1:]
    check_files(root, files, ScanOptions(record=record, report=report, workers=1))
"""


def test_a_killed_scan_goes_on_and_reads_nothing_twice(corpus: Path, tmp_path: Path) -> None:
    expected, _ = scan(corpus, None)
    record = tmp_path / "m.scan.jsonl"
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(corpus), str(record), *files_of(corpus)]
    assert subprocess.run(command, timeout=60).returncode == -signal.SIGKILL
    kept = [json.loads(line)[0] for line in record.read_text().splitlines()[1:]]
    assert kept == files_of(corpus)[:5]
    for file in kept:
        change_unseen(corpus / file)
    found, progress = scan(corpus, record)
    assert found == expected
    assert (progress.done, progress.read) == (12, 7)


def test_a_rescan_reads_what_changed_and_forgets_what_is_gone(corpus: Path, tmp_path: Path, write_audio: Write) -> None:
    record = tmp_path / "m.scan.jsonl"
    first, _ = scan(corpus, record)
    assert scan(corpus, record)[1].read == 0
    touched, longer, gone, new = corpus / "a/00.wav", corpus / "b/01.wav", corpus / "a/02.wav", "corpus/b/new.wav"
    os.utime(touched, ns=(1, 1))
    before = longer.stat()
    soundfile.write(longer, np.ones(3_000) / 2, 16_000)
    os.utime(longer, ns=(before.st_atime_ns, before.st_mtime_ns))
    gone.unlink()
    write_audio(new)
    second, progress = scan(corpus, record)
    assert progress.read == 3
    assert sorted(second) == files_of(corpus)
    assert second["b/01.wav"].seconds == 3_000 / 16_000
    assert second["a/00.wav"][1:] == first["a/00.wav"][1:]
    assert [json.loads(line)[0] for line in record.read_text().splitlines()[1:]].count("a/02.wav") == 0
    assert len(record.read_text().splitlines()) == 1 + len(second)


def test_a_bad_file_is_known_too_and_one_that_is_repaired_is_read(corpus: Path, tmp_path: Path) -> None:
    whole = (corpus / "a/00.wav").read_bytes()
    (corpus / "a/00.wav").write_bytes(whole[:1_000])
    record = tmp_path / "m.scan.jsonl"
    first, _ = scan(corpus, record)
    assert first["a/00.wav"].kind == "truncated"
    assert scan(corpus, record) == (first, scan(corpus, record)[1])
    assert scan(corpus, record)[1].read == 0
    (corpus / "a/00.wav").write_bytes(whole)
    assert not scan(corpus, record)[0]["a/00.wav"].reason


@pytest.mark.parametrize(
    ("damage", "num_read"),
    [
        (lambda lines: [*lines[:-1], lines[-1][:-9]], 1),
        (lambda lines: [lines[0], "no json\n", *lines[2:]], 1),
        (lambda lines: [lines[0], "[1]\n", '{"a": 1}\n', *lines[1:]], 0),
        (lambda lines: [lines[0].replace('"sonar_scan": 1', '"sonar_scan": 0'), *lines[1:]], 12),
        (lambda lines: [lines[0].replace("corpus", "other"), *lines[1:]], 12),
        (lambda lines: [], 12),
    ],
    ids=["torn last line", "garbage", "lines of another kind", "older rules", "another corpus", "empty"],
)
def test_a_damaged_record_costs_what_it_lost(
    corpus: Path, tmp_path: Path, damage: Callable[[list[str]], list[str]], num_read: int
) -> None:
    record = tmp_path / "m.scan.jsonl"
    expected, _ = scan(corpus, record)
    record.write_text("".join(damage(record.read_text().splitlines(keepends=True))))
    found, progress = scan(corpus, record)
    assert (found, progress.read) == (expected, num_read)
    assert scan(corpus, record)[1].read == 0


@pytest.mark.slow
def test_a_decoder_that_hangs_or_crashes_costs_its_file_and_is_tried_again(corpus: Path, tmp_path: Path) -> None:
    good, _ = scan(corpus, None)
    for name in ("a/hang.wav", "b/crash.wav"):
        (corpus / name).write_bytes((corpus / "a/00.wav").read_bytes())
    record = tmp_path / "m.scan.jsonl"
    found, _ = scan(corpus, record, check=hang_or_crash, limits=Limits(seconds=0.2))
    assert (found["a/hang.wav"].reason, found["a/hang.wav"].kind) == ("the decoder took longer than 0.2 s", "hang")
    assert (found["b/crash.wav"].reason, found["b/crash.wav"].kind) == ("the decoder crashed (SIGSEGV)", "crash")
    assert {file: one for file, one in found.items() if file in good} == good
    again, progress = scan(corpus, record)
    assert progress.read == 2
    assert not any(one.reason for one in again.values())


@pytest.mark.slow
def test_a_file_that_takes_too_much_memory_is_named_and_a_long_one_is_not(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.flac", np.zeros((8_000 * 3_600, 8), dtype=np.int16), 8_000)
    soundfile.write(tmp_path / "large.wav", np.zeros((2_500_000, 8), dtype=np.int16), 8_000)
    options = ScanOptions(workers=1, limits=Limits(memory_mb=20))
    assert check_files(str(tmp_path), ["large.wav"], options)["large.wav"].kind == "memory"
    found = check_files(str(tmp_path), ["long.flac", "large.wav"], ScanOptions(workers=1))
    assert [one.seconds for one in found.values()] == [3_600, 312.5]


def test_segments_of_a_file_are_clips_and_the_file_is_read_once(tmp_path: Path, write_audio: Write) -> None:
    write_audio("corpus/long.wav", seconds=1.0)
    (tmp_path / "corpus" / "bad.wav").write_text("field notes")
    parts = [(0.0, 0.4), (0.4, 0.4), (0.6, None), (0.8, 0.4)]
    listed = [Listed(file, ("x",), "g", "train", *part) for file in ("long.wav", "bad.wav") for part in parts]
    seen: list[ScanProgress] = []
    options = ScanOptions(report=seen.append, workers=1)
    clips, quarantine = scan_listed(tmp_path / "corpus", listed, corpus="c", domain="bio", options=options)
    assert (seen[-1].total, seen[-1].bad) == (2, 1)
    assert [(clip.clip_id, clip.start_s, clip.duration_s) for clip in clips] == [
        ("c/long.wav", 0.0, 0.4),
        ("c/long.wav@0.4", 0.4, 0.4),
        ("c/long.wav@0.6", 0.6, 0.4),
    ]
    assert [bad.reason for bad in quarantine] == [
        "the clip lasts to 1.20 s, the file to 1.00 s",
        "cannot be decoded: its content is text",
    ]


def test_a_manifest_is_verified_to_the_last_byte(corpus: Path, tmp_path: Path) -> None:
    options = ScanOptions(workers=1)
    clips, _ = load_corpus(corpus, domain="bio", options=options)
    manifest = corpus / "m.parquet"
    write_manifest(clips, manifest)
    changed, shorter, broken = (Path(clip.path) for clip in clips[:3])
    content = bytearray(changed.read_bytes())
    content[-1] ^= 1
    changed.write_bytes(content)
    soundfile.write(shorter, np.zeros(800), 16_000)
    broken.write_bytes(broken.read_bytes()[:1_000])
    good, bad = load_corpus(manifest, domain="ignored", max_bad_fraction=0.5, options=options)
    assert good == clips[3:]
    reason = "the file has changed since its manifest was made; scan the corpus again"
    assert [(one.path, one.reason, one.kind) for one in bad[:2]] == [
        (str(changed), reason, "changed"),
        (str(shorter), reason, "changed"),
    ]
    assert bad[2].kind == "truncated"


def test_progress_counts_files_hours_and_bad_ones_and_is_said_at_intervals() -> None:
    good, bad = Checked(None, "0" * 64, 1_800.0, 16_000, 1), Checked(None, reason="x")
    progress = ScanProgress(10).after(good, was_read=True).after(bad, was_read=True).after(good, was_read=False)
    assert progress == (10, 3, 2, 1, 3_600.0)
    assert describe(progress, 1.5) == "3/10 files (2 read) | 1.00 h | 2 files/s | 1 bad | ETA 4 s"
    said: list[str] = []
    lines = ScanLines(said.append, interval_s=0.05)
    lines(progress)
    assert said == []
    time.sleep(0.06)
    lines(progress)
    lines(progress)
    assert len(said) == 1
