"""`sonar front show`."""

from __future__ import annotations

import typer

from sonar.cli.front.tables import print_table
from sonar.cli.options import SweepFolder


def register_show(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(show)


def show(folder: SweepFolder) -> None:
    """The trials that no other one dominates."""
    from sonar.search.results import front
    from sonar.search.run import read_sweep

    print_table("front", front(read_sweep(folder)))
