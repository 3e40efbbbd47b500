"""The command line: `sonar`, and `main(SWEEP)` for a sweep script."""

from sonar.cli.app import cli, main

__all__ = ["cli", "main"]
