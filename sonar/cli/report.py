"""`sonar report`."""

from __future__ import annotations

import typer

from sonar.cli.options import SweepFolder


def register_report(app: typer.Typer) -> None:
    """Add `sonar report`."""

    @app.command()
    def report(folder: SweepFolder) -> None:
        """Write the sweep's one self-contained HTML page."""
        from sonar.report import write_report
        from sonar.search.run import read_sweep

        typer.echo(f"wrote {write_report(read_sweep(folder), folder)}")
