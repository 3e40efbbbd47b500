"""Progress is a bar on a terminal and a line at intervals elsewhere, on standard error."""

import pytest
from rich.console import Console

from sonar.cli.data import progress


def test_elsewhere_it_says_a_line_at_intervals(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter(range(100))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    with progress.told_progress("clips read") as told:
        for done in range(1, 26):
            told(done, 25)
    captured = capsys.readouterr()
    assert captured.err.split("\n") == ["clips read 10/25", "clips read 20/25", ""]
    assert captured.out == ""


def test_on_a_terminal_it_is_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "Console", lambda stderr: Console(stderr=stderr, force_terminal=True, width=80))
    with progress.told_progress("clips read") as told:
        told(3, 25)
    captured = capsys.readouterr()
    assert "clips read" in captured.err and "3/25" in captured.err
    assert captured.out == ""
