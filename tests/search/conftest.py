"""What tests of a sweep's commands share."""

import sys
from typing import Any

import pytest

from sonar import cli as cli_module


@pytest.fixture
def sonar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a command as a shell would: its exit status, what it said, what it complained of."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sonar", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli_module.cli()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run
