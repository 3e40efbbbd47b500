"""Progress is a bar on a terminal and a line at intervals elsewhere, on standard error."""

import pytest
from rich.console import Console

from sonar.cli.data import progress


def test_elsewhere_it_says_a_line_at_intervals(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    with progress.told_progress("clips read") as told:
        for done in range(1, 26):
            clock[0] += 1
            told(done, 25, f", {done // 10} [bad]")
    captured = capsys.readouterr()
    assert captured.err.split("\n") == [
        "clips read 10/25, 1 [bad] | 1/s | ETA 15 s",
        "clips read 20/25, 2 [bad] | 1/s | ETA 5 s",
        "",
    ]
    assert captured.out == ""


def test_it_goes_to_standard_output_where_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sonar.data.scan_progress.Lines.__init__.__defaults__", (0.0,))
    with progress.told_progress("shards", stderr=False) as told:
        told(1, 2)
    captured = capsys.readouterr()
    assert captured.out.startswith("shards 1/2 | ")
    assert captured.err == ""


def test_on_a_terminal_it_is_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "Console", lambda stderr: Console(stderr=stderr, force_terminal=True, width=80))
    with progress.told_progress("clips read") as told:
        told(3, 25, ", 1 [bad]")
    captured = capsys.readouterr()
    assert "clips read" in captured.err and "3/25, 1 [bad]" in captured.err
    assert captured.out == ""
