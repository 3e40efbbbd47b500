"""`sonar data scan` as a user has it."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sonar.data.manifest import read_manifest

Scan = Callable[..., tuple[int, str, str]]


@pytest.fixture
def scan(run_sonar: Scan, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Scan:
    """Run `sonar data scan ...`; gives exit status, output and errors."""
    monkeypatch.chdir(tmp_path)
    return partial(run_sonar, "data", "scan")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    for number in range(8):
        path = tmp_path / "birds" / "ab"[number % 2] / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.1 * np.random.default_rng(number).standard_normal(1_600), 16_000)
    return tmp_path / "birds"


def test_a_scan_leaves_a_manifest_a_report_and_a_record(scan: Scan, corpus: Path) -> None:
    status, out, _ = scan("birds", "--out", "birds/m.csv", "--domain", "bio")
    assert (status, out) == (0, "8 clips, 0.00 h; 0 files quarantined (0.00 h lost); manifest: birds/m.csv\n")
    assert {clip.domain for clip in read_manifest(corpus / "m.csv")} == {"bio"}
    assert sorted(path.name for path in corpus.glob("m.*")) == [
        "m.csv",
        "m.quarantine.csv",
        "m.quarantine.json",
        "m.scan.jsonl",
    ]
    assert len((corpus / "m.scan.jsonl").read_text().splitlines()) == 9


def test_bad_files_above_the_share_are_reported_and_no_manifest_is_written(scan: Scan, corpus: Path) -> None:
    (corpus / "a" / "0.wav").write_text("field notes")
    status, out, err = scan("birds", "--out", "birds/m.csv")
    assert status == 2
    assert "error: 1 of 8 files of birds are unusable (allowed: 5%)" in err
    assert "quarantined" in out
    assert not (corpus / "m.csv").exists()
    assert json.loads((corpus / "m.quarantine.json").read_text())["total"]["bad"] == 1
    status, out, _ = scan("birds", "--out", "birds/m.csv", "--max-bad-fraction", 0.2, "--json")
    assert status == 0
    told = json.loads(out)
    assert (told["manifest"], told["clips"], told["bad"], told["unknown_length"]) == ("birds/m.csv", 7, 1, 1)
    assert len(read_manifest(corpus / "m.csv")) == 7


def test_a_time_limit_that_nothing_fits_in_is_a_user_error(scan: Scan, corpus: Path) -> None:
    status, _, err = scan("birds", "--out", "birds/m.csv", "--time-limit", 0)
    assert status == 2
    assert "give more than 0 s" in err


def test_a_manifest_elsewhere_needs_the_root_of_its_audio(scan: Scan, corpus: Path, tmp_path: Path) -> None:
    status, _, err = scan("birds", "--out", "lists/m.parquet")
    assert status == 2
    assert "write the manifest into the folder of the corpus, or name its root" in err
    assert scan("birds", "--out", "lists/m.parquet", "--root", "birds")[0] == 0
    clips = read_manifest(tmp_path / "lists/m.parquet", root=corpus)
    assert scan("lists/m.parquet", "--out", "lists/n.csv", "--root", "birds")[0] == 0
    assert read_manifest(tmp_path / "lists/n.csv", root=corpus) == clips


def test_a_manifest_of_another_kind_is_refused_before_anything_is_read(scan: Scan, corpus: Path) -> None:
    status, _, err = scan("birds", "--out", "birds/m.json")
    assert status == 2
    assert "a manifest ends in .csv or .parquet" in err
    assert not list(corpus.glob("m.*"))


def test_a_long_scan_says_how_far_it_is(scan: Scan, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sonar.data.scan_progress.Lines.__init__.__defaults__", (0.0,))
    _, _, err = scan("birds", "--out", "birds/m.csv")
    assert "8/8 files (8 read) | 0.00 h |" in err.splitlines()[-1]
    monkeypatch.setattr("rich.console.Console.is_terminal", property(lambda console: True))
    _, _, err = scan("birds", "--out", "birds/m.csv")
    assert "8/8 files (0 read)" in err
